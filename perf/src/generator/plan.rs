//! A scenario with its defaults filled in and every value checked: what the run works by.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use sluice_wire::ether::MacAddr;

use super::GenError;
use super::flows::FlowSpace;
use super::order::Order;
use super::scenario::{ClientSection, RunSection, Scenario, SearchSection, ServerSection};
use super::sizes::Sizes;
use super::template::Kind;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Datagrams.
    Udp,
    /// SYNs and nothing else.
    SynFlood,
    /// Data of connections that were opened before.
    Established,
    /// Connections that are opened, carry data and are closed.
    Connections {
        /// Data packets of each.
        data_packets: u32,
    },
}

impl Traffic {
    /// Whether connections come and go.
    pub fn is_connections(self) -> bool {
        matches!(self, Traffic::Connections { .. })
    }

    /// What the packets of the load are.
    pub fn kind(self) -> Kind {
        match self {
            Traffic::Udp => Kind::Udp,
            Traffic::SynFlood => Kind::TcpSyn,
            Traffic::Established | Traffic::Connections { .. } => Kind::TcpData,
        }
    }
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as it goes.
    Most,
    /// Packets per second.
    Pps(f64),
    /// Share of the line, in percent.
    Line(f64),
}

impl Rate {
    /// In packets per second; none for as fast as it goes.
    ///
    /// # Errors
    /// A share of a line of unknown speed.
    pub fn pps(
        self,
        sizes: &Sizes,
        link_mbps: Option<u32>,
        device: &str,
    ) -> Result<Option<f64>, GenError> {
        match (self, link_mbps) {
            (Rate::Most, _) => Ok(None),
            (Rate::Pps(pps), _) => Ok(Some(pps)),
            (Rate::Line(percent), Some(mbps)) => {
                Ok(Some(sizes.line_rate_pps(mbps) * percent / 100.0))
            }
            (Rate::Line(percent), None) => Err(GenError::NoLinkSpeed {
                rate: format!("\"{percent}%\""),
                device: device.to_owned(),
            }),
        }
    }
}

impl FromStr for Rate {
    type Err = GenError;

    fn from_str(text: &str) -> Result<Self, GenError> {
        let expected = "packets per second above 0 and at most 1G (\"1000000\", \"500k\", \
                        \"1.5M\"), a share of the line (\"50%\", above 0 and at most 100), or \"max\"";
        let error = || GenError::field("run.rate", format!("{text:?}"), expected);
        let number = |text: &str| text.trim().parse::<f64>().map_err(|_| error());
        let text = text.trim();
        if text.eq_ignore_ascii_case("max") {
            return Ok(Rate::Most);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = number(percent)?;
            let good = percent > 0.0 && percent <= 100.0;
            return if good { Ok(Rate::Line(percent)) } else { Err(error()) };
        }
        let (digits, unit) = match text.char_indices().last() {
            Some((at, 'k')) => (&text[..at], 1e3),
            Some((at, 'M')) => (&text[..at], 1e6),
            Some((at, 'G')) => (&text[..at], 1e9),
            _ => (text, 1.0),
        };
        let pps = number(digits)? * unit;
        if pps > 0.0 && pps <= 1e9 { Ok(Rate::Pps(pps)) } else { Err(error()) }
    }
}

/// What servers do with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerData {
    /// Answer it.
    Answer,
    /// Count it as having arrived.
    Count,
}

/// The servers.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerPlan {
    /// Their device; none when it is the clients'.
    pub device: Option<String>,
    /// The first address.
    pub address: Ipv4Addr,
    /// How many addresses.
    pub count: u32,
    /// What they do with data.
    pub data: ServerData,
}

impl ServerPlan {
    /// Whether an address is one of theirs.
    pub fn has_address(&self, address: u32) -> bool {
        address.wrapping_sub(self.address.to_bits()) < self.count
    }
}

/// The search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchPlan {
    /// Share of packets that may be lost, 0 to 1.
    pub loss_tolerance: f64,
    /// Resolution as a share of the highest rate, 0 to 1.
    pub resolution: f64,
    /// Most trials.
    pub most_trials: u32,
}

