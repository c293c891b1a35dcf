//! The packet path of one worker: bursts in, verdicts out. No I/O, no clock, no allocation.
//!
//! It runs over real mbufs in the worker and over plain memory in tests, simulation and fuzzers.

mod admit;
mod arp;
mod choose;
mod dispatch;
mod egress;
mod exception;
#[cfg(test)]
mod expiry_tests;
mod forward;
mod half_open;
mod held;
mod icmp;
mod icmp_error;
#[cfg(test)]
mod layout;
mod life;
mod lookup;
mod message;
mod next_hop;
mod parse;
#[cfg(test)]
mod port_tests;
mod rate_limit;
mod refuse;
mod relate;
mod resting;
mod rewrite;
mod settings;
mod sink;
mod steer;
mod tables;
#[cfg(test)]
mod tests;
mod track;
mod upkeep;

use crate::burst::Burst;
use crate::frame::Frame;
use crate::snapshot::Compiled;
use crate::time::Millis;

use parse::Undecided;
use tables::Tables;

pub use held::{HELD, HELD_PER_NEIGHBOUR};
pub use message::{OUTBOX, ToMain};
pub use settings::{InterfaceInfo, PipelineConfig};
pub use sink::Sink;
pub use steer::{FIRST_PACKETS, MOST_MIS_STEERED_PERCENT, Steering, Trust, WINDOW_PACKETS};
pub use tables::Pipeline;
pub use upkeep::{EXPIRE_PER_LATE_ROUND, EXPIRE_PER_ROUND};

impl<F: Frame> Pipeline<F> {
    /// Give every packet of a burst its verdict, and hand all of them to `sink` or drop them. All
    /// come from one queue, or all from other workers.
    pub fn process(
        &mut self,
        burst: &mut Burst<F>,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let counters = &self.tables.counters;
        counters.rx_packets.add(burst.len() as u64);
        if let Some(interface) = burst.received_from() {
            counters.queue(interface.port()).rx_packets.add(burst.len() as u64);
        }
        self.run_stages(burst, config, now, sink, false);
    }

    #[inline(always)]
    fn run_stages(
        &mut self,
        burst: &mut Burst<F>,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
        have_waited: bool,
    ) {
        let t = &mut self.tables;
        let Undecided { flows, others } = parse::parse(burst, t, config);
        let flows = steer::steer(burst, flows, t, config);
        lookup::lookup(burst, flows, t);
        let flows = forward::forward(burst, flows, t, config, now, have_waited);
        if !others.is_empty() {
            arp::answer(burst, others, t, config, now);
            icmp::answer(burst, others, t, config, now);
            exception::decide(burst, others, t, config, now);
        }
        if !flows.is_empty() {
            let flows = steer::claim(burst, flows, t, config);
            admit::plan(burst, flows, t, config, now);
            admit::admit(burst, flows, t, config, now);
            resting::make_room(t, config);
            if !t.resets.is_empty() {
                self.send_resets(sink);
            }
        }
        self.tables.conns.end_burst();
        self.dispatch(burst, config, now, sink);
    }
}
