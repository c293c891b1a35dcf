//! The kernel's side of the exception ports: each port that DPDK owns has a kernel interface (a
//! tap) that gets the port's MAC address, MTU and IP addresses and the static routes, so that
//! programs on this host use the port as if the kernel drove it.
//!
//! Everything is set through rtnetlink at start-up; what is there already is left as it is. From then on
//! a thread looks twice a second whether it still is ([`Keeper`]): health checks go by it, and an address
//! that an administrator flushes by mistake must not take services down. Nothing is undone at the end, as
//! the interfaces go with the process.

mod keep;

use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;

use futures_util::StreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use sluice_wire::ether::MacAddr;

use crate::config::{InterfaceAddress, Route};

pub use keep::{Keeper, News};

/// Metric of the static routes: higher than what administrators and routing daemons use, so that a
/// management interface keeps the kernel's own traffic.
pub const ROUTE_METRIC: u32 = 1_000;

/// An exception port's interface as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPort {
    /// Its name, as `sl-lan`.
    pub interface: String,
    /// MAC address of the port, and so its own.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The port's addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// Why the kernel's side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is no way to speak to the kernel.
    #[error("no rtnetlink socket: {0}")]
    Socket(io::Error),
    /// The interface is not there.
    #[error("exception port {interface}: there is no such kernel interface ({reason})")]
    NoInterface {
        /// Its name.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel refused a setting.
    #[error("exception port {interface}: the kernel does not take {setting}: {reason}")]
    Refused {
        /// The interface's name.
        interface: String,
        /// What was to be set, with its value.
        setting: String,
        /// What the kernel said; operations that are not permitted need CAP_NET_ADMIN.
        reason: String,
    },
}

/// Set a port's interface up and, over it, the routes whose gateways are in its networks; the others
/// are passed over. What is there already is left as it is. Returns what was not there, in words.
///
/// # Errors
/// The first setting that the kernel refuses; those before it are set by then.
async fn set_up(
    handle: &Handle,
    port: &KernelPort,
    routes: &[Route],
    set: &mut Vec<String>,
) -> Result<(), KernelError> {
    let link = interface(handle, &port.interface).await?;
    let index = link.header.index;
    set_link(handle, port, &link, set).await?;
    for address in &port.addresses {
        let add = handle.address().add(index, address.address().into(), address.prefix_len());
        let added = add.execute().await;
        unless_there(&port.interface, format!("address {address}"), added, set)?;
    }
    // The kernel makes these with the addresses, and does not miss one that is taken away alone.
    for address in port.addresses.iter().filter(|address| address.prefix_len() < 32) {
        let added = handle.route().add(network_message(*address, index)).execute().await;
        unless_there(&port.interface, format!("network {}", address.network()), added, set)?;
    }
    for route in routes.iter().filter(|route| reaches(port, route.via)) {
        let added = handle.route().add(route_message(route, index)).execute().await;
        unless_there(&port.interface, name_of(route), added, set)?;
    }
    Ok(())
}

fn route_message(route: &Route, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.destination.address(), route.destination.prefix_len())
        .gateway(route.via)
        .output_interface(index)
        .priority(ROUTE_METRIC)
        .build()
}

/// The route to the network of an address, as the kernel makes it.
fn network_message(address: InterfaceAddress, index: u32) -> RouteMessage {
    let network = address.network();
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network.address(), network.prefix_len())
        .output_interface(index)
        .protocol(RouteProtocol::Kernel)
        .scope(RouteScope::Link)
        .pref_source(address.address())
        .build()
}

fn name_of(route: &Route) -> String {
    format!("route {} via {}", route.destination, route.via)
}

/// Whether a gateway is in a network of the port.
fn reaches(port: &KernelPort, via: Ipv4Addr) -> bool {
    port.addresses.iter().any(|address| address.network().contains(via))
}

async fn interface(handle: &Handle, interface: &str) -> Result<LinkMessage, KernelError> {
    let error = |reason: String| KernelError::NoInterface { interface: interface.into(), reason };
    let mut links = pin!(handle.link().get().match_name(interface).execute());
    match links.next().await {
        Some(Ok(link)) => Ok(link),
        Some(Err(e)) => Err(error(reason(&e))),
        None => Err(error("no answer".into())),
    }
}

async fn set_link(
    handle: &Handle,
    port: &KernelPort,
    link: &LinkMessage,
    set: &mut Vec<String>,
) -> Result<(), KernelError> {
    let mac = LinkAttribute::Address(port.mac.0.to_vec());
    let mtu = LinkAttribute::Mtu(port.mtu.into());
    let is_up = link.header.flags.contains(LinkFlags::Up);
    let has = |attribute: &LinkAttribute| link.attributes.contains(attribute);
    let message = || LinkUnspec::new_with_index(link.header.index);
    // One by one, so that an error says which: the kernel's answer does not.
    let wanted = [
        (!has(&mac), message().append_extra_attribute(mac), format!("MAC address {}", port.mac)),
        (!has(&mtu), message().mtu(port.mtu.into()), format!("MTU {}", port.mtu)),
        (!is_up, message().up(), "link state up".to_owned()),
    ];
    for (_, message, setting) in wanted.into_iter().filter(|(differs, ..)| *differs) {
        let done = handle.link().set(message.build()).execute().await;
        refused(&port.interface, setting.clone(), done)?;
        set.push(setting);
    }
    Ok(())
}

