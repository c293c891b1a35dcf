//! The file's sections and keys: defaults, kinds and ranges of single fields. What concerns
//! several fields is left to [`super::rules`].

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use sluice_api::stats::Limits;
use sluice_api::validate::{is_host, is_name, supported};
use toml::de::DeTable;

use super::report::{FileProblem, Report, Section};
use super::{
    Config, Control, Exception, Idle, InterfaceAddress, MAX_INTERFACE_NAME, MAX_WORKERS, Port,
    Prefix, Runtime, SourceCheck, VerifyL4Checksum, rules,
};

const SECTIONS: &[&str] = &["runtime", "control", "limits", "port", "route", "exception"];
const RUNTIME: &[&str] = &[
    "main_cpu",
    "worker_cpus",
    "share_cpus",
    "idle",
    "hugepages",
    "memory_mb",
    "file_prefix",
    "eal_args",
    "verify_l4_checksum",
    "log",
    "announce_every_s",
];
const LIMITS: &[&str] = &["connections", "services", "backends", "neighbours"];
const PORT: &[&str] = &[
    "name",
    "device",
    "addresses",
    "mtu",
    "rx_descriptors",
    "tx_descriptors",
    "promiscuous",
    "source_check",
    "exception",
];
const ROUTE: &[&str] = &["destination", "via"];

/// EAL arguments that would contradict a field of `[runtime]`, and that field.
const OWN_EAL_ARGS: &[(&str, &str)] = &[
    ("-l", "worker_cpus"),
    ("-c", "worker_cpus"),
    ("--lcores", "worker_cpus"),
    ("--main-lcore", "main_cpu"),
    ("-m", "memory_mb"),
    ("--no-huge", "hugepages = false"),
    ("--file-prefix", "file_prefix"),
];

const NAME: &str = "1 to 63 of a-z, 0-9, '-', '.', '_', at least one a letter or digit";
const DEVICE: &str = "a DPDK device string, as \"net_af_xdp0,iface=l0\", or a PCI address";

/// A port as far as its fields could be read: the rules check what is there.
pub(super) struct PortDraft {
    /// Its path in reports, as `port[lan]`.
    pub path: String,
    /// With an empty name or device where they could not be read.
    pub port: Port,
}

/// A route as far as it could be read.
pub(super) struct RouteDraft {
    /// Its path in reports, as `route[0.0.0.0/0]`.
    pub path: String,
    pub destination: Option<Prefix>,
    pub via: Option<Ipv4Addr>,
}

pub(super) fn parse(text: &str, online_cpus: &[u16]) -> Result<Config, Vec<FileProblem>> {
    let mut report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error.span().map_or(0, |span| span.start);
        let value = format!("wrong ({})", error.message());
        report.problem_at(place, "TOML syntax", value, "valid TOML");
    }
    if !errors.is_empty() {
        return Err(report.into_problems());
    }

    let file = Section::new(&mut report, String::new(), document.get_ref(), 0, SECTIONS);
    let runtime = runtime(&mut report, &file, online_cpus);
    let control = control(&mut report, &file);
    let limits = limits(&mut report, &file);
    let section = file.table(&mut report, "exception", &["enabled"]);
    let exception = Exception { enabled: section.boolean(&mut report, "enabled").unwrap_or(true) };
    let ports = ports(&mut report, &file, exception);
    let drafts = routes(&mut report, &file);

    rules::check_cpus(&mut report, &runtime, online_cpus);
    rules::check_ports(&mut report, &ports);
    rules::check_queues(&mut report, &runtime, &ports);
    let routes = rules::check_routes(&mut report, &ports, &drafts);
    if report.is_empty() {
        let ports = ports.into_iter().map(|draft| draft.port).collect();
        Ok(Config { runtime, control, limits, ports, routes, exception })
    } else {
        Err(report.into_problems())
    }
}

