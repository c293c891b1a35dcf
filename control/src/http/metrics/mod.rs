//! `/metrics`: what Prometheus reads, with the words of the API: as OpenMetrics 1.0 where it is asked for
//! by `Accept`, else as text of version 0.0.4, which everything else reads.
//!
//! Everything is fetched once per scrape, and nothing is kept between two. Without the data plane
//! its own metrics are absent and `sluice_dataplane_up` is 0.

mod accept;
mod control;
mod dataplane;
mod output;

use std::fmt;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use sluice_api::stats::Stats;

use super::{App, HttpProblem};
use crate::world::World;

use accept::{plain, wants_open_metrics};
use dataplane::dataplane;
use output::Output;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answer a scrape.
pub async fn metrics(
    Shared(app): Shared<App>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let stats = app.dataplane.stats().await.ok();
    let scrape = Scrape { world: app.manager.world(), stats };
    let mut registry = Registry::with_prefix("sluice");
    registry.register_collector(Box::new(scrape));
    let mut body = String::new();
    text::encode(&mut body, &registry).map_err(|e| HttpProblem::Internal(e.to_string()))?;
    if wants_open_metrics(&headers) {
        Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response())
    } else {
        Ok(([(header::CONTENT_TYPE, PLAIN)], plain(&body)).into_response())
    }
}

/// All that one scrape shows.
#[derive(Debug)]
struct Scrape {
    world: Arc<World>,
    stats: Option<Stats>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut output = Output(encoder);
        self.control(&mut output)?;
        match &self.stats {
            Some(stats) => dataplane(&mut output, stats),
            None => Ok(()),
        }
    }
}
