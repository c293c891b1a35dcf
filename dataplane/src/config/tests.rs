//! Each rule with the message that an operator gets.

use super::*;
use sluice_path::ids::InterfaceId;

const CPUS: &[u16] = &[0, 1, 2, 3];

const PORTS: &str = r#"
[[port]]
name = "lan"
device = "net_af_xdp0,iface=l0,queue_count=4"
addresses = ["10.0.0.1/24"]

[[port]]
name = "wan"
device = "0000:03:00.0"
addresses = ["192.0.2.1/28", "198.51.100.1/24"]
"#;

/// Problems as `line:column: text`.
fn problems(text: &str) -> Vec<String> {
    let shown = |p: &FileProblem| format!("{}:{}: {}", p.line, p.column, p.problem);
    Config::parse(text, CPUS).unwrap_err().iter().map(shown).collect()
}

/// The problems of a file that is fine but for the lines put before its ports.
fn with(lines: &str) -> Vec<String> {
    problems(&format!("{lines}\n{PORTS}"))
}

/// The problems of a file in which one piece of text is replaced.
fn replaced(from: &str, to: &str) -> Vec<String> {
    assert!(PORTS.contains(from), "{from}");
    problems(&PORTS.replacen(from, to, 1))
}

/// The problems of a file with two ports and a route.
fn route(destination: &str, via: &str) -> Vec<String> {
    problems(&format!("{PORTS}\n[[route]]\ndestination = \"{destination}\"\nvia = \"{via}\""))
}

#[test]
fn a_small_file_gets_defaults() {
    let config = Config::parse(PORTS, CPUS).unwrap();
    assert_eq!(config.runtime.main_cpu, 0);
    assert_eq!(config.runtime.worker_cpus, [3]);
    assert_eq!(config.runtime.idle, Idle::Adaptive);
    assert!(config.runtime.hugepages);
    assert_eq!(config.runtime.memory_mb, 512);
    assert_eq!(config.runtime.file_prefix, "sluice");
    assert_eq!(config.runtime.verify_l4_checksum, VerifyL4Checksum::Always);
    assert_eq!(config.runtime.announce_every_s, 60);
    assert_eq!(config.control.socket, Path::new("/run/sluice/dataplane.sock"));
    assert_eq!(config.limits, Limits::default());
    let lan = &config.ports[0];
    assert_eq!(lan.exception.as_deref(), Some("sl-lan"));
    assert_eq!((lan.mtu, lan.rx_descriptors, lan.tx_descriptors), (1500, 1024, 1024));
    assert!(!lan.promiscuous);
    assert_eq!(lan.source_check, SourceCheck::Strict);
    assert!(config.routes.is_empty() && config.exception.enabled);
    let networks: Vec<_> = config.networks().map(|(port, n)| (port.0, n.to_string())).collect();
    let expected = [(0, "10.0.0.0/24"), (1, "192.0.2.0/28"), (1, "198.51.100.0/24")];
    assert_eq!(networks, expected.map(|(port, network)| (port, network.to_owned())));
    assert_eq!(config.port_addresses()[2], Ipv4Addr::new(198, 51, 100, 1));
}

#[test]
fn a_full_file_is_taken_as_it_is() {
    let text = r#"
[runtime]
main_cpu = 1
worker_cpus = [2, 3]
idle = "busy"
hugepages = false
memory_mb = 1_024
file_prefix = "lb-1"
eal_args = ["--no-pci", "--vdev=net_null0"]
verify_l4_checksum = "port"
log = "warn,rtnetlink=off"
announce_every_s = 0
[control]
socket = "/tmp/x.sock"
[limits]
connections = 0x800
services = 1
backends = 2
neighbours = 16
[[port]]
name = "lan"
device = "net_pcap0,iface=tp0"
addresses = ["10.0.0.1/24"]
mtu = 9216
rx_descriptors = 64
tx_descriptors = 16384
promiscuous = true
source_check = "off"
exception = "lan0"
[[route]]
destination = "0.0.0.0/0"
via = "10.0.0.254"
[exception]
enabled = true
"#;
    let config = Config::parse(text, CPUS).unwrap();
    assert_eq!(config.runtime.worker_cpus, [2, 3]);
    assert_eq!(config.runtime.idle, Idle::Busy);
    assert_eq!(config.runtime.eal_args, ["--no-pci", "--vdev=net_null0"]);
    assert_eq!(config.runtime.verify_l4_checksum, VerifyL4Checksum::Port);
    assert_eq!(config.runtime.announce_every_s, 0);
    assert_eq!(config.runtime.log, "warn,rtnetlink=off");
    assert_eq!(
        config.limits,
        Limits { connections: 2048, services: 1, backends: 2, neighbours: 16 }
    );
    assert_eq!(config.ports[0].exception.as_deref(), Some("lan0"));
    assert_eq!(config.routes[0].interface, InterfaceId(0));
    assert_eq!(
        config.summary(),
        "main thread  cpu 1\n\
         workers      cpu 2, 3 (busy)\n\
         memory       1024 MiB in ordinary pages\n\
         l4 checksums port\n\
         control      /tmp/x.sock\n\
         limits       2048 connections, 1 services, 2 backends, 16 neighbours\n\
         port         lan: net_pcap0,iface=tp0, 10.0.0.1/24, mtu 9216, exception port lan0\n\
         route        0.0.0.0/0 via 10.0.0.254 on lan\n\
         warning      port lan: runtime.verify_l4_checksum is \"port\", and its driver verifies no TCP \
         and UDP checksums: broken packets are forwarded, and die uncounted at their receiver; \
         \"always\" has the workers verify them\n"
    );
}

