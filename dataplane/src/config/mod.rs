//! The data plane's file: TOML goes in, a [`Config`] that can be started comes out, or every
//! problem in the file with its line and what would be accepted.
//!
//! `report` reads values and collects problems, `file` knows the sections and their keys, `rules`
//! checks what concerns several fields, `network` holds the address types.

mod device;
mod driver;
mod file;
mod report;
mod rules;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sluice_api::stats::Limits;

pub use device::unverified_warning;
pub use driver::most_queues;
pub use report::FileProblem;
use sluice_path::ids::InterfaceId;
pub use sluice_path::network::{InterfaceAddress, MAX_PORTS, NetworkError, Prefix};
pub use sluice_path::table::route::Route;

/// Most workers: one less than DPDK's limit of 128 lcores, as the main thread is one too.
pub const MAX_WORKERS: usize = 127;
/// Longest name of a kernel interface, in bytes: IFNAMSIZ less its terminating zero.
pub const MAX_INTERFACE_NAME: usize = 15;

/// Everything the data plane is started with. While it runs, only `runtime.log` and the routes change, at
/// a SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[runtime]`: CPUs and memory.
    pub runtime: Runtime,
    /// `[control]`: the socket for sluice-control.
    pub control: Control,
    /// `[limits]`: sizes of the tables.
    pub limits: Limits,
    /// `[[port]]`: at least one, in the order of the file.
    pub ports: Vec<Port>,
    /// `[[route]]`: static routes, in the order of the file.
    pub routes: Vec<Route>,
    /// `[exception]`: the way to the kernel.
    pub exception: Exception,
}

/// CPUs and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// CPU of the main thread, which never polls. Default: the first that is online.
    pub main_cpu: u16,
    /// CPU of each worker. Default: one worker, on the last CPU that is online.
    pub worker_cpus: Vec<u16>,
    /// Whether workers may share a CPU, for trials on small machines. Default: each has its own.
    pub share_cpus: bool,
    /// What a worker does when no packets come.
    pub idle: Idle,
    /// Whether DPDK's memory is in hugepages (default) or in ordinary pages.
    pub hugepages: bool,
    /// DPDK's memory, in MiB (64 to 1,048,576; default 512).
    pub memory_mb: u32,
    /// Sets the files of this process apart from those of other DPDK processes. Default `sluice`.
    pub file_prefix: String,
    /// Further arguments for DPDK's EAL, passed as they are.
    pub eal_args: Vec<String>,
    /// Who checks TCP and UDP checksums of arriving packets.
    pub verify_l4_checksum: VerifyL4Checksum,
    /// What is logged, as `RUST_LOG` says it, which comes before. Default `info`.
    pub log: String,
    /// Time between two announcements of an address by gratuitous ARP, in s (0 to 86,400; 0: it is
    /// announced once). Default 60.
    pub announce_every_s: u32,
}

impl Runtime {
    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.worker_cpus.len() as u16
    }
}

/// What a worker does when no packets come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Back off step by step: almost no CPU time when idle, a little latency on the first packet.
    #[default]
    Adaptive,
    /// Always poll: lowest latency, a whole CPU per worker.
    Busy,
}

impl Idle {
    const NAMES: [(&'static str, Idle); 2] = [("adaptive", Idle::Adaptive), ("busy", Idle::Busy)];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Idle::Adaptive => "adaptive",
            Idle::Busy => "busy",
        }
    }
}

/// Who checks TCP and UDP checksums of arriving packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyL4Checksum {
    /// Where the port does not check in hardware, the worker does.
    #[default]
    Always,
    /// Ports that check in hardware only; packets of other ports go on unchecked, and the receiver
    /// checks them. Wanted where neighbours on the same machine leave checksums unfinished.
    Port,
}

impl VerifyL4Checksum {
    const NAMES: [(&'static str, VerifyL4Checksum); 2] =
        [("always", VerifyL4Checksum::Always), ("port", VerifyL4Checksum::Port)];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            VerifyL4Checksum::Always => "always",
            VerifyL4Checksum::Port => "port",
        }
    }
}

/// The socket for sluice-control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Absolute path. Default [`sluice_api::DEFAULT_SOCKET`].
    pub socket: PathBuf,
}

/// Whether a port's packets are believed about where they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceCheck {
    /// No client has an address of another port's network, and once a conn is there, its packets come
    /// in by the ports that they did, or that lead back to their source (RFC 3704, 2.2).
    #[default]
    Strict,
    /// By any port: where routes to and from Sluice differ.
    Off,
}

impl SourceCheck {
    const NAMES: [(&'static str, SourceCheck); 2] =
        [("strict", SourceCheck::Strict), ("off", SourceCheck::Off)];
}

/// A port that DPDK drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, unique ([`sluice_api::validate::is_name`]).
    pub name: String,
    /// A DPDK device string (`net_af_xdp0,iface=l0`) or a PCI address (`0000:03:00.0`), unique.
    pub device: String,
    /// Its addresses, at least one; each connects its network.
    pub addresses: Vec<InterfaceAddress>,
    /// Largest IP packet, in bytes (576 to 9,216; default 1,500).
    pub mtu: u16,
    /// Descriptors per receive queue (a power of two, 64 to 16,384; default 1,024).
    pub rx_descriptors: u16,
    /// Descriptors per transmit queue (a power of two, 64 to 16,384; default 1,024).
    pub tx_descriptors: u16,
    /// Whether it takes frames for any MAC address. Default no.
    pub promiscuous: bool,
    /// Whether sources are believed only when they lie behind it. Default strict.
    pub source_check: SourceCheck,
    /// Name of the kernel interface that is its exception port; none when `[exception]` is off.
    /// Default: `sl-` and the port's name.
    pub exception: Option<String>,
}

impl Port {
    /// Directed broadcast addresses of its networks (RFC 919), in host order. Networks of prefix
    /// length 31 (RFC 3021) and 32 have none.
    pub fn broadcasts(&self) -> Box<[u32]> {
        let networks = self.addresses.iter().map(|address| address.network());
        let with_one = networks.filter(|network| network.prefix_len() <= 30);
        with_one.map(|network| network.last().to_bits()).collect()
    }