/// Everything a run works by.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Device of the clients.
    pub device: String,
    /// Where clients send.
    pub target: SocketAddrV4,
    /// Next hop to ask for by ARP.
    pub gateway: Ipv4Addr,
    /// Its MAC address, when it is given.
    pub gateway_mac: Option<MacAddr>,
    /// The servers, when we play them.
    pub server: Option<ServerPlan>,
    /// What is sent.
    pub traffic: Traffic,
    /// By whom.
    pub flows: FlowSpace,
    /// In which order.
    pub order: Order,
    /// How large.
    pub sizes: Sizes,
    /// How fast.
    pub rate: Rate,
    /// How long.
    pub duration: Duration,
    /// How long to wait for stragglers.
    pub settle: Duration,
    /// Longest that opening connections may take.
    pub open_within: Duration,
    /// One packet in so many is a probe.
    pub sample_every: u32,
    /// Whether checksums of all that returns are verified.
    pub verify_all: bool,
    /// The search, when one is wanted.
    pub search: Option<SearchPlan>,
    /// CPU.
    pub cpu: u16,
    /// Whether memory is in hugepages.
    pub hugepages: bool,
    /// DPDK's memory in MiB.
    pub memory_mb: u32,
    /// DPDK's file prefix.
    pub file_prefix: String,
    /// Whether that is one of our own making, which nobody else uses.
    pub owns_file_prefix: bool,
    /// Further arguments for EAL.
    pub eal_args: Vec<String>,
    /// Seed of the order.
    pub seed: u64,
}

impl Plan {
    /// Check a scenario.
    ///
    /// # Errors
    /// The first field whose value cannot be, with what would be accepted.
    pub fn new(scenario: &Scenario) -> Result<Plan, GenError> {
        let Scenario { client, server, traffic, run, search } = scenario;
        let device = client.device.clone().ok_or(GenError::Absent {
            field: "client.device",
            expected: "a PCI address, or a DPDK device string as \"net_memif0,role=client,…\"",
        })?;
        let target_text = traffic.target.as_deref().unwrap_or("10.0.0.100:80");
        let target: SocketAddrV4 = target_text
            .parse()
            .ok()
            .filter(|t: &SocketAddrV4| t.port() > 0 && is_host(*t.ip()))
            .ok_or_else(|| {
                let expected = "a unicast ADDRESS:PORT, as \"10.0.0.100:80\"";
                GenError::field("traffic.target", format!("{target_text:?}"), expected)
            })?;
        let kind = kind(traffic.kind.as_deref(), traffic.data_packets)?;
        let order = traffic.order.as_deref().unwrap_or("random");
        let server = server_plan(server)?;
        if matches!(kind, Traffic::Connections { .. })
            && server.as_ref().is_some_and(|s| s.data == ServerData::Count)
        {
            let expected = "\"answer\" with traffic.kind \"tcp\", whose clients wait for answers";
            return Err(GenError::field("server.data", "\"count\"", expected));
        }
        Ok(Plan {
            device,
            gateway: address("client.gateway", client.gateway.as_deref(), *target.ip())?,
            gateway_mac: gateway_mac(client)?,
            target,
            server,
            traffic: kind,
            flows: flow_space(client, traffic.flows.unwrap_or(10_000))?,
            order: Order::from_name(order, traffic.zipf_exponent.unwrap_or(1.0))?,
            sizes: traffic.sizes.as_deref().map_or(Ok(Sizes::default()), str::parse)?,
            rate: run.rate.as_deref().map_or(Ok(Rate::Most), str::parse)?,
            duration: seconds(run)?,
            settle: Duration::from_millis(
                within("run.settle_ms", run.settle_ms, 200, 1, 10_000)?.into(),
            ),
            open_within: Duration::from_secs(
                within("run.open_seconds", run.open_seconds, 30, 1, 3_600)?.into(),
            ),
            sample_every: within("run.sample_every", run.sample_every, 64, 1, 1 << 20)?,
            verify_all: one_of("run.verify", run.verify.as_deref(), ["probes", "all"])? == 1,
            search: search_plan(search)?,
            cpu: run.cpu.unwrap_or(0),
            hugepages: run.hugepages.unwrap_or(true),
            memory_mb: within("run.memory_mb", run.memory_mb, 256, 32, 1 << 20)?,
            file_prefix: run
                .file_prefix
                .clone()
                .unwrap_or_else(|| format!("sluice-gen-{}-", std::process::id())),
            owns_file_prefix: run.file_prefix.is_none(),
            eal_args: run.eal_args.clone().unwrap_or_default(),
            seed: run.seed.unwrap_or(1),
        })
    }
}

