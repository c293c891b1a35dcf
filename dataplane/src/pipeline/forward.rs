//! Packets that have a conn: state, next hop, rewrite, egress, one packet at a time. By now every
//! line they need is on its way into the cache.

use super::{Tables, conn, egress, next_hop, rewrite};
use crate::burst::{Burst, Meta, Verdict};
use crate::frame::Frame;
use crate::snapshot::Compiled;
use crate::table::wheel::Millis;

/// The stage. Packets without a conn are left undecided, with `ConnRef::NONE`; how many.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn forward<F: Frame>(
    burst: &mut Burst<F>,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) -> usize {
    let mut without = 0;
    for (frame, meta) in burst.live_flows() {
        if conn::track(meta, t, config, now) {
            meta.verdict = forward_one(frame, meta, t, now);
        } else {
            without += 1;
        }
    }
    without
}

/// Send a packet on its conn's way.
#[inline(always)]
pub fn forward_one<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, now: Millis) -> Verdict {
    let slot = match next_hop::resolve(meta, t, now) {
        Ok(slot) => slot,
        Err(reason) => return Verdict::Drop(reason),
    };
    match rewrite::rewrite(frame, meta, t, slot, now) {
        Verdict::Continue => egress::egress(frame, t, slot, now),
        verdict => verdict,
    }
}
