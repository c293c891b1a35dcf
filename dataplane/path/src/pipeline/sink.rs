//! Where packets go that leave the pipeline.

use crate::host_flows::KernelLane;
use crate::ids::WorkerId;

/// Takes the packets that leave the pipeline.
pub trait Sink<F> {
    /// Out of a port.
    fn transmit(&mut self, port: u16, frame: F);
    /// To another worker.
    fn hand_over(&mut self, worker: WorkerId, in_port: u16, frame: F);
    /// To the kernel, by the exception port of a port; on the way there it takes a place of its kind.
    fn to_kernel(&mut self, port: u16, frame: F, lane: KernelLane);
    /// A buffer for a packet of our own; none when there is none to spare.
    #[inline]
    fn spare(&mut self) -> Option<F> {
        None
    }
    /// Out of a port, a whole burst.
    #[inline]
    fn transmit_all(&mut self, port: u16, frames: &mut Vec<F>) {
        for frame in frames.drain(..) {
            self.transmit(port, frame);
        }
    }
    /// Nowhere: their reasons have been counted.
    #[inline]
    fn discard(&mut self, frames: &mut Vec<F>) {
        frames.clear();
    }
}