    /// Whether AF_XDP drives it, which receives into the kernel's part of packet buffers.
    pub fn is_af_xdp(&self) -> bool {
        self.device.starts_with("net_af_xdp")
    }
}

/// The way to the kernel of packets for the host's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Whether each port gets a kernel interface for it (default) or such packets are dropped.
    pub enabled: bool,
}

/// Why there is no [`Config`]. Displayed with one line per problem.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not tell which CPUs are online.
    #[error("{ONLINE_CPUS}: {reason}")]
    OnlineCpus {
        /// Why.
        reason: String,
    },
    /// The file is right, and names what this host does not have now.
    #[error("{}", lines(path, problems))]
    NotThere {
        /// The file.
        path: PathBuf,
        /// All that is not there; never empty.
        problems: Vec<FileProblem>,
    },
    /// The file was read but cannot be used.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it, in the order of the file; never empty.
        problems: Vec<FileProblem>,
    },
}

impl ConfigError {
    /// Whether it is the file that has to change. Else the same file may do later, as when a device is
    /// there.
    pub fn is_files(&self) -> bool {
        !matches!(self, ConfigError::NotThere { .. })
    }
}

fn lines(path: &Path, problems: &[FileProblem]) -> String {
    let line =
        |p: &FileProblem| format!("{}:{}:{}: {}", path.display(), p.line, p.column, p.problem);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

const ONLINE_CPUS: &str = "/sys/devices/system/cpu/online";

/// The CPUs that are online now, ascending, as the kernel tells.
pub fn online_cpus() -> Result<Vec<u16>, ConfigError> {
    let error = |reason: String| ConfigError::OnlineCpus { reason };
    let text = std::fs::read_to_string(ONLINE_CPUS).map_err(|e| error(e.to_string()))?;
    parse_cpu_list(&text).ok_or_else(|| error(format!("not a list of CPUs: {text:?}")))
}

/// CPUs of a list as the kernel writes it: `0-3,8`.
pub(crate) fn parse_cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    Some(cpus)
}

impl Config {
    /// The file's configuration, for the CPUs of this machine.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let config = Config::parse(&text, &online_cpus()?).map_err(invalid)?;
        let problems = device::problems(&config.ports, &config.runtime.eal_args, Path::new("/"));
        if problems.is_empty() {
            return Ok(config);
        }
        let is_files = problems.iter().any(|found| found.is_files);
        let all = problems.into_iter().map(|found| (found.value, found.problem)).collect();
        let problems = report::located(&text, all);
        Err(match is_files {
            true => invalid(problems),
            false => ConfigError::NotThere { path: path.to_owned(), problems },
        })
    }

    /// What is right and yet may not be what is wanted.
    pub fn warnings(&self) -> Vec<String> {
        device::warnings(self)
    }

    /// The configuration in a file's text, for a machine with these CPUs online (ascending, at
    /// least one), or everything that is wrong with it.
    pub fn parse(text: &str, online_cpus: &[u16]) -> Result<Self, Vec<FileProblem>> {
        file::parse(text, online_cpus)
    }

    /// The networks that are connected, each with its interface.
    pub fn networks(&self) -> impl Iterator<Item = (InterfaceId, Prefix)> + '_ {
        self.ports.iter().zip((0..).map(InterfaceId)).flat_map(|(port, interface)| {
            port.addresses.iter().map(move |address| (interface, address.network()))
        })
    }

    /// The addresses of all ports, in the order of the file.
    pub fn port_addresses(&self) -> Vec<Ipv4Addr> {
        self.ports.iter().flat_map(|p| p.addresses.iter().map(|a| a.address())).collect()
    }

    /// What it says, in lines for an operator: `--check` prints it.
    pub fn summary(&self) -> String {
        Summary(self).to_string()
    }
}

struct Summary<'a>(&'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { runtime, control, limits, ports, routes, exception } = self.0;
        let memory = if runtime.hugepages { "hugepages" } else { "ordinary pages" };
        writeln!(f, "main thread  cpu {}", runtime.main_cpu)?;
        writeln!(f, "workers      cpu {} ({})", joined(&runtime.worker_cpus), runtime.idle.name())?;
        writeln!(f, "memory       {} MiB in {memory}", runtime.memory_mb)?;
        writeln!(f, "l4 checksums {}", runtime.verify_l4_checksum.name())?;
        writeln!(f, "control      {}", control.socket.display())?;
        writeln!(
            f,
            "limits       {} connections, {} services, {} backends, {} neighbours",
            limits.connections, limits.services, limits.backends, limits.neighbours
        )?;
        for port in ports {
            let exception = port.exception.as_deref().unwrap_or("none");
            writeln!(
                f,
                "port         {}: {}, {}, mtu {}, exception port {exception}",
                port.name,
                port.device,
                joined(&port.addresses),
                port.mtu,
            )?;
        }
        for route in routes {
            let port = &ports[route.interface.port().index()].name;
            writeln!(f, "route        {} via {} on {port}", route.destination, route.via)?;
        }
        for warning in self.0.warnings() {
            writeln!(f, "warning      {warning}")?;
        }
        if !exception.enabled {
            writeln!(f, "exception    off: packets for the host's own addresses are dropped")?;
        }
        Ok(())
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
