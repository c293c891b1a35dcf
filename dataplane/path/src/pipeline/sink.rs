//! Where packets go that leave the pipeline.

use crate::host_flows::KernelLane;
use crate::ids::{InterfaceId, WorkerId};

/// Takes the packets that leave the pipeline.
pub trait Sink<F> {
    /// Out of an interface.
    fn transmit(&mut self, interface: InterfaceId, frame: F);
    /// To another worker.
    fn hand_over(&mut self, worker: WorkerId, interface: InterfaceId, frame: F);
    /// To the kernel, by the exception port of an interface; on the way there it takes a place of its kind.
    fn to_kernel(&mut self, interface: InterfaceId, frame: F, lane: KernelLane);
    /// An empty frame for a packet of our own; none when there is none to spare.
    fn spare(&mut self) -> Option<F>;
    /// Out of an interface, a whole burst.
    #[inline]
    fn transmit_all(&mut self, interface: InterfaceId, frames: &mut Vec<F>) {
        for frame in frames.drain(..) {
            self.transmit(interface, frame);
        }
    }
    /// Nowhere: their reasons have been counted.
    #[inline]
    fn discard(&mut self, frames: &mut Vec<F>) {
        frames.clear();
    }
}
