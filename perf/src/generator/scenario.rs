//! What a run is told: a scenario file, and flags that win over it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::GenError;

/// The device, the clients behind it, and where they send.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSection {
    /// Device of the client side: a PCI address, or a DPDK device string as
    /// net_memif0,role=client,socket=/run/m.sock
    #[arg(long)]
    pub device: Option<String>,
    /// First client address [default: 10.0.0.10]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Client addresses, from the first one on [default: as many as the flows need]
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
    /// L4 ports of each client address [default: 1024-65535]
    #[arg(long, value_name = "FIRST-LAST")]
    pub ports: Option<String>,
    /// Next hop towards the target [default: the target itself]
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<String>,
    /// MAC address of the next hop: nobody is asked by ARP
    #[arg(long, value_name = "MAC")]
    pub gateway_mac: Option<String>,
}

/// The servers that answer, when the generator plays them too.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// Device of the server side; "client": the servers are behind the clients' device
    #[arg(id = "server-device", long = "server-device", value_name = "DEVICE")]
    pub device: Option<String>,
    /// First server address
    #[arg(id = "server-address", long = "server-address", value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Server addresses, from the first one on [default: 1]
    #[arg(id = "server-count", long = "server-count", value_name = "N")]
    pub count: Option<u32>,
    /// What servers do with data: answer it (all packets must come back to the clients), or count it
    /// (packets count where they arrive) [default: answer]
    #[arg(id = "server-data", long = "server-data", value_name = "answer|count")]
    pub data: Option<String>,
}

/// The packets.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficSection {
    /// udp, tcp-established (connections are opened first, then data at full rate), tcp
    /// (connections come and go) or tcp-syn (a SYN flood) [default: udp]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Address and L4 port that clients send to [default: 10.0.0.100:80]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub target: Option<String>,
    /// Flows [default: 10000]
    #[arg(long, value_name = "N")]
    pub flows: Option<u32>,
    /// Order of the flows: sequential, random or zipf [default: random]
    #[arg(long)]
    pub order: Option<String>,
    /// Exponent of Zipf's law [default: 1.0]
    #[arg(long, value_name = "S")]
    pub zipf_exponent: Option<f64>,
    /// Frame sizes in bytes with frame check sequence: 64 to 1518, "imix", or a list with weights
    /// [default: 64]
    #[arg(long, value_name = "SIZES")]
    pub sizes: Option<String>,
    /// Data packets of each connection that comes and goes [default: 4]
    #[arg(long, value_name = "N")]
    pub data_packets: Option<u32>,
}

/// How fast, how long, where.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSection {
    /// Packets per second ("1000000", "1.5M"), share of the line ("50%"), or "max" [default: max]
    #[arg(long)]
    pub rate: Option<String>,
    /// How long to send, in s; of each trial in a search [default: 10]
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// How long to wait for the last packets to come back, in ms [default: 200]
    #[arg(long, value_name = "MS")]
    pub settle_ms: Option<u32>,
    /// Longest that opening all connections may take, in s [default: 30]
    #[arg(long, value_name = "S")]
    pub open_seconds: Option<u32>,
    /// One packet in so many is a probe with a time stamp [default: 64]
    #[arg(long, value_name = "N")]
    pub sample_every: Option<u32>,
    /// Whose checksums are verified on return: those of probes, or of all [default: probes]
    #[arg(long, value_name = "probes|all")]
    pub verify: Option<String>,
    /// CPU of the generator [default: 0]
    #[arg(long)]
    pub cpu: Option<u16>,
    /// DPDK's memory in hugepages [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub hugepages: Option<bool>,
    /// DPDK's memory in MiB [default: 256]
    #[arg(long, value_name = "MIB")]
    pub memory_mb: Option<u32>,
    /// Sets this process apart from other DPDK processes [default: sluice-gen-PID]
    #[arg(long, value_name = "NAME")]
    pub file_prefix: Option<String>,
    /// Further arguments for DPDK's EAL
    #[arg(long = "eal-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub eal_args: Option<Vec<String>>,
    /// Seed of the random order [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// The search for the highest rate without loss (RFC 2544, 26.1).
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSection {
    /// Search for the highest rate without loss, from run.rate downwards
    #[arg(long = "search", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub enabled: Option<bool>,
    /// Share of packets that may be lost, in % [default: 0]
    #[arg(long, value_name = "PERCENT")]
    pub loss_percent: Option<f64>,
    /// How exactly to find the rate, in % of the highest one [default: 1]
    #[arg(long, value_name = "PERCENT")]
    pub resolution_percent: Option<f64>,
    /// Most trials [default: 20]
    #[arg(long, value_name = "N")]
    pub most_trials: Option<u32>,
}

