//! Load on all three services at once.

use std::time::Duration;

use crate::lab::Lab;
use crate::lab::error::Result;
use crate::lab::load::{Kind, Load, Outcome};

/// The services and what each is asked for.
pub const SERVICES: [(&str, Kind); 3] =
    [("web", Kind::Page), ("web-dr", Kind::Page), ("echo", Kind::Udp)];

/// Load on `web`, `web-dr` and `echo`.
pub struct AllServices {
    loads: Vec<(&'static str, Load)>,
}

impl AllServices {
    /// Start `rate` requests per second to each service, that fail after `timeout_ms`.
    pub fn start(lab: &mut Lab, rate: u32, timeout_ms: u64) -> Result<Self> {
        let start = |(service, kind)| {
            let mut spec = lab.load_spec(service, kind);
            (spec.rate, spec.concurrency, spec.timeout_ms) = (Some(rate), 2_000, timeout_ms);
            Ok((service, lab.start_load(&spec)?))
        };
        Ok(AllServices { loads: SERVICES.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// End the load; what became of it, by service.
    pub fn stop(self) -> Result<Vec<(&'static str, Outcome)>> {
        self.loads
            .into_iter()
            .map(|(service, load)| Ok((service, load.stop(Duration::from_secs(15))?)))
            .collect()
    }
}
