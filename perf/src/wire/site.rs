//! Who has which address: one port on each device under test, behind which are clients and servers.
//!
//! Sluice has one port in two networks, as testpmd has one port: every packet crosses the wire twice
//! in both cases. What clients send comes out again towards the servers, which are the generator too.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sluice_api::message::{self, Request, Response};
use sluice_api::stats::Stats;
use sluice_api::{
    AdminState, HashOn, Mode, NoConn, Pool, Protocol, Refusal, Scheduler, Snapshot,
    SnapshotBackend, SnapshotService, Timeouts,
};

use super::{Options, WireError};
use crate::generator::plan::Plan;
use crate::generator::scenario::Scenario;

/// Clients are in 10.0.0.0/16, servers in 10.1.0.0/16.
const PORT_ADDRESSES: [&str; 2] = ["10.0.0.1/16", "10.1.0.1/16"];
const VIP: [u8; 4] = [10, 0, 0, 100];
const SERVICE_PORT: u16 = 80;
const FIRST_SERVER: u32 = 0x0a01_000a;
const SERVERS: u32 = 4;
/// Local addresses of full-NAT: enough for 64,000 conns to each server and address.
const FIRST_LOCAL: u32 = 0x0a01_ff01;
const LOCALS: u32 = 64;
/// Client addresses, whatever the number of flows: so that flows of a smaller set are among those
/// of a larger one.
const CLIENTS: u32 = 1_000;
/// The most flows that these addresses are made for.
pub const MOST_FLOWS: u32 = 10_000_000;
/// Conns beyond the flows, so that the table is never full.
const SPARE_CONNS: u32 = 65_536;

/// The device under test lends its memory and does not copy, as if a NIC wrote into it; the generator
/// copies into and out of it, as DMA would. The other way round, DPDK's memif takes one device per
/// process only: it closes the files of its memory once the first is connected.
const CLIENT: &str = "client,zero-copy=yes";
const SERVER: &str = "server";

/// A socket of memif, as a device string for one side.
fn memif(number: u32, socket: &Path, role: &str) -> String {
    format!(
        "net_memif{number},role={role},id=0,socket={},socket-abstract=no,rsize=11",
        socket.display()
    )
}

/// Paths of a run.
pub struct Paths {
    /// The directory of all.
    pub directory: PathBuf,
}

impl Paths {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Arguments of testpmd: one port, and each packet goes back with its MAC addresses swapped.
pub fn testpmd_arguments(options: &Options, paths: &Paths, prefix: &str) -> Vec<String> {
    let lcores = format!("--lcores=0@{},1@{}", options.generator_cpu, options.device_cpu);
    let device = memif(0, &paths.file("testpmd.memif"), CLIENT);
    [
        "--no-pci",
        "--no-telemetry",
        "--single-file-segments",
        "-m",
        "128",
        &format!("--file-prefix={prefix}testpmd"),
        &lcores,
        &format!("--vdev={device}"),
        "--",
        "--forward-mode=macswap",
        "--total-num-mbufs=16384",
        // Without a terminal testpmd ends at once unless it has statistics to print.
        "--stats-period=3600",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The data plane's file.
pub fn dataplane_toml(options: &Options, paths: &Paths, prefix: &str) -> String {
    let connections = options.most_flows() + SPARE_CONNS;
    let device = memif(0, &paths.file("sluice.memif"), CLIENT);
    let socket = paths.file("control.sock");
    format!(
        "[runtime]\nmain_cpu = {}\nworker_cpus = [{}]\nidle = \"busy\"\nhugepages = true\n\
         memory_mb = 128\nfile_prefix = \"{prefix}dataplane\"\n\
         eal_args = [\"--single-file-segments\"]\n\
         [control]\nsocket = {:?}\n[limits]\nconnections = {connections}\n\
         [exception]\nenabled = false\n\
         [[port]]\nname = \"wire\"\ndevice = \"{device}\"\naddresses = {PORT_ADDRESSES:?}\n",
        options.generator_cpu,
        options.device_cpu,
        socket.display().to_string(),
    )
}

/// The service: full-NAT to servers that the generator plays.
fn snapshot() -> Snapshot {
    let service = SnapshotService {
        name: "wire".to_owned(),
        vip: VIP.into(),
        port: SERVICE_PORT,
        protocol: Protocol::Tcp,
        mode: Mode::FullNat,
        scheduler: Scheduler::Maglev,
        hash_on: HashOn::FiveTuple,
        maglev_slots: 65_537,
        max_conns: None,
        pool: Some("wire".to_owned()),
        no_conn: NoConn::Drop,
        no_backend: Refusal::Drop,
        timeouts: Timeouts::default(),
        backends: (0..SERVERS)
            .map(|i| SnapshotBackend {
                address: Ipv4Addr::from_bits(FIRST_SERVER + i).into(),
                port: SERVICE_PORT,
                weight: 100,
                max_conns: None,
                state: AdminState::Up,
                healthy: true,
            })
            .collect(),
    };
    let addresses = (0..LOCALS).map(|i| Ipv4Addr::from_bits(FIRST_LOCAL + i).into()).collect();
    let pool = Pool::new("wire", addresses);
    Snapshot {
        generation: 1,
        services: vec![service.into()],
        pools: vec![pool],
        no_service: Refusal::Drop,
    }
}

/// The data plane's control socket.
pub struct Control(std::os::unix::net::UnixStream);

impl Control {
    /// Connect to it.
    ///
    /// # Errors
    /// It is not there.
    pub fn connect(paths: &Paths) -> Result<Self, WireError> {
        let path = paths.file("control.sock");
        std::os::unix::net::UnixStream::connect(&path)
            .map(Control)
            .map_err(WireError::io(path.display().to_string()))
    }

    fn ask(&mut self, request: &Request) -> Result<Response, WireError> {
        message::write_frame(&mut self.0, request)?;
        Ok(message::read_frame(&mut self.0)?)
    }

    /// Put the service in force.
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&mut self) -> Result<(), WireError> {
        match self.ask(&Request::Apply { snapshot: snapshot() })? {
            Response::Applied { .. } => Ok(()),
            other => Err(WireError::Refused(format!("{other:?}"))),
        }
    }

    /// The counters.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stats(&mut self) -> Result<Stats, WireError> {
        match self.ask(&Request::Stats)? {
            Response::Stats(stats) => Ok(stats),
            other => Err(WireError::Refused(format!("{other:?}"))),
        }
    }
}

/// What is sent: data of open TCP connections, 60-byte frames, in random order; the same to both.
fn scenario(options: &Options, flows: u32, device: String) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.client.device = Some(device);
    scenario.client.address = Some("10.0.1.0".to_owned());
    scenario.client.count = Some(CLIENTS);
    scenario.traffic.kind = Some("tcp-established".to_owned());
    scenario.traffic.target = Some("10.0.0.100:80".to_owned());
    scenario.traffic.flows = Some(flows);
    scenario.traffic.order = Some("random".to_owned());
    scenario.run.cpu = Some(options.generator_cpu);
    scenario.run.open_seconds = Some(60);
    scenario.run.settle_ms = Some(20);
    scenario
}