fn kind(name: Option<&str>, data_packets: Option<u32>) -> Result<Traffic, GenError> {
    let data_packets = within("traffic.data_packets", data_packets, 4, 0, 1_000_000)?;
    let names = ["udp", "tcp-established", "tcp", "tcp-syn"];
    Ok(match one_of("traffic.kind", name, names)? {
        0 => Traffic::Udp,
        1 => Traffic::Established,
        2 => Traffic::Connections { data_packets },
        _ => Traffic::SynFlood,
    })
}

/// The index of a word in the list of those that are known; the first is the default.
fn one_of<const N: usize>(
    field: &'static str,
    value: Option<&str>,
    words: [&str; N],
) -> Result<usize, GenError> {
    let Some(value) = value else { return Ok(0) };
    words.iter().position(|word| *word == value).ok_or_else(|| {
        let list: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        GenError::field(field, format!("{value:?}"), format!("one of {}", list.join(", ")))
    })
}

fn within(
    field: &'static str,
    value: Option<u32>,
    default: u32,
    least: u32,
    most: u32,
) -> Result<u32, GenError> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(GenError::field(field, value, format!("{least} to {most}")))
}

/// Whether one host can have the address.
fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn address(
    field: &'static str,
    text: Option<&str>,
    default: Ipv4Addr,
) -> Result<Ipv4Addr, GenError> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|a| is_host(*a)).ok_or_else(|| {
        GenError::field(field, format!("{text:?}"), "a unicast IPv4 address, as \"10.0.0.1\"")
    })
}

fn gateway_mac(client: &ClientSection) -> Result<Option<MacAddr>, GenError> {
    let Some(text) = client.gateway_mac.as_deref() else { return Ok(None) };
    match text.parse::<MacAddr>() {
        Ok(mac) if mac.is_station() => Ok(Some(mac)),
        _ => Err(GenError::field(
            "client.gateway_mac",
            format!("{text:?}"),
            "the MAC address of a station, as \"02:00:00:00:00:01\"",
        )),
    }
}

fn flow_space(client: &ClientSection, flows: u32) -> Result<FlowSpace, GenError> {
    let first = address("client.address", client.address.as_deref(), Ipv4Addr::new(10, 0, 0, 10))?;
    let text = client.ports.as_deref().unwrap_or("1024-65535");
    let ports = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let ports: (u16, u16) = ports.ok_or_else(|| {
        GenError::field("client.ports", format!("{text:?}"), "FIRST-LAST, from 1 to 65535")
    })?;
    // No fewer than a few addresses: there are load balancers that hash on them.
    let per_address = u32::from(ports.1.saturating_sub(ports.0)) + 1;
    let needed = flows.div_ceil(per_address).max(flows.clamp(1, 16));
    FlowSpace::new(first, client.count.unwrap_or(needed), ports, flows)
}

fn server_plan(server: &ServerSection) -> Result<Option<ServerPlan>, GenError> {
    let Some(device) = server.device.as_deref() else {
        if server.address.is_some() || server.count.is_some() || server.data.is_some() {
            let expected = "a device, or \"client\" when servers are behind the clients' device";
            return Err(GenError::Absent { field: "server.device", expected });
        }
        return Ok(None);
    };
    let Some(first) = server.address.as_deref() else {
        let expected = "the first address of the servers, as \"10.1.0.10\"";
        return Err(GenError::Absent { field: "server.address", expected });
    };
    let data = match one_of("server.data", server.data.as_deref(), ["answer", "count"])? {
        0 => ServerData::Answer,
        _ => ServerData::Count,
    };
    Ok(Some(ServerPlan {
        device: (device != "client").then(|| device.to_owned()),
        address: address("server.address", Some(first), Ipv4Addr::UNSPECIFIED)?,
        count: within("server.count", server.count, 1, 1, 65_536)?,
        data,
    }))
}

