//! Find the worker that owns a packet's conn, where the port cannot be trusted to have found it.
//!
//! Both directions of a conn must meet on one worker (design, invariant 2). From the client, the
//! flow's hash names the owner; from the backend, the local port does, as its owner chose it.

use super::Tables;
use crate::burst::{Burst, Mask, Verdict};
use crate::flow::FlowHasher;
use crate::snapshot::{Address, Compiled};

/// The stage: those of `flows` that are this worker's to forward.
pub fn steer<F>(burst: &mut Burst<F>, flows: Mask, t: &Tables, config: &Compiled) -> Mask {
    if t.workers == 1 {
        return flows;
    }
    burst.filter(flows, |_, meta| {
        let owner = match config.address_of_conns(meta.key().dst) {
            Some(Address::Local) => meta.key().dst_port % t.workers,
            Some(Address::Vip) => FlowHasher::owner(meta.hash, t.workers),
            // No conn: whoever got it can decide.
            _ => t.worker,
        };
        // A packet is handed over once: if the workers disagree, as they may for the moment in
        // which they adopt a snapshot, it is decided here.
        let is_ours = owner == t.worker || meta.handed_over;
        if !is_ours {
            meta.verdict = Verdict::HandOver { worker: owner };
        }
        is_ours
    })
}