/// A scenario as it is written. What is absent has a default.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// `[client]`
    #[command(flatten)]
    pub client: ClientSection,
    /// `[server]`
    #[command(flatten)]
    pub server: ServerSection,
    /// `[traffic]`
    #[command(flatten)]
    pub traffic: TrafficSection,
    /// `[run]`
    #[command(flatten)]
    pub run: RunSection,
    /// `[search]`
    #[command(flatten)]
    pub search: SearchSection,
}

macro_rules! fill {
    ($into:expr, $from:expr, $($section:ident: $($field:ident)+;)+) => {
        $($(
            if $into.$section.$field.is_none() {
                $into.$section.$field = $from.$section.$field.clone();
            }
        )+)+
    };
}

impl Scenario {
    /// Read a file.
    ///
    /// # Errors
    /// It cannot be read, is not TOML, or has unknown fields; the error says where.
    pub fn read(path: &Path) -> Result<Self, GenError> {
        let text = fs::read_to_string(path)
            .map_err(|source| GenError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, GenError> {
        toml::from_str(text).map_err(|source| {
            let (path, source) = (PathBuf::from(path), Box::new(source));
            GenError::Parse { path, source }
        })
    }

    /// These fields, and those of `file` where one is absent.
    #[must_use]
    pub fn over(mut self, file: &Scenario) -> Self {
        fill! {
            self, file,
            client: device address count ports gateway gateway_mac;
            server: device address count data;
            traffic: kind target flows order zipf_exponent sizes data_packets;
            run: rate seconds settle_ms open_seconds sample_every verify cpu hugepages memory_mb
                file_prefix eal_args seed;
            search: enabled loss_percent resolution_percent most_trials;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(text: &str) -> Result<Scenario, GenError> {
        Scenario::parse(text, Path::new("s.toml"))
    }

    #[test]
    fn flags_win_over_the_file() {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            scenario: Scenario,
        }
        let file = parse(
            "[client]\ndevice = \"net_null0\"\n[traffic]\nflows = 5\nsizes = \"imix\"\n\
             [run]\nrate = \"1M\"\neal_args = [\"--no-pci\"]\n",
        )
        .unwrap();
        let words = ["gen", "--flows", "7", "--hugepages", "false", "--search"];
        let scenario = Cli::parse_from(words).scenario.over(&file);
        assert_eq!(scenario.client.device.as_deref(), Some("net_null0"));
        assert_eq!((scenario.traffic.flows, scenario.run.hugepages), (Some(7), Some(false)));
        assert_eq!(scenario.traffic.sizes.as_deref(), Some("imix"));
        assert_eq!(scenario.run.eal_args.as_deref(), Some(&["--no-pci".to_owned()][..]));
        assert_eq!(scenario.search.enabled, Some(true));
    }

    #[test]
    fn fill_forgets_no_field() {
        let full = parse(include_str!("testdata/every_field.toml")).unwrap();
        assert_eq!(Scenario::default().over(&full), full);
        let json = serde_json::to_value(&full).unwrap();
        for (section, fields) in json.as_object().unwrap() {
            for (field, value) in fields.as_object().unwrap() {
                assert!(!value.is_null(), "{section}.{field} is missing in every_field.toml");
            }
        }
    }

    #[test]
    fn what_is_unknown_or_wrong_is_named() {
        for (text, named) in [
            ("[traffic]\nflow = 5\n", "unknown field `flow`"),
            ("[clients]\n", "unknown field `clients`"),
            ("[traffic]\nflows = \"many\"\n", "invalid type"),
            ("[traffic]\nflows = -1\n", "invalid value"),
            ("[traffic\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("scenario s.toml: ") && error.contains(named), "{error}");
        }
        let error = parse("[traffic]\nflow = 5\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`flows`"), "{error}");
        let error = Scenario::read(Path::new("/nowhere/x.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x.toml: No such file"), "{error}");
    }
}
