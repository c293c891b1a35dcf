//! Find the likely conn of each packet: match tags in the buckets that `parse` asked for, and ask for
//! the conns' lines.

use super::Tables;
use crate::burst::{Burst, Mask};

/// The stage.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn lookup<F>(burst: &mut Burst<F>, flows: Mask, t: &Tables) {
    burst.each_meta(flows, |meta| meta.conn = t.conns.candidate(meta.hash));
}