#[test]
fn a_log_level_that_does_not_exist_is_refused() {
    let expected = "runtime.log is \"inof\": expected off, error, warn, info, debug or trace, or a list \
                    as \"info,rtnetlink=warn\"";
    assert_eq!(with("[runtime]\nlog = \"inof\""), [format!("2:7: {expected}")]);
}

#[test]
fn the_example_is_valid() {
    let text = include_str!("../../../docs/examples/dataplane.toml");
    let config = Config::parse(text, CPUS).unwrap();
    assert_eq!(config.limits, Limits::default(), "the example shows the defaults");
}

#[test]
fn without_exception_ports_there_are_no_names_for_them() {
    let config = Config::parse(&format!("[exception]\nenabled = false\n{PORTS}"), CPUS).unwrap();
    assert!(config.ports.iter().all(|port| port.exception.is_none()));
    assert!(config.summary().contains("exception    off"));
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let found = problems(
        "[runtime]\nidle = \"lazy\"\nmemory = 5\n[[port]]\nname = \"lan\"\nmtu = 100\n  addresses = [\"10.0.0.0/24\"]\n",
    );
    assert_eq!(
        found,
        [
            "2:8: runtime.idle is \"lazy\": expected \"adaptive\" or \"busy\"",
            "3:1: runtime.memory is an unknown key: expected one of the keys main_cpu, worker_cpus, \
             share_cpus, idle, hugepages, memory_mb, file_prefix, eal_args, \
             verify_l4_checksum, log, announce_every_s",
            "4:1: port[lan].device is absent: expected a DPDK device string, as \
             \"net_af_xdp0,iface=l0\", or a PCI address",
            "6:7: port[lan].mtu is 100: expected an integer from 576 to 9216",
            "7:15: port[lan].addresses is \"10.0.0.0/24\": expected the address of a host in \
             10.0.0.0/24, neither its first nor its last address",
        ]
    );
}

