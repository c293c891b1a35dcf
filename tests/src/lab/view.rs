//! What Sluice tells about itself over its API, as the lab's users need it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sluice_api::stats::{ServiceStats, Stats};

use super::Lab;
use super::error::{LabError, Result};
use super::process::wait_until;

/// Something that happened, as `GET /events` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Grows by one with each event.
    pub seq: u64,
    /// A word for programs, as `backend-unhealthy`.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
}

#[derive(Deserialize)]
struct EventPage {
    events: Vec<Event>,
    last_seq: u64,
}

#[derive(Deserialize)]
struct ServiceList {
    services: Vec<Value>,
}

impl Lab {
    /// All services as the API shows them.
    pub fn services(&self) -> Result<Vec<Value>> {
        Ok(self.api.get::<ServiceList>("/api/v1/services")?.services)
    }

    /// The desired state of all services: without what was observed.
    pub fn desired_services(&self) -> Result<Vec<Value>> {
        let mut services = self.services()?;
        for service in &mut services {
            if let Some(fields) = service.as_object_mut() {
                fields.remove("observed");
            }
            let backends = service.get_mut("backends").and_then(Value::as_array_mut);
            for backend in backends.into_iter().flatten().filter_map(Value::as_object_mut) {
                backend.remove("observed");
            }
        }
        Ok(services)
    }

    /// Wait until every backend of every service is healthy.
    pub fn wait_healthy(&self, within: Duration) -> Result<()> {
        let mut ill = "nothing was learned".to_owned();
        let result = wait_until("all backends are healthy", within, || {
            let services = match self.services() {
                Ok(services) => services,
                Err(error) => {
                    ill = error.to_string();
                    return Ok(None);
                }
            };
            ill = unhealthy(&services).join(", ");
            Ok((ill.is_empty() && !services.is_empty()).then_some(()))
        });
        result.map_err(|error| match error {
            LabError::Timeout { what, within } => {
                LabError::Timeout { what: format!("{what} (missing: {ill})"), within }
            }
            other => other,
        })
    }

    /// All counters of the data plane.
    pub fn stats(&self) -> Result<Stats> {
        self.api.get("/api/v1/stats")
    }

    /// The ports of the data plane, each as `GET /ports` shows it.
    pub fn ports(&self) -> Result<Vec<Value>> {
        let ports: Value = self.api.get("/api/v1/ports")?;
        Ok(ports["ports"].as_array().cloned().unwrap_or_default())
    }

    /// The counters of a service.
    pub fn service_stats(&self, name: &str) -> Result<ServiceStats> {
        let services = self.stats()?.services;
        services
            .into_iter()
            .find(|service| service.name == name)
            .ok_or_else(|| LabError::Missing(format!("the statistics do not hold service {name}")))
    }

    /// Conns made per backend of a service, by the backend's address.
    pub fn conns_created(&self, service: &str) -> Result<BTreeMap<String, u64>> {
        let stats = self.service_stats(service)?;
        Ok(stats
            .backends
            .into_iter()
            .map(|backend| (backend.address.to_string(), backend.traffic.conns_created))
            .collect())
    }

    /// The sequence number of the last event.
    pub fn last_event(&self) -> Result<u64> {
        Ok(self.api.get::<EventPage>("/api/v1/events?limit=1")?.last_seq)
    }

    /// Events after the one with this sequence number, oldest first.
    pub fn events_since(&self, seq: u64) -> Result<Vec<Event>> {
        Ok(self.api.get::<EventPage>(&format!("/api/v1/events?since={seq}"))?.events)
    }
}

/// The backends that are not healthy, as `web 10.20.0.11 is unknown`.
fn unhealthy(services: &[Value]) -> Vec<String> {
    let mut ill = Vec::new();
    for service in services {
        let name = service["name"].as_str().unwrap_or("?");
        for backend in service["backends"].as_array().into_iter().flatten() {
            let health = backend["observed"]["health"].as_str().unwrap_or("?");
            if health != "healthy" {
                let address = backend["address"].as_str().unwrap_or("?");
                ill.push(format!("{name} {address} is {health}"));
            }
        }
    }
    ill
}
