//! Find the likely conn of each packet: match tags in the buckets that `parse` asked for, and ask for
//! the conns' lines.

use crate::burst::{Burst, Mask};
use crate::table::conn::ConnTable;

/// The stage.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn lookup<F>(burst: &mut Burst<F>, flows: Mask, conns: &ConnTable) {
    burst.each_meta(flows, |meta| meta.conn = conns.candidate(meta.hash));
}
