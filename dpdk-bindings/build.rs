//! Binds the installed libdpdk: pkg-config finds it, bindgen reads it, cc compiles the shim.
//!
//! What is missing on the machine ends the build with one message that names the package.

use std::env;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest DPDK whose names the wrapper uses (`RTE_ETH_*`, `RTE_MBUF_F_*`), and that is tested.
const OLDEST_DPDK: &str = "22.11";

/// The libraries whose symbols we use; before 23.11 there is no rte_log, which was part of rte_eal.
/// Drivers are loaded by EAL from DPDK's plugin directory.
const LIBRARIES: &[&str] =
    &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_log"];

const FUNCTIONS: &[&str] = &[
    "sluice_.*",
    "rte_dev_event_callback_register",
    "rte_dev_event_callback_unregister",
    "rte_dev_probe",
    "rte_eal_cleanup",
    "rte_eal_init",
    "rte_eth_call_rx_callbacks",
    "rte_eth_call_tx_callbacks",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_callback_register",
    "rte_eth_dev_callback_unregister",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_reset",
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_hash_update",
    "rte_eth_dev_rss_reta_query",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_allmulticast_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_tx_queue_setup",
    "rte_get_tsc_hz",
    "rte_mempool_in_use_count",
    "rte_openlog_stream",
    "rte_pktmbuf_free_bulk",
    "rte_ring_create",
    "rte_ring_free",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
];

const VARIABLES: &[&str] =
    &["SLUICE_.*", "rte_eth_fp_ops", "RTE_MAX_ETHPORTS", "RTE_MAX_QUEUES_PER_PORT"];

/// The offsets in wrapper.h; other types come with the functions that use them.
const TYPES: &[&str] = &["sluice_mbuf_offset"];

/// Types whose fields we do not read: packed structs with aligned members, which Rust cannot express,
/// and those whose fields differ between versions (we read an mbuf by the offsets in wrapper.h).
const OPAQUE: &[&str] = &[
    "_IO_FILE",
    "rte_arp_ipv4",
    "rte_arp_hdr",
    "rte_gtp_psc_generic_hdr",
    "rte_l2tpv2_combined_msg_hdr",
    "rte_device",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
];

/// Intrinsics that clang and gcc type differently; we use none of them.
const BLOCKED: &[&str] = &["rte_thash_gfni.*", "rte_xbegin", "rte_xend", "rte_xabort", "rte_xtest"];

fn main() {
    for file in ["build.rs", "wrapper.h", "shim.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in ["PKG_CONFIG", "LIBCLANG_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(message) = build() {
        // This fails the build, and cargo shows the message alone. A panic or an exit code would
        // make it dump all that the script printed as well.
        println!("cargo::error={}", message.replace('\n', " "));
    }
}

fn build() -> Result<(), String> {
    let library = find_dpdk()?;
    let flags = raw_cflags()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?);
    bind(&flags, &out.join("bindings.rs"))?;
    compile_shim(&flags)?;
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES.iter().filter(|name| library.libs.iter().any(|lib| lib == *name)) {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    Ok(())
}

/// Where libdpdk is, or which package brings it.
fn find_dpdk() -> Result<pkg_config::Library, String> {
    use pkg_config::Error;
    pkg_config::Config::new()
        .atleast_version(OLDEST_DPDK)
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
        .map_err(|error| match error {
            Error::Command { cause, .. } => format!(
                "cannot run pkg-config, which finds DPDK: {cause}. On Debian: apt-get install pkg-config"
            ),
            other => {
                let found = installed_version().map_or_else(
                    || "pkg-config knows no libdpdk".to_owned(),
                    |version| format!("pkg-config found libdpdk {version}, or not all it needs"),
                );
                let detail = first_line(&other.to_string());
                format!(
                    "DPDK {OLDEST_DPDK} or newer is needed: {found} ({detail}). On Debian: apt-get install \
                     libdpdk-dev; elsewhere set PKG_CONFIG_PATH to the directory of libdpdk.pc"
                )
            }
        })
}

fn pkg_config_command() -> Command {
    Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()))
}

fn installed_version() -> Option<String> {
    let output = pkg_config_command().args(["--modversion", "libdpdk"]).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !version.is_empty()).then_some(version)
}

/// All compiler flags, word by word. The pkg-config crate drops `-include` and `-march`, without
/// which the headers mean something else than the library.
fn raw_cflags() -> Result<Vec<String>, String> {
    let output = pkg_config_command()
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("cannot run pkg-config: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "pkg-config --cflags libdpdk: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut flags: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    flags.push("-DALLOW_EXPERIMENTAL_API".to_owned());
    Ok(flags)
}

fn bind(flags: &[String], to: &Path) -> Result<(), String> {
    check_libclang()?;
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .generate_comments(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new().rerun_on_header_files(true)));
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in VARIABLES {
        builder = builder.allowlist_var(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    for name in BLOCKED {
        builder = builder.blocklist_function(name).blocklist_item(name);
    }
    let bindings = builder.generate().map_err(|error| {
        let detail = error.to_string();
        format!(
            "bindgen cannot read DPDK's headers: {detail}. When a standard header such as stddef.h is missing: \
             apt-get install libclang-dev libc6-dev"
        )
    })?;
    bindings.write_to_file(to).map_err(|error| format!("cannot write {}: {error}", to.display()))
}

/// Load libclang the way bindgen will, whose own answer to a missing one is a panic.
fn check_libclang() -> Result<(), String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let loaded = panic::catch_unwind(bindgen::clang_version);
    panic::set_hook(hook);
    loaded.map(drop).map_err(|_| {
        "libclang is missing, which reads DPDK's headers for the bindings. On Debian: apt-get install \
         libclang-dev; elsewhere set LIBCLANG_PATH to the directory of libclang.so"
            .to_owned()
    })
}

fn compile_shim(flags: &[String]) -> Result<(), String> {
    let mut build = cc::Build::new();
    build.file("shim.c").opt_level(3).warnings(false);
    for flag in flags {
        build.flag(flag);
    }
    build.try_compile("sluice_dpdk_shim").map_err(|error| {
        format!(
            "cannot compile shim.c: {}. When there is no C compiler: apt-get install gcc libc6-dev",
            first_line(&error.to_string())
        )
    })
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
