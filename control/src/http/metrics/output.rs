//! Metrics as they are written: families of samples.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_api::stats::Traffic;

/// A value: a number of things, or a time.
#[derive(Clone, Copy)]
pub(super) enum Sample {
    Count(u64),
    Seconds(f64),
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// The metrics of one scrape as they are written.
pub(super) struct Output<'a>(pub DescriptorEncoder<'a>);

impl Output<'_> {
    /// One metric with a count per set of labels; nothing when there is none.
    pub fn family<'v>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, u64)>,
    ) -> fmt::Result {
        let counts = values.into_iter().map(|(labels, count)| (labels, Sample::Count(count)));
        self.samples(kind, name, help, counts)
    }

    /// One metric with a value per set of labels; nothing when there is none.
    pub fn samples<'v>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, Sample)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            let labels: Labels = &labels;
            one(kind, value, family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(MetricType::Gauge, name, help, value)
    }

    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(MetricType::Counter, name, help, value)
    }

    /// One metric with one value and no labels.
    fn single(&mut self, kind: MetricType, name: &str, help: &str, value: u64) -> fmt::Result {
        one(kind, Sample::Count(value), self.0.encode_descriptor(name, help, None, kind)?)
    }

    /// Traffic of many services or backends, metric by metric as the format wants it.
    pub fn traffic<'v>(
        &mut self,
        of: &str,
        all: &[(Vec<(&'v str, &'v str)>, Traffic)],
    ) -> fmt::Result {
        let directed = |pick: fn(&Traffic) -> (u64, u64)| {
            all.iter().flat_map(move |(labels, traffic)| {
                let (inward, outward) = pick(traffic);
                [("in", inward), ("out", outward)].map(|(direction, value)| {
                    let mut labels = labels.clone();
                    labels.push(("direction", direction));
                    (labels, value)
                })
            })
        };
        let plain = |pick: fn(&Traffic) -> u64| {
            all.iter().map(move |(labels, traffic)| (labels.clone(), pick(traffic)))
        };
        self.family(
            MetricType::Counter,
            &format!("{of}_packets"),
            "Packets from clients (in) and towards them (out)",
            directed(|t| (t.packets_in, t.packets_out)),
        )?;
        self.family(
            MetricType::Counter,
            &format!("{of}_bytes"),
            "IP bytes from clients (in) and towards them (out)",
            directed(|t| (t.bytes_in, t.bytes_out)),
        )?;
        self.family(
            MetricType::Counter,
            &format!("{of}_conns_created"),
            "Conns made",
            plain(|t| t.conns_created),
        )?;
        self.family(MetricType::Gauge, &format!("{of}_conns"), "Conns now", plain(|t| t.conns))
    }
}

fn one(kind: MetricType, value: Sample, encoder: MetricEncoder) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Sample::Count(count)) => ConstCounter::new(count).encode(encoder),
        (MetricType::Counter, Sample::Seconds(time)) => ConstCounter::new(time).encode(encoder),
        (_, Sample::Count(count)) => {
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(encoder)
        }
        (_, Sample::Seconds(time)) => ConstGauge::new(time).encode(encoder),
    }
}
