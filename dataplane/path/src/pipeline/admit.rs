//! New conns: find the service, choose a backend, get a local port, remember it all.
//!
//! Enters: packets without a conn. Leaves: packets on their new conn's way, or the reason why there
//! is none; what is for one of the ports' own addresses goes to the kernel.
//!
//! In two passes, as a new conn touches lines that nobody has asked for yet: its own, and the index's
//! bucket for the return flow. The first pass decides everything that can be decided without them.

use std::sync::Arc;

use sluice_api::DropReason;

use super::choose::Chooser;
use super::forward::{Forward, begin_conn};
use super::plan::Plan;
use super::refuse::Refusals;
use super::resting::{self, Resets};
use super::shared::{Context, Shared};
use super::steer::Steer;
use super::{PipelineConfig, Sink};
use crate::burst::{BURST, Burst, Mask, Verdict};
use crate::frame::Frame;
use crate::snapshot::Compiled;
use crate::table::conn::half_open::HalfOpen;
use crate::table::conn::{ConnRef, InsertError, NewConn};
use crate::tally::WorkerView;
use crate::time::Millis;

/// What new conns are made by.
pub struct Admit {
    /// For each packet of a burst.
    pub(super) plans: Box<[Plan; BURST]>,
    pub(super) chooser: Chooser,
    pub(super) half_open: HalfOpen,
    pub(super) resets: Resets,
    refusals: Refusals,
}

impl Admit {
    /// For a worker that sees so much of the others.
    pub fn new(config: &PipelineConfig, view: Arc<WorkerView>, now: Millis) -> Self {
        Admit {
            plans: Box::new([Plan::LookAgain; BURST]),
            chooser: Chooser::new(config, view),
            half_open: HalfOpen::new(config.conns),
            resets: Resets::new(),
            refusals: Refusals::new(config.seed, now),
        }
    }

    /// What the worker sees of the others.
    pub fn view(&self) -> &WorkerView {
        self.chooser.view()
    }

    /// The second pass: make the conns that were planned, and forward their packets.
    // Never inlined: a stage is a symbol in profiles.
    #[inline(never)]
    pub fn admit<F: Frame>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        forward: &mut Forward,
        steer: &Steer,
        shared: &mut Shared,
        cx: Context,
    ) {
        burst.each(flows, |index, frame, meta| {
            let mut plan = self.plans[index];
            if let Plan::LookAgain = plan {
                meta.conn = shared.conns.find(meta.hash, &meta.tuple);
                if forward.forward_tracked(frame, meta, shared, cx) {
                    return;
                }
                plan = self.plan_late(frame, meta, shared, cx);
            }
            let made = match plan {
                Plan::Make(new) => self.make(&new, meta.hash, shared, cx),
                Plan::Refuse(verdict) => Err(verdict),
                Plan::LookAgain => unreachable!("a plan is made for each packet"),
            };
            match made {
                Ok(conn) => {
                    meta.conn = conn;
                    // While the frame tells where it came from.
                    if shared.conns.get(conn).is_full_nat() {
                        let Shared { conns, next_hops, counters, .. } = &mut *shared;
                        next_hops.greet(frame, meta, conns, counters, cx.now);
                    }
                    meta.begins_conn = true;
                    let fate = forward.forward_one(frame, meta, shared, cx.now);
                    self.resets.precede(frame, meta, &shared.conns);
                    begin_conn(meta, shared, cx.config, fate);
                }
                Err(Verdict::Drop(reason)) => {
                    meta.verdict = self.refusals.refuse(frame, meta, reason, steer, shared, cx);
                }
                Err(verdict) => meta.verdict = verdict,
            }
        });
    }

    /// Make a conn that was planned.
    #[inline(always)]
    fn make(
        &mut self,
        new: &NewConn,
        hash: u64,
        shared: &mut Shared,
        cx: Context,
    ) -> Result<ConnRef, Verdict> {
        match insert(new, hash, shared, cx) {
            Ok(conn) => {
                shared.next_hops.note(&mut shared.conns, conn, new);
                shared.counters.conns.add(1);
                if new.state.is_half_open() {
                    self.half_open.push(conn, new.service_slot);
                }
                Ok(conn)
            }
            Err(reason) => {
                shared.counters.backend(new.backend_slot).conns.subtract(1);
                shared.counters.service(new.service_slot).conns.subtract(1);
                Err(Verdict::Drop(reason))
            }
        }
    }

    /// Let the next burst find room, and send what is to go ahead of this one's SYNs.
    #[inline(always)]
    pub fn finish<F: Frame>(
        &mut self,
        forward: &mut Forward,
        shared: &mut Shared,
        config: &Compiled,
        sink: &mut impl Sink<F>,
    ) {
        resting::make_room(&mut forward.resting, shared, config);
        self.resets.send(&shared.counters, sink);
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> Vec<std::ops::Range<usize>> {
        let plans = std::slice::from_ref(&*self.plans);
        let mut all = vec![crate::testkit::range_of(plans), self.half_open.written()];
        all.push(self.resets.written());
        all.extend(self.chooser.written());
        all.extend(self.refusals.written());
        all
    }
}

/// Make a conn as it was planned, or with the next local port that is free towards its backend:
/// the index itself says. Where it cannot be made, its port is given back.
#[inline(always)]
fn insert(
    new: &NewConn,
    hash: u64,
    shared: &mut Shared,
    cx: Context,
) -> Result<ConnRef, DropReason> {
    match shared.conns.insert(new, hash, cx.now, &cx.config.timeouts) {
        Ok(conn) => Ok(conn),
        Err(error) => insert_elsewhere(*new, hash, error, shared, cx),
    }
}

#[cold]
#[inline(never)]
fn insert_elsewhere(
    mut new: NewConn,
    hash: u64,
    error: InsertError,
    shared: &mut Shared,
    cx: Context,
) -> Result<ConnRef, DropReason> {
    let Some(mut flow) = new.from_backend else { return Err(DropReason::ConnTableFull) };
    let Context { config, now } = cx;
    let Shared { conns, local_ports, .. } = shared;
    let spaces = &config.port_spaces;
    spaces.release(local_ports, &flow);
    let (InsertError::ReturnFlowTaken, Some((space, _))) = (error, spaces.of_flow(&flow)) else {
        return Err(DropReason::ConnTableFull);
    };
    let found = space.find(local_ports, |candidate| {
        flow = candidate;
        new.from_backend = Some(candidate);
        match conns.insert(&new, hash, now, &config.timeouts) {
            Err(InsertError::ReturnFlowTaken) => None,
            outcome => Some(outcome),
        }
    });
    match found {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(_)) => {
            spaces.release(local_ports, &flow);
            Err(DropReason::ConnTableFull)
        }
        Err(_) => Err(DropReason::LocalPortsExhausted),
    }
}
