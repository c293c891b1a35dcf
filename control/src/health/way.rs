//! By which way a check leaves this host, and whether that way is open. Pure.
//!
//! A check goes by whatever route the kernel has. Where that leads by an exception port, what comes
//! back depends on the data plane: while that does not answer, its interface is not in order, or the
//! port's link is down, a check would tell of our own fault. Such checks are not made, and health stays as
//! it was. Backends that the kernel reaches by another interface, or on this host itself, are asked in
//! any case.
//!
//! Which interfaces are exception ports control learns from the data plane. Before it has met one it
//! asks only backends on its own host: no other could be served yet anyhow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

/// The kernel's interface of an exception port, as the data plane has set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInterface {
    /// Its name.
    pub name: Arc<str>,
    /// Addresses that it must have.
    pub addresses: Vec<IpAddr>,
    /// Name of the port.
    pub port: Arc<str>,
    /// Whether the port's link is down.
    pub link_is_down: bool,
}

/// Whether control hears the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It never did.
    NotMet,
    /// Not any more.
    Away {
        /// The last moment at which it surely was there.
        since: Instant,
        /// What is wrong.
        why: String,
    },
    /// It answers, and has these exception ports.
    Answers(Vec<PortInterface>),
}

/// The way that the kernel would take to an address now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the interface with this index; or it is an address of this host.
    By { index: u32, is_local: bool },
    /// There is none: why.
    None(String),
    /// The kernel does not tell.
    Unknown,
}

/// By what a backend was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// Not yet, or nobody knows.
    Unknown,
    /// By the exception port with this name.
    Port(Arc<str>),
    /// Past the data plane.
    Elsewhere,
}

/// An exception port's interface, as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its index; absent when it is not there.
    pub index: Option<u32>,
    /// What is not in order about it.
    pub fault: Option<String>,
    /// What is not in order about the link of its port.
    pub link_fault: Option<String>,
}

/// All that says whether a check may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    pub contact: Contact,
    /// By name.
    pub interfaces: HashMap<Arc<str>, Interface>,
}

impl Default for Ways {
    fn default() -> Self {
        Ways { contact: Contact::NotMet, interfaces: HashMap::new() }
    }
}

impl Ways {
    /// May a backend be asked that was asked by `last` before, and to which the kernel would go by
    /// `way` now? By what it is asked then, or why not.
    pub(super) fn admit(&self, last: &Via, way: &Way) -> Result<Via, String> {
        let port = match way {
            Way::By { index, .. } => self.port(*index),
            Way::None(_) | Way::Unknown => None,
        };
        // A route that is gone with its interface must not lead elsewhere.
        let before = match last {
            Via::Port(name) => self.interfaces.get_key_value(name),
            Via::Unknown | Via::Elsewhere => None,
        };
        let concerned = port.or(before);
        match &self.contact {
            Contact::NotMet if !matches!(way, Way::By { is_local: true, .. }) => {
                return Err("the data plane was not met yet, so its ports are not known".to_owned());
            }
            Contact::Away { why, .. } if concerned.is_some() || self.may_be_a_port(way) => {
                return Err(format!("the data plane does not answer: {why}"));
            }
            _ => {}
        }
        let fault_of =
            |interface: &Interface| interface.fault.clone().or(interface.link_fault.clone());
        if let Some(fault) = concerned.and_then(|(_, interface)| fault_of(interface)) {
            return Err(fault);
        }
        match (way, port) {
            (Way::None(reason), _) => Err(reason.clone()),
            (Way::Unknown, _) => Ok(Via::Unknown),
            (Way::By { .. }, Some((name, _))) => Ok(Via::Port(name.clone())),
            (Way::By { .. }, None) => Ok(Via::Elsewhere),
        }
    }

    fn port(&self, index: u32) -> Option<(&Arc<str>, &Interface)> {
        self.interfaces.iter().find(|(_, interface)| interface.index == Some(index))
    }