/// Best effort: IPv6 noise costs a few dropped packets and no more.
fn disable_ipv6(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Ok(()) => {}
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%path, %error, "IPv6 stays on: packets of it will be dropped");
        }
    }
}

fn refused(
    interface: &str,
    setting: String,
    result: Result<(), rtnetlink::Error>,
) -> Result<(), KernelError> {
    result.map_err(|error| KernelError::Refused {
        interface: interface.to_owned(),
        setting,
        reason: reason(&error),
    })
}

/// As `refused`, but what is there already is fine, and not noted in `set`.
fn unless_there(
    interface: &str,
    setting: String,
    result: Result<(), rtnetlink::Error>,
    set: &mut Vec<String>,
) -> Result<(), KernelError> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message))
            if message.to_io().kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        result => {
            refused(interface, setting.clone(), result)?;
            set.push(setting);
            Ok(())
        }
    }
}

/// What the kernel said, without the words of the protocol.
fn reason(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::fs;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Set in the process that runs inside the namespace.
    const INSIDE: &str = "SLUICE_TEST_INSIDE_NAMESPACE";

    fn run(program: &str, arguments: &str) -> (bool, String) {
        let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn ip(arguments: &str) -> String {
        let (success, text) = run("ip", arguments);
        assert!(success, "ip {arguments}: {text}");
        text
    }

    /// Run one of the `inside_` tests in a network namespace of its own.
    fn in_namespace(test: &str) {
        let name = format!("sluice-kernel-{}-{test}", std::process::id());
        let (made, why) = run("ip", &format!("netns add {name}"));
        if !made {
            eprintln!("SKIPPED {test}: it needs root and ip netns: {}", why.trim());
            return;
        }
        let module = module_path!().split_once("::").unwrap().1;
        let output = Command::new("ip")
            .args(["netns", "exec", &name])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", &format!("{module}::inside_{test}")])
            .env(INSIDE, "1")
            .output();
        ip(&format!("netns del {name}"));
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    }

    /// Whether it is safe to go on: never in the host's own namespace, as `--ignored` would have it.
    fn is_inside() -> bool {
        let inside = std::env::var_os(INSIDE).is_some();
        if !inside {
            eprintln!("SKIPPED: runs inside a network namespace, started by another test");
        }
        inside
    }

    fn start(ports: &[KernelPort], routes: &[Route]) -> Result<Keeper, KernelError> {
        Keeper::start(ports.to_vec(), routes.to_vec()).map(Option::unwrap)
    }

    /// Two ports and three routes.
    fn wanted() -> (Vec<KernelPort>, Vec<Route>) {
        let text = r#"
            [[port]]
            name = "lan"
            device = "d0"
            addresses = ["10.77.0.1/24", "10.77.1.1/32"]
            [[port]]
            name = "wan"
            device = "d1"
            addresses = ["192.0.2.2/31"]
            [[route]]
            destination = "0.0.0.0/0"
            via = "192.0.2.3"
            [[route]]
            destination = "172.16.0.0/12"
            via = "10.77.0.254"
            [[route]]
            destination = "172.16.5.0/24"
            via = "192.0.2.3"
        "#;
        let config = Config::parse(text, &[0]).unwrap();
        let port = |(port, last): (&crate::config::Port, u8)| KernelPort {
            interface: port.exception.clone().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0x77, last]),
            mtu: 1400 + u16::from(last),
            addresses: port.addresses.clone(),
        };
        (config.ports.iter().zip(1..).map(port).collect(), config.routes)
    }

    #[test]
    fn interfaces_addresses_and_routes_are_set_and_set_again() {
        in_namespace("all_is_set");
    }

    #[test]
    #[ignore = "runs inside a namespace, started by the test above"]
    fn inside_all_is_set() {
        if !is_inside() {
            return;
        }
        // Stand-ins for the taps that DPDK makes.
        ip("tuntap add sl-lan mode tap");
        ip("tuntap add sl-wan mode tap");
        let (ports, routes) = wanted();
        let mut first = None;
        for _ in 0..2 {
            drop(start(&ports, &routes).unwrap());
            let link = ip("link show dev sl-lan");
            assert!(link.contains("02:00:00:00:77:01") && link.contains("mtu 1401"), "{link}");
            assert!(link.contains("UP"), "{link}");
            assert!(ip("link show dev sl-wan").contains("mtu 1402"));
            let addresses = ip("-4 -o addr show");
            for address in ["10.77.0.1/24 brd 10.77.0.255", "10.77.1.1/32", "192.0.2.2/31"] {
                assert_eq!(addresses.matches(address).count(), 1, "{address} in {addresses}");
            }
            let routes = ip("-4 route show");
            for route in [
                "default via 192.0.2.3 dev sl-wan proto static metric 1000",
                "172.16.0.0/12 via 10.77.0.254 dev sl-lan proto static metric 1000",
                "172.16.5.0/24 via 192.0.2.3 dev sl-wan proto static metric 1000",
                "10.77.0.0/24 dev sl-lan proto kernel scope link src 10.77.0.1",
            ] {
                assert_eq!(routes.matches(route).count(), 1, "{route} in {routes}");
            }
            if let Ok(disabled) = fs::read_to_string("/proc/sys/net/ipv6/conf/sl-lan/disable_ipv6")
            {
                assert_eq!(disabled.trim(), "1");
                assert_eq!(ip("-6 -o addr show dev sl-lan"), "");
            }
            let all = addresses + &routes;
            assert_eq!(first.get_or_insert_with(|| all.clone()), &all, "the second time as well");
        }
    }

    #[test]
    fn what_is_taken_away_is_put_back() {
        in_namespace("put_back");
    }

    #[test]
    #[ignore = "runs inside a namespace, started by the test above"]
    fn inside_put_back() {
        if !is_inside() {
            return;
        }
        ip("tuntap add sl-lan mode tap");
        ip("tuntap add sl-wan mode tap");
        let (ports, routes) = wanted();
        let keeper = start(&ports, &routes).unwrap();
        let told = |within: Duration| {
            let deadline = Instant::now() + within;
            loop {
                match keeper.news() {
                    Some(news) => return Some(news.told().2),
                    None if Instant::now() >= deadline => return None,
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        };
        assert_eq!(told(Duration::from_millis(1_200)), None, "nothing was taken away");
        let before = ip("-4 -o addr show") + &ip("-4 route show") + &ip("link show dev sl-lan");
        let breaks = [
            (
                "addr flush dev sl-lan",
                "address 10.77.0.1/24, address 10.77.1.1/32, route 172.16.0.0/12 via 10.77.0.254",
            ),
            ("link set sl-lan down", "link state up, route 172.16.0.0/12 via 10.77.0.254"),
            ("link set sl-lan mtu 900", "MTU 1401"),
            ("route flush dev sl-lan", "network 10.77.0.0/24, route 172.16.0.0/12 via 10.77.0.254"),
            ("route del 172.16.0.0/12", "route 172.16.0.0/12 via 10.77.0.254"),
            ("link set sl-lan address 02:00:00:00:00:99", "MAC address 02:00:00:00:77:01"),
        ];
        for (what, back) in breaks {
            ip(what);
            let since = Instant::now();
            let expected = format!("sl-lan: put back, as something else had taken it away: {back}");
            assert_eq!(told(Duration::from_secs(5)).as_deref(), Some(expected.as_str()), "{what}");
            assert!(since.elapsed() < Duration::from_secs(1), "{what}: {:?}", since.elapsed());
        }
        let after = ip("-4 -o addr show") + &ip("-4 route show") + &ip("link show dev sl-lan");
        assert_eq!(before, after);
        // Other routes from now on.
        keeper.reroute(vec![
            routes[0],
            Route { destination: "172.20.0.0/16".parse().unwrap(), ..routes[1] },
        ]);
        std::thread::sleep(Duration::from_millis(1_200));
        let now = ip("-4 route show");
        assert!(now.contains("172.20.0.0/16 via 10.77.0.254"), "{now}");
        assert!(!now.contains("172.16.") && now.contains("default via 192.0.2.3"), "{now}");
        assert_eq!(told(Duration::from_millis(1)), None, "what was asked for is no news");
        ip("link del sl-lan");
        let said = told(Duration::from_secs(2)).unwrap();
        assert!(
            said.starts_with("exception port sl-lan: there is no such kernel interface"),
            "{said}"
        );
    }

    #[test]
    fn refusals_name_the_interface_and_the_setting() {
        in_namespace("refusals");
    }

    #[test]
    #[ignore = "runs inside a namespace, started by the test above"]
    fn inside_refusals() {
        if !is_inside() {
            return;
        }
        let (mut ports, routes) = wanted();
        let error = start(&ports, &routes).unwrap_err().to_string();
        assert_eq!(
            error,
            "exception port sl-lan: there is no such kernel interface (No such device (os error 19))"
        );
        ip("tuntap add sl-lan mode tap");
        ports.truncate(1);
        ports[0].mtu = 20;
        let error = start(&ports, &routes).unwrap_err().to_string();
        assert!(
            error.starts_with("exception port sl-lan: the kernel does not take MTU 20: Invalid"),
            "{error}"
        );
        ports[0].mtu = 1500;
        ports[0].mac = MacAddr([1, 0, 0, 0, 0, 1]);
        let error = start(&ports, &routes).unwrap_err().to_string();
        assert!(error.contains("does not take MAC address 01:00:00:00:00:01"), "{error}");
    }

    #[test]
    fn without_exception_ports_nothing_is_asked_of_the_kernel() {
        assert!(Keeper::start(Vec::new(), wanted().1).unwrap().is_none());
    }
}