fn runtime(report: &mut Report<'_>, file: &Section<'_>, online_cpus: &[u16]) -> Runtime {
    let section = file.table(report, "runtime", RUNTIME);
    let first = online_cpus.first().copied().unwrap_or(0);
    let last = online_cpus.last().copied().unwrap_or(0);
    let runtime = Runtime {
        main_cpu: section.integer(report, "main_cpu", 0..=u16::MAX).unwrap_or(first),
        worker_cpus: section
            .integers(report, "worker_cpus", "CPU numbers")
            .unwrap_or_else(|| vec![last]),
        share_cpus: section.boolean(report, "share_cpus").unwrap_or(false),
        idle: choice(report, &section, "idle", &Idle::NAMES),
        hugepages: section.boolean(report, "hugepages").unwrap_or(true),
        memory_mb: section.integer(report, "memory_mb", 64..=1_048_576).unwrap_or(512),
        file_prefix: section.string(report, "file_prefix").unwrap_or("sluice").to_owned(),
        eal_args: section
            .strings(report, "eal_args")
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        verify_l4_checksum: choice(
            report,
            &section,
            "verify_l4_checksum",
            &VerifyL4Checksum::NAMES,
        ),
        log: section.string(report, "log").unwrap_or("info").to_owned(),
        announce_every_s: section.integer(report, "announce_every_s", 0..=86_400).unwrap_or(60),
    };
    if !sluice_log::is_filter(&runtime.log) {
        let expected =
            "off, error, warn, info, debug or trace, or a list as \"info,rtnetlink=warn\"";
        report.problem("runtime.log", quoted(&runtime.log), expected);
    }
    if !is_name(&runtime.file_prefix) {
        report.problem("runtime.file_prefix", quoted(&runtime.file_prefix), NAME);
    }
    if !(1..=MAX_WORKERS).contains(&runtime.worker_cpus.len()) {
        let value = format!("{} CPUs", runtime.worker_cpus.len());
        let expected = format!("1 to {MAX_WORKERS} CPU numbers, one for each worker");
        report.problem("runtime.worker_cpus", value, &expected);
    }
    check_eal_args(report, &runtime.eal_args);
    runtime
}

fn check_eal_args(report: &mut Report<'_>, args: &[String]) {
    for arg in args {
        let option = arg.split('=').next().unwrap_or_default();
        let value = quoted(arg);
        if arg.is_empty() || arg.contains('\0') {
            report.problem("runtime.eal_args", value, "arguments of one or more characters");
        } else if let Some((_, field)) = OWN_EAL_ARGS.iter().find(|(own, _)| *own == option) {
            let expected = format!("runtime.{field} instead of this argument");
            report.problem("runtime.eal_args", value, &expected);
        }
    }
}

/// One of some names, the default when absent.
fn choice<T: Copy + Default>(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
    names: &[(&str, T)],
) -> T {
    let Some(given) = section.string(report, key) else { return T::default() };
    match names.iter().find(|(name, _)| *name == given) {
        Some((_, value)) => *value,
        None => {
            let accepted: Vec<String> = names.iter().map(|(name, _)| quoted(name)).collect();
            report.problem(&section.field(key), quoted(given), &accepted.join(" or "));
            T::default()
        }
    }
}

fn control(report: &mut Report<'_>, file: &Section<'_>) -> Control {
    // `sockaddr_un` holds 108 bytes with a terminating zero (unix(7)).
    const MOST: usize = 107;
    let section = file.table(report, "control", &["socket"]);
    let socket = section.string(report, "socket").unwrap_or(sluice_api::DEFAULT_SOCKET);
    if !socket.starts_with('/') || socket.ends_with('/') || socket.contains('\0') {
        report.problem("control.socket", quoted(socket), "an absolute path of a file");
    } else if socket.len() > MOST {
        let value = format!("{} bytes long", socket.len());
        report.problem("control.socket", value, &format!("a path of at most {MOST} bytes"));
    }
    Control { socket: PathBuf::from(socket) }
}

/// The ranges are those that [`Limits`] documents.
fn limits(report: &mut Report<'_>, file: &Section<'_>) -> Limits {
    let section = file.table(report, "limits", LIMITS);
    let usual = Limits::default();
    Limits {
        connections: section
            .integer(report, "connections", 1_024..=200_000_000)
            .unwrap_or(usual.connections),
        services: section.integer(report, "services", 1..=65_535).unwrap_or(usual.services),
        backends: section.integer(report, "backends", 1..=1_000_000).unwrap_or(usual.backends),
        neighbours: section.integer(report, "neighbours", 16..=65_535).unwrap_or(usual.neighbours),
    }
}

fn ports(report: &mut Report<'_>, file: &Section<'_>, exception: Exception) -> Vec<PortDraft> {
    let mut names = HashSet::new();
    let mut drafts = Vec::new();
    for (index, (table, place)) in file.tables(report, "port").into_iter().enumerate() {
        let path = match table.get("name").and_then(|v| v.get_ref().as_str()) {
            Some(name) if is_name(name) && names.insert(name) => format!("port[{name}]"),
            _ => format!("port[#{}]", index + 1),
        };
        let section = Section::new(report, path.clone(), table, place, PORT);
        let port = port(report, &section, exception);
        drafts.push(PortDraft { path, port });
    }
    drafts
}

