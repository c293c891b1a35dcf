//! Rewrite packets for their next hop: TTL in every mode, and what else their conn's treatment does,
//! each in a file.

mod dr;
mod full_nat;

use crate::burst::Meta;
use crate::table::conn::Conn;
use crate::treatment::Treatment;

/// Rewrite the headers of a packet that may take another hop.
#[inline(always)]
pub fn rewrite_headers(frame: &mut [u8], meta: &Meta, conn: &Conn) {
    match conn.treatment() {
        Treatment::FullNat => full_nat::rewrite(frame, meta, conn),
        Treatment::Dr => dr::rewrite(frame),
    }
}
