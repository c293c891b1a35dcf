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
mod plan;
#[cfg(test)]
mod port_tests;
mod rate_limit;
mod refuse;
mod relate;
mod resting;
mod rewrite;
mod settings;
mod shared;
mod sink;
mod steer;
#[cfg(test)]
mod tests;
mod track;
mod upkeep;
#[cfg(test)]
mod wide_tests;

use std::sync::Arc;

use crate::burst::Burst;
use crate::counters::WorkerCounters;
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::snapshot::Compiled;
use crate::table::conn::ConnTable;
use crate::table::route::RouteTable;
use crate::tally::WorkerView;
use crate::time::Millis;

use parse::Undecided;
use shared::{Context, Shared};

pub use held::{HELD, HELD_PER_NEIGHBOUR};
pub use message::{OUTBOX, ToMain};
pub use settings::{InterfaceInfo, PipelineConfig};
pub use sink::Sink;
pub use steer::{FIRST_PACKETS, MOST_MIS_STEERED_PERCENT, Steering, Trust, WINDOW_PACKETS};
pub use upkeep::{EXPIRE_PER_LATE_ROUND, EXPIRE_PER_ROUND};

/// The packet path of one worker: what the stages share, what each has of its own, and packets that
/// wait.
pub struct Pipeline<F> {
    shared: Shared,
    parse: parse::Parse,
    steer: steer::Steer,
    forward: forward::Forward,
    arp: arp::Arp,
    icmp: icmp::Icmp,
    exception: exception::Exception,
    admit: admit::Admit,
    dispatch: dispatch::Dispatch<F>,
    waiting: held::Waiting<F>,
    upkeep: upkeep::Upkeep,
}

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
        let counters = &self.shared.counters;
        counters.rx_packets.add(burst.len() as u64);
        if let Some(interface) = burst.received_from() {
            counters.queue(interface.port()).rx_packets.add(burst.len() as u64);
        }
        self.run_stages(burst, Context { config, now }, sink, false);
    }

    /// The path.
    #[inline(always)]
    fn run_stages(
        &mut self,
        burst: &mut Burst<F>,
        cx: Context,
        sink: &mut impl Sink<F>,
        have_waited: bool,
    ) {
        let Pipeline { shared, steer, forward, admit, .. } = self;
        let Undecided { flows, others } = self.parse.parse(burst, shared, cx.config);
        let flows = steer.steer(burst, flows, cx.config, &shared.counters);
        lookup::lookup(burst, flows, &shared.conns);
        let flows = forward.forward(burst, flows, shared, cx, have_waited);
        if !others.is_empty() {
            self.arp.answer(burst, others, &mut shared.next_hops, &shared.interfaces, cx);
            self.icmp.answer(burst, others, steer, shared, cx);
            self.exception.decide(burst, others, cx);
        }
        if !flows.is_empty() {
            let flows = steer.claim(burst, flows, cx.config, &shared.counters);
            admit.plan(burst, flows, shared, cx);
            admit.admit(burst, flows, forward, steer, shared, cx);
            admit.finish(forward, shared, cx.config, sink);
        }
        shared.conns.end_burst();
        self.dispatch.dispatch(burst, &mut self.waiting, shared, cx.now, sink);
        self.waiting.end(shared, cx.config);
    }

    /// Messages to the main thread since the last call.
    pub fn take_messages(&mut self) -> impl Iterator<Item = ToMain> {
        self.shared.next_hops.take_messages()
    }

    /// The conns, to look at.
    pub fn conns(&self) -> &ConnTable {
        &self.shared.conns
    }

    /// The conns, to make wide ones: no stage does that yet.
    pub fn conns_mut(&mut self) -> &mut ConnTable {
        &mut self.shared.conns
    }

    /// The flow in which the backend answers a client's flow, when that has a full-NAT conn.
    pub fn reply_flow(&self, from_client: &FlowKey) -> Option<FlowKey> {
        let conns = &self.shared.conns;
        let conn = conns.find_key(from_client);
        if conn.is_none() { None } else { conns.line(conn).from_backend() }
    }

    /// Reach next hops by these routes from now on. What is under way goes by them as well.
    #[inline(always)]
    pub fn go_by(&mut self, routes: &Arc<RouteTable>) {
        self.shared.next_hops.go_by(routes);
    }

    /// What this worker sees of the others.
    pub fn view(&self) -> &WorkerView {
        self.admit.view()
    }

    /// The counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.shared.counters
    }
}
