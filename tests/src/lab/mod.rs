//! The lab: a client, three backends with real servers, and Sluice between them, each in a network
//! namespace of one machine. Needs root. See [`topology`] for the wires.

pub mod api;
pub mod capture;
pub mod command;
pub mod error;
pub mod interrupt;
pub mod load;
pub mod process;
pub mod reference;
pub mod servers;
pub mod site;
pub mod sluice;
pub mod topology;
pub mod view;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use api::Api;
use error::{LabError, Result};
use load::{Kind, Load, LoadSpec};
use process::Process;
use servers::{ECHO_PORT, Servers};
use site::{Claim, Site};
use sluice::Binaries;
use topology::{BACKENDS, CLIENT, VIP_ECHO, VIP_WEB, VIP_WEB_DR, Wire};

use crate::helper::pace::FIRST_SOURCE_PORT;

/// Where control's API listens, inside the namespace `lb`.
pub const API_LISTEN: &str = "127.0.0.1:9600";

/// What a lab is to be like.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Sets its namespaces and files apart from those of other labs.
    pub prefix: String,
    /// How Sluice's ports are wired.
    pub wire: Wire,
    /// CPUs of the data plane's workers.
    pub worker_cpus: Vec<u16>,
    /// The `sluice-lab` binary, which becomes clients and servers inside the namespaces.
    pub helper: PathBuf,
    /// How long to wait for another lab on this machine to end.
    pub patience: Duration,
}

/// A lab with its wires and servers. Sluice is started on its own.
#[derive(Debug)]
pub struct Lab {
    /// The data plane, once started.
    pub dataplane: Option<Process>,
    /// Control, once started.
    pub control: Option<Process>,
    /// The servers of the backends, from `b1`.
    pub servers: Vec<Servers>,
    /// Control's API.
    pub api: Api,
    binaries: Binaries,
    options: LabOptions,
    next_port: u16,
    claim: Claim,
}

impl Lab {
    /// Claim the machine, lay the wires, write the configuration, start the servers.
    pub fn build(options: LabOptions, binaries: Binaries) -> Result<Self> {
        let claim = Site::new(&options.prefix).claim(options.patience)?;
        let site = claim.site();
        topology::build(site, options.wire)?;
        sluice::write_config(site, options.wire, &options.worker_cpus, API_LISTEN)?;
        let cpus = load_cpus(&options.worker_cpus);
        let servers = (1..=BACKENDS)
            .map(|number| Servers::start(site, number, &options.helper, &cpus))
            .collect::<Result<_>>()?;
        let api = Api::new(site.netns("lb"), API_LISTEN);
        Ok(Lab {
            dataplane: None,
            control: None,
            servers,
            api,
            binaries,
            options,
            next_port: FIRST_SOURCE_PORT,
            claim,
        })
    }

    /// The lab's names.
    pub fn site(&self) -> &Site {
        self.claim.site()
    }

    /// Sluice's programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// CPUs for clients and servers: all but the workers', where there are others.
    pub fn load_cpus(&self) -> String {
        load_cpus(&self.options.worker_cpus)
    }

    /// CPU of the first worker.
    pub fn worker_cpu(&self) -> u16 {
        self.options.worker_cpus.first().copied().unwrap_or(0)
    }

    /// How many workers the data plane has.
    pub fn workers(&self) -> usize {
        self.options.worker_cpus.len()
    }

    /// Name of the interface of a switch (`wan` or `lan`) that leads to Sluice, in `net`.
    pub fn switch_port(&self, switch: &str) -> String {
        topology::switch_port(self.options.wire, switch)
    }

    /// Start the data plane, wait until it is READY and plug it in.
    pub fn start_dataplane(&mut self) -> Result<()> {
        self.dataplane = None;
        self.dataplane = Some(sluice::start_dataplane(self.site(), &self.binaries)?);
        if self.options.wire == Wire::Tap {
            topology::plug_taps(self.site())?;
        }
        Ok(())
    }

    /// Start control and wait until it is READY.
    pub fn start_control(&mut self) -> Result<()> {
        self.control = None;
        self.control = Some(sluice::start_control(self.site(), &self.binaries)?);
        Ok(())
    }