#[test]
fn an_error_has_one_line_for_each_problem() {
    let error = ConfigError::Invalid {
        path: "/etc/sluice/dataplane.toml".into(),
        problems: Config::parse("[limits]\nservices = 0\n", CPUS).unwrap_err(),
    };
    assert_eq!(
        error.to_string(),
        "/etc/sluice/dataplane.toml:1:1: port is absent: expected 1 to 16 [[port]] sections\n\
         /etc/sluice/dataplane.toml:2:12: limits.services is 0: expected an integer from 1 to 65535"
    );
    let error = Config::load(Path::new("/nonexistent/file.toml")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/file.toml: No such file"), "{error}");
}

#[test]
fn syntax_errors_have_a_place() {
    let found = problems("[runtime]\nidle = adaptive\n\n[[port]]\nname = \"a\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("2:8: TOML syntax is wrong ("), "{found:#?}");
    assert!(found[1].starts_with("5:"), "{found:#?}");
    let found = with("[control]\n[control]");
    assert!(found[0].starts_with("2:2: TOML syntax is wrong (duplicate key"), "{found:#?}");
}

#[test]
fn unknown_sections_and_wrong_kinds_are_named() {
    assert_eq!(
        with("[runtim]"),
        [
            "1:2: runtim is an unknown key: expected one of the keys runtime, control, limits, port, \
             route, exception"
        ]
    );
    assert_eq!(with("runtime = 3"), ["1:11: runtime is 3: expected a table: [runtime]"]);
    assert_eq!(
        with("[runtime]\nhugepages = \"no\""),
        ["2:13: runtime.hugepages is \"no\": expected true or false"]
    );
    assert_eq!(
        with("[runtime]\nidle = true"),
        ["2:8: runtime.idle is true: expected a string in quotes"]
    );
    assert_eq!(
        with("[runtime]\nworker_cpus = 1"),
        ["2:15: runtime.worker_cpus is 1: expected a list of CPU numbers"]
    );
    assert_eq!(
        with("[runtime]\nworker_cpus = [1, -2]"),
        ["2:19: runtime.worker_cpus is -2: expected a list of CPU numbers"]
    );
    assert_eq!(
        problems("[port]\nname = \"a\"")[0],
        "1:1: port is [port]: expected an array of tables: [[port]]"
    );
}

#[test]
fn cpus_must_exist_and_be_used_once() {
    assert_eq!(
        with("[runtime]\nworker_cpus = [1, 4, 1]"),
        [
            "2:15: runtime.worker_cpus is 4: expected a CPU that is online: 0, 1, 2, 3",
            "2:15: runtime.worker_cpus is 1 twice: expected each CPU once; for a trial, share_cpus \
             = true lets workers share one",
        ]
    );
    let shared = |idle| {
        let more = format!("share_cpus = true\nidle = \"{idle}\"");
        format!("[runtime]\nworker_cpus = [1, 2, 1]\n{more}\n{PORTS}")
    };
    let config = Config::parse(&shared("adaptive"), CPUS).unwrap();
    assert_eq!(config.runtime.worker_cpus, [1, 2, 1]);
    assert_eq!(
        problems(&shared("busy")),
        [
            "3:14: runtime.share_cpus is true: expected false, as with idle = \"busy\" no worker lets \
          go of its CPU"
        ]
    );
    assert_eq!(
        with("[runtime]\nmain_cpu = 9"),
        ["2:12: runtime.main_cpu is 9: expected a CPU that is online: 0, 1, 2, 3"]
    );
    assert_eq!(
        with("[runtime]\nworker_cpus = []"),
        ["2:15: runtime.worker_cpus is 0 CPUs: expected 1 to 127 CPU numbers, one for each worker"]
    );
}

/// The driver would write past the end of a message of its own: `stack smashing detected`.
#[test]
fn a_tap_with_more_workers_than_queues_is_refused() {
    let text = |cpus: &str, device: &str| {
        format!(
            "[runtime]\nshare_cpus = true\nworker_cpus = [{cpus}]\n\
             [[port]]\nname = \"a\"\ndevice = \"{device}\"\naddresses = [\"10.0.0.1/24\"]\n"
        )
    };
    assert!(Config::parse(&text("0, 1, 2, 3", "net_tap0,iface=t0"), CPUS).is_ok());
    let found = problems(&text("0, 1, 2, 3, 3", "net_tap0,iface=t0"));
    assert_eq!(
        found,
        [
            "6:10: port[a].device is \"net_tap0,iface=t0\": expected a device with 5 queues, one for \
          each CPU in runtime.worker_cpus: net_tap has at most 4 here, as it passes a descriptor for \
          each receive and each transmit queue in one message of 8"
        ]
    );
    let found = problems(&text("0, 1", "net_af_xdp0,iface=eth0"));
    assert!(found.len() == 1 && found[0].ends_with("or queue_count=2"), "{found:?}");
    assert!(Config::parse(&text("0, 1", "net_af_xdp0,iface=eth0,queue_count=2"), CPUS).is_ok());
}

#[test]
fn the_main_thread_shares_a_cpu_with_an_adaptive_worker_only() {
    let text =
        |idle| format!("[runtime]\nmain_cpu = 1\nworker_cpus = [0, 1]\nidle = \"{idle}\"\n{PORTS}");
    assert!(Config::parse(&text("adaptive"), CPUS).is_ok());
    let found = problems(&text("busy"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("2:12: runtime.main_cpu is 1: expected a CPU without a worker"),
        "{found:?}"
    );
    // The default main CPU can collide as well.
    let found = with("[runtime]\nworker_cpus = [0]\nidle = \"busy\"");
    assert!(found[0].starts_with("1:1: runtime.main_cpu is 0"), "{found:?}");
}

#[test]
fn runtime_fields_have_ranges() {
    assert_eq!(
        with("[runtime]\nmemory_mb = 63"),
        ["2:13: runtime.memory_mb is 63: expected an integer from 64 to 1048576"]
    );
    let found = with("[runtime]\nfile_prefix = \"a/b\"");
    assert!(found[0].starts_with("2:15: runtime.file_prefix is \"a/b\": expected 1 to 63"));
    let found = with("[runtime]\nverify_l4_checksum = \"never\"");
    assert!(found[0].ends_with("is \"never\": expected \"always\" or \"port\""), "{found:?}");
    assert_eq!(
        with("[runtime]\neal_args = [\"--file-prefix=x\", \"-l\", \"\"]"),
        [
            "2:12: runtime.eal_args is \"--file-prefix=x\": expected runtime.file_prefix instead of \
             this argument",
            "2:12: runtime.eal_args is \"-l\": expected runtime.worker_cpus instead of this argument",
            "2:12: runtime.eal_args is \"\": expected arguments of one or more characters",
        ]
    );
}

#[test]
fn limits_have_ranges() {
    assert_eq!(
        with("[limits]\nconnections = 1023\nservices = 65536\nbackends = 0\nneighbours = 15"),
        [
            "2:15: limits.connections is 1023: expected an integer from 1024 to 200000000",
            "3:12: limits.services is 65536: expected an integer from 1 to 65535",
            "4:12: limits.backends is 0: expected an integer from 1 to 1000000",
            "5:14: limits.neighbours is 15: expected an integer from 16 to 65535",
        ]
    );
    let found = with("[limits]\nconnections = 99999999999999999999999999");
    assert!(found[0].contains("expected an integer from 1024"), "{found:?}");
}

#[test]
fn the_socket_is_an_absolute_path_that_fits() {
    assert_eq!(
        with("[control]\nsocket = \"run/x.sock\""),
        ["2:10: control.socket is \"run/x.sock\": expected an absolute path of a file"]
    );
    let long = format!("/{}", "x".repeat(107));
    assert_eq!(
        with(&format!("[control]\nsocket = \"{long}\"")),
        ["2:10: control.socket is 108 bytes long: expected a path of at most 107 bytes"]
    );
}

#[test]
fn ports_must_be_there_and_not_too_many() {
    assert_eq!(problems(""), ["1:1: port is absent: expected 1 to 16 [[port]] sections"]);
    let many: String = (0..17)
        .map(|n| {
            format!(
                "[[port]]\nname = \"p{n}\"\ndevice = \"d{n}\"\naddresses = [\"10.{n}.0.1/24\"]\n"
            )
        })
        .collect();
    assert_eq!(problems(&many), ["1:1: port is 17 ports: expected 1 to 16 [[port]] sections"]);
    assert_eq!(
        problems("[[port]]\n[[port]]\nname = \"b\""),
        [
            "1:1: port[#1].name is absent: expected 1 to 63 of a-z, 0-9, '-', '.', '_', at least one \
             a letter or digit",
            "1:1: port[#1].device is absent: expected a DPDK device string, as \
             \"net_af_xdp0,iface=l0\", or a PCI address",
            "1:1: port[#1].addresses is absent: expected at least one address with its prefix \
             length, as [\"10.0.0.1/24\"]",
            "2:1: port[b].device is absent: expected a DPDK device string, as \
             \"net_af_xdp0,iface=l0\", or a PCI address",
            "2:1: port[b].addresses is absent: expected at least one address with its prefix \
             length, as [\"10.0.0.1/24\"]",
        ]
    );
}

#[test]
fn port_fields_have_rules() {
    let found = replaced("name = \"lan\"", "name = \"LAN\"");
    assert_eq!(
        found,
        ["3:8: port[#1].name is \"LAN\": expected 1 to 63 of a-z, 0-9, '-', '.', '_', at least \
             one a letter or digit"]
    );
    let found = replaced("\"0000:03:00.0\"", "\"a b\"");
    assert!(found[0].contains("port[wan].device is \"a b\": expected a DPDK device"), "{found:?}");
    let found = replaced("name = \"lan\"", "name = \"lan\"\nrx_descriptors = 1000\nmtu = 9217");
    assert_eq!(
        found,
        [
            "4:18: port[lan].rx_descriptors is 1000: expected a power of two from 64 to 16384",
            "5:7: port[lan].mtu is 9217: expected an integer from 576 to 9216",
        ]
    );
    let found = replaced("\"10.0.0.1/24\"", "\"10.0.0.1\"");
    assert!(found[0].contains("is \"10.0.0.1\": expected an IPv4 address, '/' and"), "{found:?}");
    let found = replaced("\"10.0.0.1/24\"", "\"fd00::1/64\"");
    assert!(found[0].contains("is \"fd00::1/64\": expected an IPv4 address, as IPv6 is not"));
    let found = replaced("[\"10.0.0.1/24\"]", "[]");
    assert!(found[0].contains("addresses is []: expected at least one address"), "{found:?}");
}

#[test]
fn exception_names_fit_the_kernel() {
    let found = replaced("name = \"lan\"", "name = \"lan-to-the-office\"");
    assert_eq!(
        found,
        ["2:1: port[lan-to-the-office].exception is \"sl-lan-to-the-office\" (\"sl-\" and the \
             port's name, as it is absent): expected the name of a kernel interface: 1 to 15 bytes \
             without '/', ':', '%' and spaces"]
    );
    for wrong in ["", "a/b", "..", "a b", "sixteen-letters-"] {
        let found = replaced("name = \"lan\"", &format!("name = \"lan\"\nexception = \"{wrong}\""));
        assert!(found[0].contains("expected the name of a kernel interface"), "{wrong}: {found:?}");
    }
}

#[test]
fn names_devices_addresses_and_exception_ports_are_unique() {
    assert_eq!(
        replaced("name = \"wan\"", "name = \"lan\"\nexception = \"x\""),
        [
            "8:8: port[#2].name is \"lan\": expected a name that no other port has; port[lan] has it already"
        ]
    );
    let found = replaced("\"0000:03:00.0\"", "\"net_af_xdp0,iface=l1\"");
    assert_eq!(
        found,
        ["9:10: port[wan].device is \"net_af_xdp0,iface=l1\": expected a device that no other \
             port has; port[lan] has it already"]
    );
    let same = PORTS.replace("net_af_xdp0,iface=l0,queue_count=4", "03:00.0");
    assert!(problems(&same)[0].contains("a device that no other port has"), "one PCI address");
    let found = replaced("name = \"wan\"", "name = \"wan\"\nexception = \"sl-lan\"");
    assert_eq!(
        found,
        ["9:13: port[wan].exception is \"sl-lan\": expected an interface name that no other port \
             has; port[lan] has it already"]
    );
    let found = replaced("name = \"wan\"", "name = \"wan\"\nexception = \"l0\"");
    assert_eq!(
        found,
        ["9:13: port[wan].exception is \"l0\": expected a name of its own; the device of \
             port[lan] uses this one"]
    );
    let found = replaced("192.0.2.1/28", "10.0.0.1/24");
    assert_eq!(
        found,
        ["10:13: port[wan].addresses is 10.0.0.1/24: expected each address once; port[lan] has \
             it already"]
    );
}

#[test]
fn networks_belong_to_one_port() {
    let found = replaced("192.0.2.1/28", "10.0.200.1/16");
    assert_eq!(
        found,
        ["10:13: port[wan].addresses is 10.0.200.1/16: expected a network that overlaps with \
             that of no other port; port[lan] has 10.0.0.1/24"]
    );
    // Two addresses of one network on one port are fine.
    let text = PORTS.replace("\"10.0.0.1/24\"", "\"10.0.0.1/24\", \"10.0.0.2/24\"");
    assert!(Config::parse(&text, CPUS).is_ok());
}

#[test]
fn routes_are_reachable() {
    let text = format!("{PORTS}[[route]]\ndestination = \"0.0.0.0/0\"\nvia = \"198.51.100.254\"");
    let config = Config::parse(&text, CPUS).unwrap();
    assert_eq!(config.routes[0].interface, InterfaceId(1));
    assert_eq!(
        route("0.0.0.0/0", "10.9.0.1"),
        ["14:7: route[0.0.0.0/0].via is 10.9.0.1: expected a host in a port's network, as the \
             route is unreachable otherwise: 10.0.0.0/24 on port[lan], 192.0.2.0/28 on port[wan], \
             198.51.100.0/24 on port[wan]"]
    );
    assert!(route("0.0.0.0/0", "10.0.0.255")[0].contains("unreachable"), "broadcast address");
    assert_eq!(
        route("0.0.0.0/0", "10.0.0.1"),
        ["14:7: route[0.0.0.0/0].via is 10.0.0.1: expected the address of another host; \
             port[lan] has this one"]
    );
    assert!(route("0.0.0.0/0", "gw")[0].contains("expected the address of a gateway"));
    assert!(route("0.0.0.0/0", "127.0.0.1")[0].contains("expected the address of a gateway"));
}

#[test]
fn route_destinations_are_networks_and_unique() {
    assert_eq!(
        route("10.9.0.1/16", "10.0.0.2"),
        [
            "13:15: route[#1].destination is \"10.9.0.1/16\": expected no bits set behind the prefix \
             length: 10.9.0.0/16"
        ]
    );
    assert!(route("default", "10.0.0.2")[0].contains("expected an IPv4 address, '/' and"));
    let not_yet = "expected an IPv4 address, as IPv6 is not supported yet";
    let found = route("0.0.0.0/0", "fd00::1");
    assert!(found[0].contains(&format!("via is \"fd00::1\": {not_yet}")), "{found:?}");
    let found = route("::/0", "10.0.0.2");
    assert!(found[0].contains(&format!("destination is \"::/0\": {not_yet}")), "{found:?}");
    let twice =
        format!("{PORTS}{0}{0}", "[[route]]\ndestination = \"0.0.0.0/0\"\nvia = \"10.0.0.2\"\n");
    assert_eq!(
        problems(&twice),
        ["15:15: route[#2].destination is 0.0.0.0/0: expected a destination that no other route \
             and no port's network has; route[0.0.0.0/0] has it already"]
    );
    let found = route("10.0.0.0/24", "192.0.2.2");
    assert!(found[0].ends_with("port[lan] has it already"), "{found:?}");
    let found = problems(&format!("{PORTS}[[route]]\nvia = \"10.0.0.2\"\ngateway = \"x\""));
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("route[#1].destination is absent"), "{found:?}");
    assert!(found[1].contains("one of the keys destination, via"), "{found:?}");
}

#[test]
fn cpu_lists_are_read_as_the_kernel_writes_them() {
    assert_eq!(parse_cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
    assert_eq!(parse_cpu_list("0\n"), Some(vec![0]));
    assert_eq!(parse_cpu_list(""), None);
    assert_eq!(parse_cpu_list("a-b"), None);
    assert!(!online_cpus().unwrap().is_empty());
}

#[test]
fn no_text_makes_it_panic() {
    let mut cut = format!("[runtime]\nidle = \"busy\"\n{PORTS}[[route]]\nvia = \"ü\"");
    while cut.pop().is_some() {
        let _ = Config::parse(&cut, CPUS);
        let _ = Config::parse(&cut, &[]);
    }
}

#[test]
fn an_mtu_that_a_driver_is_known_not_to_take_is_refused() {
    let most = rules::AF_XDP_MTU;
    assert_eq!(most, 3_434);
    let of_wan = |mtu: u16| {
        let text = "name = \"wan\"";
        Config::parse(&PORTS.replace(text, &format!("{text}\nmtu = {mtu}")), CPUS)
    };
    assert!(of_wan(most).is_ok());
    let expected = "7:7: port[wan].mtu is 3435: expected at most 3434, as all ports share packet \
                    buffers, and those of the AF_XDP device of port[lan] are smaller than a page";
    let found = replaced("name = \"wan\"", "name = \"wan\"\nmtu = 3435");
    assert!(found.len() == 1 && found[0].ends_with(&expected[5..]), "{found:?}");
    let found = replaced("name = \"lan\"", "name = \"lan\"\nmtu = 9000");
    assert!(
        found.len() == 1 && found[0].contains("port[lan].mtu is 9000: expected at most 3434"),
        "{found:?}"
    );
    let device = "net_af_xdp0,iface=l0,queue_count=4\"";
    assert!(PORTS.contains(device));
    let tap = PORTS.replace(device, "net_tap0,iface=l0\"\nmtu = 1505");
    let found = problems(&tap);
    assert!(
        found.len() == 1 && found[0].contains("mtu is 1505: expected at most 1504"),
        "{found:?}"
    );
    let jumbo = PORTS.replace(device, "0000:04:00.0\"\nmtu = 9216");
    assert!(Config::parse(&jumbo, CPUS).is_ok(), "a NIC says so itself");
}
