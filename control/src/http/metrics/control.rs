//! What control knows: the desired state, health, and how services fare.

use std::fmt;

use prometheus_client::metrics::MetricType;

use super::Scrape;
use super::output::Output;
use crate::derived::ServiceState;
use crate::observed::Health;

impl Scrape {
    pub(super) fn control(&self, output: &mut Output) -> fmt::Result {
        self.process(output)?;
        self.backends(output)?;
        self.services(output)
    }

    /// Control itself and its way to the data plane.
    fn process(&self, output: &mut Output) -> fmt::Result {
        let ready = self.link.unready().is_none();
        let up = self.link.connected && self.stats.is_some();
        output.gauge("ready", "Whether changes reach packets", ready.into())?;
        output.gauge("dataplane_up", "Whether the data plane answers", up.into())?;
        output.gauge("state_version", "Version of the desired state", self.state.version)?;
        let lost = sluice_log::lost_lines();
        output.counter("log_lines_lost", "Lines of control's log that nobody took", lost)?;
        output.gauge(
            "state_write_failing",
            "Whether the last write of the state file failed",
            self.writes.failing.is_some().into(),
        )?;
        output.counter(
            "state_write_failures",
            "Writes of the state file that failed",
            self.writes.failures,
        )?;
        output.gauge(
            "generation_published",
            "Generation of the last snapshot published",
            self.link.published,
        )?;
        if let Some(status) = &self.link.status {
            output.gauge(
                "generation_applied",
                "Generation of the snapshot that all workers forward by",
                status.workers_generation,
            )?;
        }
        Ok(())
    }

    fn backends(&self, output: &mut Output) -> fmt::Result {
        let ids: Vec<Vec<String>> = self
            .state
            .services
            .iter()
            .map(|s| s.backends.iter().map(|b| b.id().to_string()).collect())
            .collect();
        let backends = || {
            let services = self.state.services.iter().zip(&ids).zip(&self.health);
            services.flat_map(|((service, ids), health)| {
                service.backends.iter().zip(ids).zip(health).map(|((backend, id), observed)| {
                    let labels = vec![("service", service.name.as_str()), ("backend", id.as_str())];
                    (labels, backend, observed)
                })
            })
        };
        output.family(
            MetricType::Gauge,
            "backend_weight",
            "Configured weight",
            backends().map(|(labels, backend, _)| (labels, backend.weight.into())),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_max_conns",
            "Most conns it may have; absent without a limit",
            backends()
                .filter_map(|(labels, backend, _)| Some((labels, backend.max_conns?.get().into()))),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_healthy",
            "1 when its checks pass, 0 when they fail or none has passed yet; absent when unchecked",
            backends()
                .filter(|(_, _, observed)| observed.health != Health::Unchecked)
                .map(|(labels, _, o)| (labels, (o.health == Health::Healthy).into())),
        )?;
        let takes = self.takes.iter().flatten();
        output.family(
            MetricType::Gauge,
            "backend_takes_new_conns",
            "1 when new conns may be given to it, 0 when not",
            backends().zip(takes).map(|((labels, ..), takes)| (labels, u64::from(*takes))),
        )
    }

    fn services(&self, output: &mut Output) -> fmt::Result {
        output.family(
            MetricType::Gauge,
            "service_max_conns",
            "Most conns it may have; absent without a limit",
            self.state.services.iter().filter_map(|service| {
                let labels = vec![("service", service.name.as_str())];
                Some((labels, service.max_conns?.get().into()))
            }),
        )?;
        output.family(
            MetricType::Gauge,
            "service_state",
            "1 for the state that it is in, 0 for the others",
            self.state.services.iter().zip(&self.fares).flat_map(|(service, fares)| {
                ServiceState::ALL.map(|state| {
                    let labels = vec![("service", service.name.as_str()), ("state", state.word())];
                    (labels, u64::from(state == *fares))
                })
            }),
        )
    }
}
