//! What the kernel of this host says, by rtnetlink: by which interface it would go to an address, and
//! whether the interfaces of exception ports are in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;

use futures_util::StreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::packet_route::route::{RouteAttribute, RouteType};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use super::way::{Interface, PortInterface, Way};

/// The kernel's number for "No such device".
const ENODEV: i32 = 19;

/// The way to ask it.
#[derive(Clone)]
pub(super) struct Kernel(Option<Handle>);

impl Kernel {
    /// On the current tokio runtime.
    pub(super) fn open() -> Kernel {
        match rtnetlink::new_connection() {
            Ok((connection, handle, _)) => {
                tokio::spawn(connection);
                Kernel(Some(handle))
            }
            Err(error) => {
                tracing::warn!(
                    "no rtnetlink socket: {error}: health checks cannot tell by which interface \
                     they go, and wait for the data plane all alike"
                );
                Kernel(None)
            }
        }
    }

    /// One that tells nothing.
    pub(super) fn unknown() -> Kernel {
        Kernel(None)
    }

    /// The way to an address as of now.
    pub(super) async fn way(&self, to: IpAddr) -> Way {
        let Some(handle) = &self.0 else { return Way::Unknown };
        let question = match to {
            IpAddr::V4(to) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build()
            }
            IpAddr::V6(to) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build()
            }
        };
        let mut routes = pin!(handle.route().get(question).execute());
        match routes.next().await {
            Some(Ok(route)) => {
                let is_local = route.header.kind == RouteType::Local;
                let index = route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                });
                index.map_or(Way::Unknown, |index| Way::By { index, is_local })
            }
            Some(Err(Error::NetlinkError(message))) => {
                Way::None(format!("this host has no route: {}", message.to_io().kind()))
            }
            Some(Err(_)) | None => Way::Unknown,
        }
    }

    /// An interface as of now.
    pub(super) async fn look(&self, port: &PortInterface) -> Interface {
        let Some(handle) = &self.0 else { return Interface::default() };
        let mut links = pin!(handle.link().get().match_name(port.name.to_string()).execute());
        let link = match links.next().await {
            Some(Ok(link)) => link,
            Some(Err(Error::NetlinkError(message)))
                if message.to_io().raw_os_error() == Some(ENODEV) =>
            {
                let fault = Some(format!("interface {} is gone", port.name));
                return Interface { fault, ..Interface::default() };
            }
            // Without an answer nothing is known to be wrong.
            Some(Err(_)) | None => return Interface::default(),
        };
        let index = link.header.index;
        let fault = if link.header.flags.contains(LinkFlags::Up) {
            self.missing(port, index)
                .await
                .map(|address| format!("interface {} has lost its address {address}", port.name))
        } else {
            Some(format!("interface {} is down", port.name))
        };
        Interface { index: Some(index), fault, link_fault: None }
    }

    /// An address that an interface must have and has not.
    async fn missing(&self, port: &PortInterface, index: u32) -> Option<IpAddr> {
        let handle = self.0.as_ref()?;
        let mut has = Vec::new();
        let mut answers = pin!(handle.address().get().set_link_index_filter(index).execute());
        while let Some(answer) = answers.next().await {
            for attribute in answer.ok()?.attributes {
                if let AddressAttribute::Local(address) = attribute {
                    has.push(address);
                }
            }
        }
        port.addresses.iter().find(|address| !has.contains(address)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, addresses: &[&str]) -> PortInterface {
        PortInterface {
            name: name.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            port: "lan".into(),
            link_is_down: false,
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_its_way() {
        let kernel = Kernel::open();
        let lo = kernel.look(&port("lo", &[])).await;
        let Some(index) = lo.index else { return eprintln!("SKIPPED: no rtnetlink here") };
        let address = Ipv4Addr::LOCALHOST.into();
        assert_eq!(kernel.way(address).await, Way::By { index, is_local: true });
        let off = "240.0.0.1".parse().unwrap();
        assert!(matches!(kernel.way(off).await, Way::None(_) | Way::By { is_local: false, .. }));
    }

    #[tokio::test]
    async fn what_an_interface_lacks_is_told() {
        let kernel = Kernel::open();
        let fault = async |name, address| kernel.look(&port(name, &[address])).await.fault;
        if kernel.look(&port("lo", &["127.0.0.1"])).await.index.is_none() {
            return eprintln!("SKIPPED: no rtnetlink here");
        }
        assert_eq!(fault("lo", "127.0.0.1").await, None);
        let lost = "interface lo has lost its address 192.0.2.77";
        assert_eq!(fault("lo", "192.0.2.77").await.as_deref(), Some(lost));
        let gone = "interface sl-none is gone";
        assert_eq!(fault("sl-none", "192.0.2.1").await.as_deref(), Some(gone));
    }
}