fn port(report: &mut Report<'_>, section: &Section<'_>, exception: Exception) -> Port {
    let name = section.required(report, "name", NAME).inspect(|name| {
        if !is_name(name) {
            report.problem(&section.field("name"), quoted(name), NAME);
        }
    });
    let device = section.required(report, "device", DEVICE).inspect(|device| {
        if device.is_empty() || device.bytes().any(|c| c.is_ascii_whitespace() || c == 0) {
            report.problem(&section.field("device"), quoted(device), DEVICE);
        }
    });
    let exception = exception.enabled.then(|| exception_name(report, section, name));
    Port {
        name: name.unwrap_or_default().to_owned(),
        device: device.unwrap_or_default().to_owned(),
        addresses: addresses(report, section),
        mtu: section.integer(report, "mtu", 576..=9_216).unwrap_or(1_500),
        rx_descriptors: descriptors(report, section, "rx_descriptors"),
        tx_descriptors: descriptors(report, section, "tx_descriptors"),
        promiscuous: section.boolean(report, "promiscuous").unwrap_or(false),
        source_check: choice(report, section, "source_check", &SourceCheck::NAMES),
        exception,
    }
}

/// Empty when there is neither a name of its own nor a port's name.
fn exception_name(report: &mut Report<'_>, section: &Section<'_>, port: Option<&str>) -> String {
    let given = section.string(report, "exception");
    let name = match (given, port) {
        (Some(given), _) => given.to_owned(),
        (None, Some(port)) if !section.has("exception") && is_name(port) => format!("sl-{port}"),
        _ => return String::new(),
    };
    if !is_interface_name(&name) {
        let value = if given.is_some() {
            quoted(&name)
        } else {
            format!("{} (\"sl-\" and the port's name, as it is absent)", quoted(&name))
        };
        let expected = format!(
            "the name of a kernel interface: 1 to {MAX_INTERFACE_NAME} bytes without '/', ':', '%' and spaces"
        );
        report.problem(&section.field("exception"), value, &expected);
    }
    name
}

/// What the kernel takes as an interface's name (dev_valid_name in its net/core/dev.c).
fn is_interface_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b':' && c != b'%')
}

fn addresses(report: &mut Report<'_>, section: &Section<'_>) -> Vec<InterfaceAddress> {
    const EXPECTED: &str = "at least one address with its prefix length, as [\"10.0.0.1/24\"]";
    let field = section.field("addresses");
    let Some(given) = section.strings(report, "addresses") else {
        if !section.has("addresses") {
            report.problem(&field, "absent", EXPECTED);
        }
        return Vec::new();
    };
    if given.is_empty() {
        report.problem(&field, "[]", EXPECTED);
    }
    let mut addresses = Vec::new();
    for text in given {
        match text.parse::<InterfaceAddress>() {
            Ok(address) => addresses.push(address),
            Err(error) => report.problem(&field, quoted(text), &error.to_string()),
        }
    }
    addresses
}

fn descriptors(report: &mut Report<'_>, section: &Section<'_>, key: &str) -> u16 {
    let count = section.integer(report, key, 64..=16_384).unwrap_or(1_024u16);
    if !count.is_power_of_two() {
        report.problem(&section.field(key), count, "a power of two from 64 to 16384");
    }
    count
}

fn routes(report: &mut Report<'_>, file: &Section<'_>) -> Vec<RouteDraft> {
    let mut seen = HashSet::new();
    let mut drafts = Vec::new();
    for (index, (table, place)) in file.tables(report, "route").into_iter().enumerate() {
        let path = match table.get("destination").and_then(|v| v.get_ref().as_str()) {
            Some(text) if text.parse::<Prefix>().is_ok() && seen.insert(text) => {
                format!("route[{text}]")
            }
            _ => format!("route[#{}]", index + 1),
        };
        let section = Section::new(report, path.clone(), table, place, ROUTE);
        let expected = "a network with its prefix length, as \"0.0.0.0/0\"";
        let destination = section.required(report, "destination", expected).and_then(|text| {
            text.parse::<Prefix>()
                .map_err(|error| {
                    report.problem(&section.field("destination"), quoted(text), &error.to_string());
                })
                .ok()
        });
        let expected = "the address of a gateway, as \"10.0.0.254\"";
        let via = section.required(report, "via", expected).and_then(|text| {
            let via = match text.parse().map(supported) {
                Ok(Ok(via)) if is_host(via) => Ok(via),
                Ok(Err(not_yet)) => Err(not_yet),
                _ => Err(expected),
            };
            via.map_err(|expected| report.problem(&section.field("via"), quoted(text), expected))
                .ok()
        });
        drafts.push(RouteDraft { path, destination, via });
    }
    drafts
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
