//! What the story ran with and on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::cpu_count;
use crate::lab::sluice::Binaries;

/// Versions of Sluice and of what it works with; what cannot be asked is "unknown".
pub fn versions(binaries: &Binaries) -> BTreeMap<String, String> {
    let dataplane = binaries.dataplane.display().to_string();
    let control = binaries.control.display().to_string();
    let asked: [(&str, &[&str]); 8] = [
        ("sluice-dataplane", &[&dataplane, "--version"]),
        ("sluice-control", &[&control, "--version"]),
        ("commit", &["git", "describe", "--always", "--dirty"]),
        ("dpdk", &["pkg-config", "--modversion", "libdpdk"]),
        ("kernel", &["uname", "-r"]),
        ("nginx", &["nginx", "-v"]),
        ("wrk", &["wrk", "-v"]),
        ("rustc", &["rustc", "--version"]),
    ];
    asked
        .into_iter()
        .map(|(name, argv)| {
            let line = first_line(argv).unwrap_or_else(|| "unknown".to_owned());
            (name.to_owned(), line)
        })
        .collect()
}

/// The machine: CPUs, memory, operating system.
pub fn machine() -> BTreeMap<String, Value> {
    let field = |file: &str, key: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        let (_, value) = line.split_once([':', '='])?;
        Some(value.trim().trim_matches('"').to_owned())
    };
    let memory_mb = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib / 1_024);
    BTreeMap::from([
        ("cpus".to_owned(), json!(cpu_count())),
        ("cpu".to_owned(), json!(field("/proc/cpuinfo", "model name"))),
        ("memory_mb".to_owned(), json!(memory_mb)),
        ("os".to_owned(), json!(field("/etc/os-release", "PRETTY_NAME"))),
    ])
}

/// The first line that a program prints, on stdout or else on stderr.
fn first_line(argv: &[&str]) -> Option<String> {
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|p| p.is_dir())?)
        .output()
        .ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let line = String::from_utf8_lossy(&text).lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
