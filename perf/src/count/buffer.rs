//! A packet buffer for counting: no bigger to move about than an mbuf's pointer and a length, its
//! bytes on lines of their own, and dropping it costs nothing. What it held is leaked: a scenario
//! is one short process.

use sluice_path::frame::{ChecksumStatus, Frame, NoRoom, TooShort};
use sluice_path::host_flows::KernelLane;
use sluice_path::ids::{InterfaceId, WorkerId};
use sluice_path::intrinsics::prefetch;
use sluice_path::pipeline::Sink;

const CAPACITY: usize = 256;

#[repr(align(64))]
struct Lines([u8; CAPACITY]);

/// The buffer.
pub struct Buffer {
    lines: &'static mut Lines,
    len: usize,
}

impl Buffer {
    /// Buffers that hold these packets, which are no longer than 256 bytes.
    pub fn all(packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<Buffer> {
        let hold = |bytes: Vec<u8>| {
            let mut lines = Box::new(Lines([0; CAPACITY]));
            lines.0[..bytes.len()].copy_from_slice(&bytes);
            Buffer { lines: Box::leak(lines), len: bytes.len() }
        };
        packets.into_iter().map(hold).collect()
    }
}

impl Frame for Buffer {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.lines.0[..self.len]
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.lines.0[..self.len]
    }

    fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        if len > CAPACITY {
            return Err(NoRoom);
        }
        self.len = len;
        Ok(())
    }

    /// It has no headroom.
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        if len == 0 { Ok(()) } else { Err(NoRoom) }
    }

    fn strip(&mut self, len: usize) -> Result<(), TooShort> {
        let left = self.len.checked_sub(len).ok_or(TooShort)?;
        self.lines.0.copy_within(len..self.len, 0);
        self.len = left;
        Ok(())
    }

    #[inline(always)]
    fn ip_checksum(&self) -> ChecksumStatus {
        ChecksumStatus::Good
    }

    #[inline]
    fn l4_checksum(&self) -> ChecksumStatus {
        ChecksumStatus::Good
    }

    #[inline(always)]
    fn prefetch(&self) {
        prefetch(self.lines);
    }
}

/// What left the pipeline.
pub struct Lane {
    /// To ports and the kernel.
    pub sent: Vec<Buffer>,
    /// To other workers: which one, and the port by which it came in.
    pub handed_over: Vec<(WorkerId, InterfaceId, Buffer)>,
}

impl Sink<Buffer> for Lane {
    #[inline(always)]
    fn transmit(&mut self, _interface: InterfaceId, frame: Buffer) {
        self.sent.push(frame);
    }
    fn hand_over(&mut self, worker: WorkerId, interface: InterfaceId, frame: Buffer) {
        self.handed_over.push((worker, interface, frame));
    }
    fn spare(&mut self) -> Option<Buffer> {
        Buffer::all([Vec::new()]).pop()
    }
    fn to_kernel(&mut self, _interface: InterfaceId, frame: Buffer, _lane: KernelLane) {
        self.sent.push(frame);
    }
    #[inline(always)]
    fn transmit_all(&mut self, _interface: InterfaceId, frames: &mut Vec<Buffer>) {
        self.sent.append(frames);
    }
}