fn seconds(run: &RunSection) -> Result<Duration, GenError> {
    let seconds = run.seconds.unwrap_or(10.0);
    if (0.01..=86_400.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(GenError::field("run.seconds", seconds, "0.01 to 86400"))
}

fn search_plan(search: &SearchSection) -> Result<Option<SearchPlan>, GenError> {
    let percent = |field, value: Option<f64>, default: f64, least: f64| {
        let value = value.unwrap_or(default);
        if value >= least && value <= 50.0 {
            return Ok(value / 100.0);
        }
        Err(GenError::field(field, value, format!("{least} to 50, in percent")))
    };
    let plan = SearchPlan {
        loss_tolerance: percent("search.loss_percent", search.loss_percent, 0.0, 0.0)?,
        resolution: percent("search.resolution_percent", search.resolution_percent, 1.0, 0.01)?,
        most_trials: within("search.most_trials", search.most_trials, 20, 1, 100)?,
    };
    Ok((search.enabled == Some(true)).then_some(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Scenario {
        toml::from_str(text).unwrap()
    }

    fn refused(text: &str) -> String {
        let with_device = Scenario {
            client: ClientSection { device: Some("net_null0".to_owned()), ..Default::default() },
            ..Default::default()
        };
        Plan::new(&scenario(text).over(&with_device)).unwrap_err().to_string()
    }

    #[test]
    fn a_device_is_all_that_is_needed() {
        let plan = Plan::new(&scenario("[client]\ndevice = \"net_null0\"")).unwrap();
        assert_eq!(
            (plan.traffic, plan.order, plan.rate),
            (Traffic::Udp, Order::Random, Rate::Most)
        );
        assert_eq!((plan.flows.len(), plan.gateway), (10_000, *plan.target.ip()));
        assert_eq!((plan.server, plan.search), (None, None));
        let error = Plan::new(&Scenario::default()).unwrap_err().to_string();
        assert!(error.starts_with("client.device is absent: expected a PCI address"), "{error}");
    }

    #[test]
    fn every_field_arrives() {
        let plan = Plan::new(&scenario(include_str!("testdata/every_field.toml"))).map(drop);
        let error = plan.unwrap_err().to_string();
        assert!(error.starts_with("server.data is \"count\": expected \"answer\" with"), "{error}");
        let text = include_str!("testdata/every_field.toml").replace("\"count\"", "\"answer\"");
        let plan = Plan::new(&scenario(&text)).unwrap();
        assert_eq!(plan.traffic, Traffic::Connections { data_packets: 8 });
        assert_eq!(plan.order, Order::Zipf { exponent: 1.1 });
        assert_eq!(plan.rate, Rate::Line(50.0));
        let server = plan.server.unwrap();
        assert_eq!((server.device.as_ref(), server.count), (None, 4));
        assert!(server.has_address(0x0a01_000d) && !server.has_address(0x0a01_000e));
        let search = plan.search.unwrap();
        assert!((search.resolution - 0.005).abs() < 1e-9 && search.most_trials == 15);
        assert_eq!((plan.sample_every, plan.verify_all, plan.seed), (32, true, 7));
        assert_eq!(plan.gateway_mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(plan.flows.len(), 100_000);
    }

    #[test]
    fn the_examples_are_good() {
        for text in [
            include_str!("../../../docs/examples/gen-memif.toml"),
            include_str!("../../../docs/examples/gen-rfc2544.toml"),
            include_str!("../../../docs/examples/gen-connections.toml"),
        ] {
            Plan::new(&scenario(text)).unwrap();
        }
    }

    #[test]
    fn bad_values_are_named_with_what_would_do() {
        for (text, start) in [
            ("[run]\nrate = \"0\"", "run.rate is \"0\": expected packets per second above 0"),
            ("[run]\nrate = \"-1\"", "run.rate is \"-1\": expected"),
            ("[run]\nrate = \"fast\"", "run.rate is \"fast\": expected"),
            ("[run]\nrate = \"101%\"", "run.rate is \"101%\": expected"),
            ("[run]\nrate = \"0%\"", "run.rate is \"0%\": expected"),
            ("[run]\nrate = \"\"", "run.rate is \"\": expected"),
            ("[run]\nrate = \"NaN\"", "run.rate is \"NaN\": expected"),
            ("[run]\nseconds = 0.0", "run.seconds is 0: expected 0.01 to 86400"),
            ("[run]\nseconds = nan", "run.seconds is NaN: expected"),
            ("[run]\nsample_every = 0", "run.sample_every is 0: expected 1 to 1048576"),
            ("[run]\nverify = \"some\"", "run.verify is \"some\": expected one of \"probes\""),
            ("[run]\nmemory_mb = 1", "run.memory_mb is 1: expected 32 to"),
            ("[run]\nsettle_ms = 0", "run.settle_ms is 0: expected 1 to 10000"),
            ("[traffic]\nkind = \"icmp\"", "traffic.kind is \"icmp\": expected one of \"udp\""),
            ("[traffic]\nsizes = \"63\"", "traffic.sizes is \"63\": expected a frame size from 64"),
            ("[traffic]\ntarget = \"10.0.0.1\"", "traffic.target is \"10.0.0.1\": expected a"),
            ("[traffic]\ntarget = \"224.0.0.1:80\"", "traffic.target is \"224.0.0.1:80\": exp"),
            ("[traffic]\ntarget = \"10.0.0.1:0\"", "traffic.target is \"10.0.0.1:0\": expected"),
            ("[traffic]\norder = \"odd\"", "traffic.order is \"odd\": expected"),
            ("[traffic]\nflows = 0", "traffic.flows is 0: expected 1 to"),
            (
                "[traffic]\nflows = 9\n[client]\ncount = 2\nports = \"1-4\"",
                "traffic.flows is 9: exp",
            ),
            ("[client]\naddress = \"x\"", "client.address is \"x\": expected a unicast"),
            ("[client]\nports = \"80\"", "client.ports is \"80\": expected FIRST-LAST"),
            ("[client]\nports = \"9-70000\"", "client.ports is \"9-70000\": expected FIRST-LAST"),
            ("[client]\ngateway = \"0.0.0.0\"", "client.gateway is \"0.0.0.0\": expected"),
            ("[client]\ngateway_mac = \"ff:ff:ff:ff:ff:ff\"", "client.gateway_mac is \"ff:"),
            ("[server]\naddress = \"10.0.0.1\"", "server.device is absent: expected a device"),
            ("[server]\ndevice = \"client\"", "server.address is absent: expected the first"),
            (
                "[server]\ndevice = \"client\"\naddress = \"10.0.0.1\"\ncount = 0",
                "server.count is 0: expected 1 to 65536",
            ),
            ("[search]\nloss_percent = 51.0", "search.loss_percent is 51: expected 0 to 50"),
            ("[search]\nresolution_percent = 0.0", "search.resolution_percent is 0: expected"),
            ("[search]\nmost_trials = 0", "search.most_trials is 0: expected 1 to 100"),
        ] {
            let error = refused(text);
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn rates_have_units() {
        let sizes = Sizes::default();
        let pps = |text: &str, link| {
            text.parse::<Rate>().unwrap().pps(&sizes, link, "net_null0").map_err(|e| e.to_string())
        };
        assert_eq!(pps("max", None), Ok(None));
        assert_eq!(pps("1.5M", None), Ok(Some(1.5e6)));
        assert_eq!(pps("250k", None), Ok(Some(250e3)));
        assert_eq!(pps("7", None), Ok(Some(7.0)));
        assert_eq!(pps("50%", Some(10_000)).unwrap().unwrap().round(), 7_440_476.0);
        let error = pps("50%", None).unwrap_err();
        assert!(error.starts_with("run.rate is \"50%\": expected packets per second"), "{error}");
        assert!(error.contains("net_null0 reports no link speed"), "{error}");
    }
}
