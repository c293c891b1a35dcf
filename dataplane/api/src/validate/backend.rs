//! The rules of backends, within their service and beside what the load balancer has itself.

use std::collections::HashSet;
use std::net::IpAddr;

use super::value::{check_host, check_port};
use crate::problems::{Problem, Problems};
use crate::snapshot::{Snapshot, SnapshotService};

/// Most backends in one service: the data plane's tables hold 16-bit indices, one of them "none".
pub const MAX_SERVICE_BACKENDS: usize = u16::MAX as usize;

/// Addresses of the load balancer itself, to which it cannot forward.
pub(super) struct OwnAddresses<'a> {
    vips: HashSet<IpAddr>,
    locals: HashSet<IpAddr>,
    ports: &'a [IpAddr],
}

impl<'a> OwnAddresses<'a> {
    pub(super) fn of(snapshot: &Snapshot, ports: &'a [IpAddr]) -> Self {
        OwnAddresses {
            vips: snapshot.services.iter().map(|s| s.vip).collect(),
            locals: snapshot.pools.iter().flat_map(|p| p.addresses.iter().copied()).collect(),
            ports,
        }
    }

    /// What a backend's address should be instead, when it is one of these.
    fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        if self.vips.contains(&address) {
            Some("an address that is not a VIP of this load balancer")
        } else if self.locals.contains(&address) {
            Some("an address that is in no pool of this load balancer")
        } else if self.ports.contains(&address) {
            Some("an address that no port of the data plane has")
        } else {
            None
        }
    }
}

/// Adds what is wrong with the backends of a service.
pub(super) fn check(
    problems: &mut Problems,
    path: &str,
    service: &SnapshotService,
    own: &OwnAddresses,
) {
    if service.backends.len() > MAX_SERVICE_BACKENDS {
        let value = format!("{} backends", service.backends.len());
        let expected = format!("at most {MAX_SERVICE_BACKENDS} in one service");
        problems.push(Problem::new(format!("{path}.backends"), value, expected));
    }
    let mut seen = HashSet::new();
    for backend in &service.backends {
        let id = backend.id();
        let path = format!("{path}.backends[{id}]");
        if !seen.insert(id) {
            problems.push(Problem::new(
                &path,
                "listed twice",
                "each address:port once in a service",
            ));
        }
        check_host(problems, &format!("{path}.address"), backend.address);
        if let Some(expected) = own.refusal(backend.address) {
            problems.push(Problem::new(format!("{path}.address"), backend.address, expected));
        }
        check_port(problems, &format!("{path}.port"), backend.port);
        if !service.mode.changes_port() && backend.port != service.port {
            let expected =
                format!("{}, as mode {} cannot change the L4 port", service.port, service.mode);
            problems.push(Problem::new(format!("{path}.port"), backend.port, expected));
        }
    }
}