    fn may_be_a_port(&self, way: &Way) -> bool {
        *way == Way::Unknown && !self.interfaces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: u32 = 7;

    fn by(index: u32) -> Way {
        Way::By { index, is_local: false }
    }

    fn local() -> Way {
        Way::By { index: 1, is_local: true }
    }

    fn none() -> Way {
        Way::None("network unreachable".into())
    }

    fn ways(contact: Contact, lan: Interface) -> Ways {
        Ways { contact, interfaces: HashMap::from([("sl-lan".into(), lan)]) }
    }

    fn away() -> Contact {
        Contact::Away { since: Instant::now(), why: "no answer".into() }
    }

    fn in_order() -> Interface {
        Interface { index: Some(LAN), ..Interface::default() }
    }

    fn port() -> Via {
        Via::Port("sl-lan".into())
    }

    #[test]
    fn before_the_first_contact_only_this_host_is_asked() {
        let ways = Ways::default();
        assert_eq!(ways.admit(&Via::Unknown, &local()), Ok(Via::Elsewhere));
        for way in [by(2), none(), Way::Unknown] {
            let refused = ways.admit(&Via::Unknown, &way).unwrap_err();
            assert!(refused.contains("was not met yet"), "{way:?}: {refused}");
        }
    }

    #[test]
    fn while_the_data_plane_answers_the_kernels_route_counts() {
        let ways = ways(Contact::Answers(vec![]), in_order());
        assert_eq!(ways.admit(&Via::Unknown, &by(LAN)), Ok(port()));
        assert_eq!(ways.admit(&port(), &by(2)), Ok(Via::Elsewhere), "an operator moved the route");
        assert_eq!(ways.admit(&Via::Unknown, &local()), Ok(Via::Elsewhere));
        assert_eq!(ways.admit(&port(), &none()), Err("network unreachable".into()));
        assert_eq!(ways.admit(&Via::Unknown, &Way::Unknown), Ok(Via::Unknown));
    }

    #[test]
    fn while_the_data_plane_is_away_only_what_lies_past_it_is_asked() {
        // Its tap may be there (it hangs) or be gone with it, and the route lead elsewhere.
        for lan in [in_order(), Interface::default()] {
            let ways = ways(away(), lan.clone());
            let refused = Err("the data plane does not answer: no answer".to_owned());
            assert_eq!(ways.admit(&port(), &by(LAN)), refused);
            assert_eq!(ways.admit(&port(), &by(2)), refused, "by the default route");
            assert_eq!(ways.admit(&port(), &none()), refused);
            assert_eq!(ways.admit(&Via::Unknown, &Way::Unknown), refused);
            assert_eq!(ways.admit(&Via::Elsewhere, &by(2)), Ok(Via::Elsewhere));
            assert_eq!(ways.admit(&Via::Elsewhere, &local()), Ok(Via::Elsewhere));
        }
        let alone = Ways { interfaces: HashMap::new(), ..ways(away(), in_order()) };
        assert_eq!(alone.admit(&Via::Unknown, &Way::Unknown), Ok(Via::Unknown), "no such ports");
    }

    #[test]
    fn an_interface_that_is_not_in_order_is_our_own_fault() {
        let fault = || Some("interface sl-lan is down".to_owned());
        let refused = Err("interface sl-lan is down".to_owned());
        for index in [Some(LAN), None] {
            let lan = Interface { index, fault: fault(), link_fault: None };
            let ways = ways(Contact::Answers(vec![]), lan);
            assert_eq!(ways.admit(&port(), &by(2)), refused);
            assert_eq!(ways.admit(&port(), &none()), refused);
            assert_eq!(ways.admit(&Via::Elsewhere, &by(2)), Ok(Via::Elsewhere));
        }
        let lan = Interface { fault: fault(), ..in_order() };
        let ways = ways(Contact::Answers(vec![]), lan);
        assert_eq!(ways.admit(&Via::Unknown, &by(LAN)), refused);
    }

    #[test]
    fn by_a_port_without_a_link_nobody_is_asked() {
        let lan =
            Interface { link_fault: Some("the link of port lan is down".into()), ..in_order() };
        let mut ways = ways(Contact::Answers(vec![]), lan);
        ways.interfaces.insert("sl-wan".into(), Interface { index: Some(8), ..in_order() });
        let refused = Err("the link of port lan is down".to_owned());
        assert_eq!(ways.admit(&Via::Unknown, &by(LAN)), refused);
        assert_eq!(ways.admit(&port(), &none()), refused);
        let wan = Via::Port("sl-wan".into());
        assert_eq!(ways.admit(&wan, &by(8)), Ok(wan.clone()), "another port");
        assert_eq!(ways.admit(&Via::Elsewhere, &by(2)), Ok(Via::Elsewhere));
    }
}
