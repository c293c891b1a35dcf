//! What becomes of a packet.

use sluice_api::DropReason;

use crate::ids::{InterfaceId, WorkerId};

/// What becomes of a packet: one name for every fate (design, invariant 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided: the next stage takes it.
    Continue,
    /// Out of this interface, as it is.
    Transmit {
        /// That interface.
        interface: InterfaceId,
    },
    /// It ends here.
    Drop(DropReason),
    /// To the worker that owns its conn.
    HandOver {
        /// That worker's number.
        worker: WorkerId,
    },
    /// To the kernel, through the exception port of this interface.
    Kernel {
        /// That interface.
        interface: InterfaceId,
    },
    /// Ready but for its next hop's MAC address: it waits.
    Hold,
}
