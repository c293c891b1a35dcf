//! What control knows: the desired state, health, and how services fare.

use std::fmt;

use prometheus_client::metrics::MetricType;
use sluice_api::{Backend, Service};

use super::Scrape;
use super::output::Output;
use crate::compose;
use crate::derived::ServiceState;
use crate::observed::Health;
use crate::world::World;

impl Scrape {
    pub(super) fn control(&self, output: &mut Output) -> fmt::Result {
        self.process(output)?;
        self.backends(output)?;
        self.services(output)
    }

    /// Control itself and its way to the data plane.
    fn process(&self, output: &mut Output) -> fmt::Result {
        let World { link, writes, state, .. } = &*self.world;
        let ready = link.unready().is_none();
        let up = link.connected && self.stats.is_some();
        output.gauge("ready", "Whether changes reach packets", ready.into())?;
        output.gauge("dataplane_up", "Whether the data plane answers", up.into())?;
        output.gauge("state_version", "Version of the desired state", state.version)?;
        let lost = sluice_log::lost_lines();
        output.counter("log_lines_lost", "Lines of control's log that nobody took", lost)?;
        output.gauge(
            "state_write_failing",
            "Whether the last write of the database failed",
            writes.failing.is_some().into(),
        )?;
        output.counter(
            "state_write_failures",
            "Writes of the database that failed",
            writes.failures,
        )?;
        output.gauge(
            "generation_published",
            "Generation of the last snapshot published",
            link.published,
        )?;
        if let Some(status) = &link.status {
            output.gauge(
                "generation_applied",
                "Generation of the snapshot that all workers forward by",
                status.workers_generation,
            )?;
        }
        Ok(())
    }

    fn backends(&self, output: &mut Output) -> fmt::Result {
        let world = &*self.world;
        let named = world.state.services.iter().flat_map(|service| {
            service.backends.iter().map(move |backend| (service, backend, backend.id().to_string()))
        });
        let named: Vec<(&Service, &Backend, String)> = named.collect();
        let backends = || {
            named.iter().map(|(service, backend, id)| {
                let labels = vec![("service", service.name.as_str()), ("backend", id.as_str())];
                (labels, *service, *backend)
            })
        };
        output.family(
            MetricType::Gauge,
            "backend_weight",
            "Configured weight",
            backends().map(|(labels, _, backend)| (labels, backend.weight.into())),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_max_conns",
            "Most conns it may have; absent without a limit",
            backends()
                .filter_map(|(labels, _, backend)| Some((labels, backend.max_conns?.get().into()))),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_healthy",
            "1 when its checks pass, 0 when they fail or none has passed yet; absent when unchecked",
            backends().filter_map(|(labels, service, backend)| {
                let health = world.observed.health(service, backend);
                (health != Health::Unchecked).then(|| (labels, (health == Health::Healthy).into()))
            }),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_takes_new_conns",
            "1 when new conns may be given to it, 0 when not",
            backends().map(|(labels, service, backend)| {
                let taking = compose::taking(world, service, backend);
                (labels, taking.takes_new_conns.into())
            }),
        )
    }

    fn services(&self, output: &mut Output) -> fmt::Result {
        output.family(
            MetricType::Gauge,
            "service_max_conns",
            "Most conns it may have; absent without a limit",
            self.world.state.services.iter().filter_map(|service| {
                let labels = vec![("service", service.name.as_str())];
                Some((labels, service.max_conns?.get().into()))
            }),
        )?;
        output.family(
            MetricType::Gauge,
            "service_state",
            "1 for the state that it is in, 0 for the others",
            compose::services(&self.world).flat_map(|(service, derived)| {
                ServiceState::ALL.map(|state| {
                    let labels = vec![("service", service.name.as_str()), ("state", state.word())];
                    (labels, u64::from(state == derived.state))
                })
            }),
        )
    }
}