    /// Start both processes, make the service `echo` over the API, wait until all backends of all
    /// services are healthy.
    pub fn open_services(&mut self, within: Duration) -> Result<()> {
        self.start_dataplane()?;
        self.start_control()?;
        self.api.send("POST", "/api/v1/services", &sluice::echo_service())?;
        self.wait_healthy(within)
    }

    /// Start nginx of backend `number` again.
    pub fn restart_nginx(&mut self, number: u8) -> Result<()> {
        let cpus = self.load_cpus();
        let site = self.claim.site();
        self.servers[usize::from(number - 1)].restart_nginx(site, &cpus)
    }

    /// A load on a service: on its VIP, with source ports that this lab has not used lately.
    pub fn load_spec(&mut self, service: &str, kind: Kind) -> LoadSpec {
        let first_port = self.next_port;
        // Steps take some thousand ports each: twelve starting points before the first comes again.
        self.next_port = self.next_port.checked_add(4_600).unwrap_or(FIRST_SOURCE_PORT);
        let target = vip(service);
        LoadSpec {
            kind,
            target,
            source: CLIENT,
            requests: None,
            concurrency: 32,
            rate: None,
            timeout_ms: 2_000,
            first_port,
        }
    }

    /// Start a load in the client's namespace.
    pub fn start_load(&self, spec: &LoadSpec) -> Result<Load> {
        Load::start(&self.options.helper, &self.site().netns("client"), spec)
    }

    /// The CLI with its arguments, run in the namespace of control; its stdout.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let cli = self.binaries.cli.display().to_string();
        let mut argv = vec![cli.as_str(), "--api", self.api.url()];
        argv.extend(args);
        command::run_in(&self.site().netns("lb"), &argv)
    }

    /// Leave everything running when this value is dropped.
    pub fn keep(mut self) {
        let servers = self.servers.iter_mut().flat_map(|s| [&mut s.nginx, &mut s.echo]);
        servers.for_each(Process::detach);
        self.dataplane.iter_mut().chain(&mut self.control).for_each(Process::detach);
        self.claim.keep();
    }
}

/// Where clients reach a service of the lab.
pub fn vip(service: &str) -> SocketAddrV4 {
    let (address, port): (Ipv4Addr, u16) = match service {
        "web-dr" => (VIP_WEB_DR, 80),
        "echo" => (VIP_ECHO, ECHO_PORT),
        _ => (VIP_WEB, 80),
    };
    SocketAddrV4::new(address, port)
}

/// What the lab needs of the machine; an error names the first thing that is missing.
pub fn check_machine() -> Result<()> {
    if command::run(&["id", "-u"])?.trim() != "0" {
        return Err(LabError::Missing(
            "the lab needs root, for network namespaces: run it as root or with sudo".to_owned(),
        ));
    }
    if cpu_count() < 2 {
        return Err(LabError::Missing(
            "the lab needs 2 CPUs: one for Sluice's worker, one for all else".to_owned(),
        ));
    }
    let programs = [
        ("ip", "iproute2"),
        ("ethtool", "ethtool"),
        ("ping", "iputils-ping"),
        ("arping", "iputils-arping"),
        ("tcpdump", "tcpdump"),
        ("nginx", "nginx-light"),
        ("curl", "curl"),
        ("wrk", "wrk"),
        ("dpdk-testpmd", "dpdk-dev"),
        ("sysctl", "procps"),
        ("taskset", "util-linux"),
    ];
    for (program, package) in programs {
        if command::run(&["sh", "-c", &format!("command -v {program}")]).is_err() {
            let text = format!("{program} is not there: install the package {package}");
            return Err(LabError::Missing(text));
        }
    }
    Ok(())
}

/// CPUs that this process may use.
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn load_cpus(worker_cpus: &[u16]) -> String {
    let last = u16::try_from(cpu_count().saturating_sub(1)).unwrap_or(u16::MAX);
    let others: Vec<String> =
        (0..=last).filter(|cpu| !worker_cpus.contains(cpu)).map(|cpu| cpu.to_string()).collect();
    if others.is_empty() { format!("0-{last}") } else { others.join(",") }
}