/// The plan against testpmd: nobody to ask for, and no handshake.
///
/// # Errors
/// The number of flows cannot be.
pub fn testpmd_plan(options: &Options, paths: &Paths, flows: u32) -> Result<Plan, WireError> {
    let device = memif(0, &paths.file("testpmd.memif"), SERVER);
    let mut scenario = scenario(options, flows, device);
    scenario.client.gateway_mac = Some("02:00:00:00:00:01".to_owned());
    Plan::new(&scenario).map_err(WireError::generator("testpmd"))
}

/// The plan against Sluice: the VIP is asked for by ARP, and servers count what reaches them.
///
/// # Errors
/// The number of flows cannot be.
pub fn sluice_plan(options: &Options, paths: &Paths, flows: u32) -> Result<Plan, WireError> {
    let device = memif(1, &paths.file("sluice.memif"), SERVER);
    let mut scenario = scenario(options, flows, device);
    scenario.server.device = Some("client".to_owned());
    scenario.server.address = Some("10.1.0.10".to_owned());
    scenario.server.count = Some(SERVERS);
    scenario.server.data = Some("count".to_owned());
    Plan::new(&scenario).map_err(WireError::generator("sluice-dataplane"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_api::stats::Limits;
    use sluice_api::validate;
    use sluice_dataplane::config::Config;

    fn paths() -> Paths {
        Paths { directory: PathBuf::from("/run/wire") }
    }

    #[test]
    fn sluice_takes_its_file_and_its_service() {
        let options = Options::for_test();
        let text = dataplane_toml(&options, &paths(), "p-");
        let config = Config::parse(&text, &[0, 1]).unwrap_or_else(|e| panic!("{e:?}: {text}"));
        assert_eq!(config.limits.connections, 1_000_000 + SPARE_CONNS);
        let own: Vec<_> = config.port_addresses().into_iter().map(Into::into).collect();
        assert_eq!(validate::snapshot(&snapshot(), &Limits::default(), &own).into_vec(), []);
    }

    #[test]
    fn both_get_the_same_packets_and_small_sets_are_within_large_ones() {
        let (options, paths) = (Options::for_test(), paths());
        let ours = sluice_plan(&options, &paths, 10_000).unwrap();
        let theirs = testpmd_plan(&options, &paths, 10_000).unwrap();
        assert_eq!((ours.flows, ours.order, ours.seed), (theirs.flows, theirs.order, theirs.seed));
        assert_eq!((&ours.sizes, ours.target), (&theirs.sizes, theirs.target));
        assert_ne!(ours.device, theirs.device);
        let many = sluice_plan(&options, &paths, MOST_FLOWS).unwrap();
        for index in [0, 999, 1_000, 9_999] {
            assert_eq!(many.flows.client(index), ours.flows.client(index));
        }
    }
}
