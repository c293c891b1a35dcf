//! What the pipeline needs of a packet buffer.
//!
//! Packet code is generic over [`Frame`]: real mbufs in production (`dpdk::Mbuf`), plain memory
//! ([`MemFrame`]) in tests, the simulation and the fuzzers. It never sees a port.

/// What a NIC said of one checksum of a received packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumStatus {
    /// It did not look: software must.
    #[default]
    Unknown,
    /// It looked, and the checksum is right.
    Good,
    /// It looked, and the checksum is wrong.
    Bad,
}

/// What a NIC is to have said of the checksums of a [`MemFrame`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxChecksums {
    /// IPv4 header checksum.
    pub ip: ChecksumStatus,
    /// TCP or UDP checksum.
    pub l4: ChecksumStatus,
}

/// There is not enough room in the buffer where the packet is to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room to grow the packet")]
pub struct NoRoom;

/// The packet is shorter than what is to be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is shorter than that")]
pub struct TooShort;

/// What the pipeline needs of a packet buffer: real mbufs in production, plain memory under tests.
pub trait Frame: Sized {
    /// The packet, from its Ethernet header on.
    fn bytes(&self) -> &[u8];

    /// The packet, from its Ethernet header on, to be rewritten.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Grow or shrink at the tail, to `len` bytes in all. New bytes are whatever was there before:
    /// the caller writes them.
    ///
    /// # Errors
    /// [`NoRoom`] when the buffer is shorter than that; the packet is unchanged.
    fn set_len(&mut self, len: usize) -> Result<(), NoRoom>;

    /// Grow at the front by `len` bytes, which are whatever was there before: the caller writes them.
    ///
    /// # Errors
    /// [`NoRoom`] when there is less headroom; the packet is unchanged.
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom>;

    /// Shrink at the front by `len` bytes, which become headroom.
    ///
    /// # Errors
    /// [`TooShort`] when the packet has fewer; it is unchanged.
    fn strip(&mut self, len: usize) -> Result<(), TooShort>;

    /// What the NIC said of the IPv4 header's checksum.
    fn ip_checksum(&self) -> ChecksumStatus;

    /// What the NIC said of the TCP or UDP checksum.
    fn l4_checksum(&self) -> ChecksumStatus;

    /// Whether the NIC has found both right, as it does with nearly all packets if it looks.
    #[inline(always)]
    fn checksums_are_good(&self) -> bool {
        self.ip_checksum() == ChecksumStatus::Good && self.l4_checksum() == ChecksumStatus::Good
    }

    /// Start loading the packet's first cache line. A hint: it may do nothing.
    fn prefetch(&self);
}

/// How many bytes a [`MemFrame`] can hold: those of an mbuf with DPDK's default data room.
pub const MEM_FRAME_CAPACITY: usize = 2048;

/// Room in front of the packet in a new [`MemFrame`], in bytes: as in an mbuf.
pub const MEM_FRAME_HEADROOM: usize = 128;

/// A packet in plain memory, for tests, the simulation and the fuzzers.
///
/// Equality compares the packet's bytes and checksum status, not what lies behind the tail.
#[derive(Clone, Debug)]
pub struct MemFrame {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
    rx_checksums: RxChecksums,
}

impl MemFrame {
    /// A frame holding a copy of `bytes`, with room to grow to [`MEM_FRAME_CAPACITY`], or to its
    /// own length when that is larger. The checksum status is unknown.
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        let (start, len) = (MEM_FRAME_HEADROOM, bytes.len());
        let mut buffer = vec![0; start + len.max(MEM_FRAME_CAPACITY)];
        buffer[start..start + len].copy_from_slice(bytes);
        Self { buffer, start, len, rx_checksums: RxChecksums::default() }
    }

    /// The same frame, as if a NIC had said this of its checksums.
    #[inline]
    #[must_use]
    pub fn with_rx_checksums(mut self, rx_checksums: RxChecksums) -> Self {
        self.rx_checksums = rx_checksums;
        self
    }

    /// The packet's bytes, without what lies behind the tail.
    #[inline]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.buffer.truncate(self.start + self.len);
        self.buffer.split_off(self.start)
    }
}

impl PartialEq for MemFrame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes() && self.rx_checksums == other.rx_checksums
    }
}

impl Eq for MemFrame {}

impl Frame for MemFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        if len > self.buffer.len() - self.start {
            return Err(NoRoom);
        }
        self.len = len;
        Ok(())
    }

    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(len).ok_or(NoRoom)?;
        self.len += len;
        Ok(())
    }

    fn strip(&mut self, len: usize) -> Result<(), TooShort> {
        self.len = self.len.checked_sub(len).ok_or(TooShort)?;
        self.start += len;
        Ok(())
    }

    #[inline]
    fn ip_checksum(&self) -> ChecksumStatus {
        self.rx_checksums.ip
    }

    #[inline]
    fn l4_checksum(&self) -> ChecksumStatus {
        self.rx_checksums.l4
    }

    #[inline]
    fn prefetch(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_shrinks_and_refuses() {
        let mut frame = MemFrame::new(&[1, 2, 3]);
        frame.set_len(5).unwrap();
        assert_eq!(frame.bytes(), [1, 2, 3, 0, 0]);
        frame.bytes_mut()[4] = 9;
        frame.set_len(2).unwrap();
        assert_eq!(frame.bytes(), [1, 2]);
        assert_eq!(frame.set_len(MEM_FRAME_CAPACITY + 1), Err(NoRoom));
        assert_eq!(frame.bytes(), [1, 2]);
        frame.set_len(MEM_FRAME_CAPACITY).unwrap();
        assert_eq!(frame.bytes()[4], 9, "bytes behind the tail are left as they were");
        frame.set_len(1).unwrap();
        assert_eq!(frame.into_bytes(), [1]);
    }

    #[test]
    fn grows_and_shrinks_in_front_and_refuses() {
        let mut frame = MemFrame::new(&[1, 2, 3]);
        frame.prepend(2).unwrap();
        frame.bytes_mut()[..2].copy_from_slice(&[8, 9]);
        assert_eq!(frame.bytes(), [8, 9, 1, 2, 3]);
        frame.strip(4).unwrap();
        assert_eq!(frame.bytes(), [3]);
        assert_eq!(frame.strip(2), Err(TooShort));
        frame.prepend(3).unwrap();
        assert_eq!(frame.bytes(), [9, 1, 2, 3], "what was stripped is still there");
        frame.strip(4).unwrap();
        assert!(frame.bytes().is_empty());
        // All headroom there is, and not a byte more.
        assert_eq!(frame.prepend(MEM_FRAME_HEADROOM + 4), Err(NoRoom));
        frame.prepend(MEM_FRAME_HEADROOM + 3).unwrap();
        assert_eq!(frame.prepend(1), Err(NoRoom));
        assert_eq!(frame.bytes().len(), MEM_FRAME_HEADROOM + 3);
        frame.set_len(MEM_FRAME_HEADROOM + MEM_FRAME_CAPACITY).unwrap();
        assert_eq!(frame.set_len(MEM_FRAME_HEADROOM + MEM_FRAME_CAPACITY + 1), Err(NoRoom));
    }

    #[test]
    fn equality_ignores_what_lies_behind_the_tail() {
        let mut longer = MemFrame::new(&[7, 8]);
        longer.set_len(1).unwrap();
        assert_eq!(longer, MemFrame::new(&[7]));
        let good = RxChecksums { ip: ChecksumStatus::Good, l4: ChecksumStatus::Unknown };
        assert_ne!(longer.with_rx_checksums(good), MemFrame::new(&[7]));
    }
}
