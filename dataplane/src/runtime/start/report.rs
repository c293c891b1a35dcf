//! What was taken at start, and what an operator should know about it.

use std::path::Path;

use sluice_api::stats::PortStatus;

use crate::config::{self, VerifyL4Checksum};
use crate::dpdk::Eal;
use crate::runtime::main_loop::MainLoop;
use crate::runtime::warnings;

/// What does not keep it from starting, but costs something.
pub fn warnings(main: &MainLoop) -> Vec<String> {
    let ports = main.ports.iter().map(|p| (p.port().name(), p.port().socket(), p.link_up()));
    let mut warnings = warnings::of(Path::new("/"), ports, &main.config.runtime.worker_cpus);
    warnings.extend(unverified(main));
    warnings
}

/// Ports to which checksums are left and that verify none.
fn unverified(main: &MainLoop) -> impl Iterator<Item = String> {
    let is_left = main.config.runtime.verify_l4_checksum == VerifyL4Checksum::Port;
    let ports = main.ports.iter().map(|main| main.port()).filter(move |_| is_left);
    ports
        .filter(|port| !port.rx_capabilities().l4_checksum)
        .map(|port| config::unverified_warning(port.name()))
}

fn steering_in_words(status: &PortStatus) -> String {
    match status.steering.as_str() {
        "single-worker" => status.steering.clone(),
        steering => format!("{steering} ({})", status.steering_reason),
    }
}

/// Say what was taken, and why.
pub fn report(main: &MainLoop) {
    let config = &main.config;
    println!("sluice-dataplane {} on {}", env!("CARGO_PKG_VERSION"), Eal::version());
    let statuses = main.port_statuses();
    for ((port, opened), status) in config.ports.iter().zip(main.ports.iter()).zip(&statuses) {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        println!(
            "port {}: {} ({}), mac {}, mtu {}, {} queue(s), steering {}, {}, link {}, kernel interface {}",
            port.name,
            port.device,
            opened.port().driver(),
            opened.mac(),
            opened.port().mtu(),
            config.runtime.workers(),
            steering_in_words(status),
            addresses.join(" "),
            if opened.link_up() { "up" } else { "down" },
            port.exception.as_deref().unwrap_or("none"),
        );
    }
    for (worker, cpu) in config.runtime.worker_cpus.iter().enumerate() {
        println!("worker {worker}: cpu {cpu}, idle {}", config.runtime.idle.name());
    }
    println!("main thread: cpu {}", config.runtime.main_cpu);
    for table in main.tables().iter().filter(|t| t.bytes > 0) {
        let (name, mib) = (&table.table, table.bytes.div_ceil(1 << 20));
        println!("memory: {name}: {mib} MiB for {}", table.capacity);
    }
    println!("control socket: {}", config.control.socket.display());
}
