//! What the data plane tells of itself: who it is, what it has, what is around it.

use std::net::IpAddr;

use sluice_api::message::{Request, Response};
use sluice_api::stats::DataplaneStatus;

use super::{Session, SessionError};
use crate::actor::Actor;
use crate::derived::Surroundings;
use crate::events::{self, Event};
use crate::health::{Contact, PortInterface};
use crate::model::Environment;

impl Session<'_> {
    /// Is it the data plane that we knew?
    pub(super) fn recognise(&mut self, status: &DataplaneStatus) {
        let publisher = &mut *self.publisher;
        let events = publisher.manager.events();
        let (who, what) = (status.pid, &status.version);
        match publisher.boot_id {
            Some(known) if known == status.boot_id => {
                events.note("dataplane-connected", format!("the data plane (pid {who}) is back"));
            }
            Some(_) => events.note(
                "dataplane-restarted",
                format!("the data plane was restarted (version {what}, pid {who})"),
            ),
            None => events.note(
                "dataplane-connected",
                format!("connected to the data plane (version {what}, pid {who})"),
            ),
        }
        if publisher.boot_id != Some(status.boot_id) {
            publisher.boot_id = Some(status.boot_id);
            publisher.events_since = 0;
            // Another data plane may have other limits and addresses: let it judge anew.
            publisher.refused = None;
            publisher.wants_all = false;
            publisher.manager.forget_told_problems();
            publisher.update_link(|link| link.rejected.clear());
        }
    }

    /// Which backends it cannot send to, when that has changed.
    pub(super) async fn learn_unreachable(
        &mut self,
        status: &DataplaneStatus,
    ) -> Result<(), SessionError> {
        if self.unreachable_changes == Some(status.unreachable_changes) {
            return Ok(());
        }
        let Response::UnreachableBackends { backends } =
            self.ask(&Request::UnreachableBackends).await?
        else {
            return Err(SessionError::Confused("unreachable-backends"));
        };
        self.unreachable_changes = Some(status.unreachable_changes);
        let unreachable = backends.into_iter().map(|b| (b.address, b.next_hop)).collect();
        self.publisher.manager.set_surroundings(|around| around.unreachable = unreachable);
        Ok(())
    }

    pub(super) async fn merge_events(&mut self) -> Result<(), SessionError> {
        let since = self.publisher.events_since;
        let Response::Events { events } = self.ask(&Request::Events { since }).await? else {
            return Err(SessionError::Confused("events"));
        };
        for event in events.into_iter().filter(|e| e.seq > since) {
            self.publisher.events_since = self.publisher.events_since.max(event.seq);
            self.publisher.manager.events().push(Event {
                seq: 0,
                at_ms: event.at_ms,
                source: events::DATAPLANE,
                kind: event.kind,
                severity: event.severity,
                actor: Some(Actor::Dataplane),
                service: None,
                backend: None,
                message: event.message,
            });
        }
        Ok(())
    }

    pub(super) async fn status(&mut self) -> Result<DataplaneStatus, SessionError> {
        let Response::Status(status) = self.ask(&Request::Status).await? else {
            return Err(SessionError::Confused("status"));
        };
        self.publisher.manager.set_environment(environment(&status));
        let networks = Surroundings::networks_of(&status);
        self.publisher.manager.set_surroundings(|around| around.networks = networks);
        let doubt = status.doubt.map(|doubt| (doubt.began_ms, doubt.ended_ms));
        self.publisher.manager.doubt_silence(doubt);
        if self.has_met {
            self.publisher.manager.dataplane_is(Contact::Answers(exception_ports(&status)));
        }
        let latest = status.clone();
        self.publisher.update_link(|link| {
            link.connected = true;
            link.error = None;
            link.status = Some(latest);
        });
        Ok(status)
    }
}

/// The exception ports, as health checks go by them.
pub(super) fn exception_ports(status: &DataplaneStatus) -> Vec<PortInterface> {
    let ports = status.ports.iter().filter_map(|port| {
        let name = port.exception.as_deref()?.into();
        let addresses = port.addresses.iter().filter_map(|text| address_of(text)).collect();
        let (port, link_is_down) = (port.name.as_str().into(), !port.link_up);
        Some(PortInterface { name, addresses, port, link_is_down })
    });
    ports.collect()
}

/// The address of one with prefix length.
fn address_of(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// What requests are validated against from now on.
fn environment(status: &DataplaneStatus) -> Environment {
    Environment {
        limits: status.limits,
        port_addresses: status
            .ports
            .iter()
            .flat_map(|p| p.addresses.iter().filter_map(|text| address_of(text)))
            .collect(),
    }
}
