//! Tells the program what it was built with: figures depend on it.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\x1f', " ");
    println!("cargo::rustc-env=SLUICE_RUSTC={}", version.unwrap_or_else(|_| "unknown".to_owned()));
    println!("cargo::rustc-env=SLUICE_RUSTFLAGS={flags}");
    println!("cargo::rustc-env=SLUICE_PROFILE={}", env::var("PROFILE").unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
}
