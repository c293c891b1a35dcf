//! What the data plane's file asks of the host. The file's own rules are the data plane's to judge
//! (`sluice-dataplane --check`); here a field that is wrong counts as absent.

use std::path::PathBuf;

use toml::{Table, Value};

/// What is asked for; defaults are those of the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// CPU of the main thread; the first that is online when absent.
    pub main_cpu: Option<u16>,
    /// CPUs of the workers; one worker on the last CPU that is online when empty.
    pub worker_cpus: Vec<u16>,
    /// Whether workers may share a CPU.
    pub share_cpus: bool,
    /// Whether workers always poll.
    pub busy: bool,
    /// Whether DPDK's memory is to lie in hugepages.
    pub hugepages: bool,
    /// DPDK's memory in MiB.
    pub memory_mb: u64,
    /// Where the data plane listens for control.
    pub socket: PathBuf,
    /// Whether each port gets a tap to the kernel.
    pub exception: bool,
    /// Ports: name and device string.
    pub ports: Vec<(String, String)>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted::read(&Table::new())
    }
}

impl Wanted {
    /// What a file asks for.
    pub fn read(file: &Table) -> Wanted {
        let field = |section: &str, key: &str| file.get(section).and_then(|s| s.get(key));
        let cpu = |value: &Value| value.as_integer().and_then(|n| u16::try_from(n).ok());
        let text = |table: &Value, key: &str| {
            table.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let memory = field("runtime", "memory_mb").and_then(Value::as_integer);
        let ports = file.get("port").and_then(Value::as_array);
        Wanted {
            main_cpu: field("runtime", "main_cpu").and_then(cpu),
            worker_cpus: field("runtime", "worker_cpus")
                .and_then(Value::as_array)
                .map(|cpus| cpus.iter().filter_map(cpu).collect())
                .unwrap_or_default(),
            share_cpus: field("runtime", "share_cpus").and_then(Value::as_bool).unwrap_or(false),
            busy: field("runtime", "idle").and_then(Value::as_str) == Some("busy"),
            hugepages: field("runtime", "hugepages").and_then(Value::as_bool).unwrap_or(true),
            memory_mb: memory.and_then(|mb| u64::try_from(mb).ok()).unwrap_or(512),
            socket: field("control", "socket")
                .and_then(Value::as_str)
                .unwrap_or(sluice_api::DEFAULT_SOCKET)
                .into(),
            exception: field("exception", "enabled").and_then(Value::as_bool).unwrap_or(true),
            ports: ports
                .into_iter()
                .flatten()
                .map(|port| (text(port, "name"), text(port, "device")))
                .collect(),
        }
    }

    /// Ports whose device is a PCI address: name, and address with its domain, `0000:03:00.0`.
    pub fn pci(&self) -> impl Iterator<Item = (&str, String)> {
        self.ports.iter().filter_map(|(name, device)| {
            let address = device.split(',').next().unwrap_or_default().to_ascii_lowercase();
            let colons = address.matches(':').count();
            match (address.contains('.') && !address.starts_with("net_"), colons) {
                (true, 1) => Some((name.as_str(), format!("0000:{address}"))),
                (true, 2) => Some((name.as_str(), address)),
                _ => None,
            }
        })
    }

    /// Ports over an interface of the kernel by AF_XDP or AF_PACKET: name and interface.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ports.iter().filter_map(|(name, device)| {
            let over = device.starts_with("net_af_xdp") || device.starts_with("net_af_packet");
            let interface = device.split(',').find_map(|part| part.strip_prefix("iface="));
            interface.filter(|_| over).map(|interface| (name.as_str(), interface))
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What a text asks for.
    pub fn wanted(text: &str) -> Wanted {
        Wanted::read(&text.parse().unwrap())
    }

    #[test]
    fn a_file_is_read_and_what_is_wrong_counts_as_absent() {
        let all = wanted(
            r#"
            [runtime]
            main_cpu = 1
            worker_cpus = [2, 3, 99999999]
            idle = "busy"
            hugepages = false
            memory_mb = "much"
            [control]
            socket = "/run/x.sock"
            [[port]]
            name = "lan"
            device = "03:00.1,arg=1"
            [[port]]
            name = "wan"
            device = "net_af_xdp0,iface=eth1"
            [[port]]
            name = "t"
            device = "net_tap0,iface=t0"
            "#,
        );
        assert_eq!((all.main_cpu, all.worker_cpus.clone()), (Some(1), vec![2, 3]));
        assert!(all.busy && !all.hugepages && all.exception);
        assert_eq!((all.memory_mb, all.socket.clone()), (512, "/run/x.sock".into()));
        assert_eq!(all.pci().collect::<Vec<_>>(), [("lan", "0000:03:00.1".to_owned())]);
        assert_eq!(all.interfaces().collect::<Vec<_>>(), [("wan", "eth1")]);
        assert!(Wanted::default().hugepages && Wanted::default().ports.is_empty());
    }
}
