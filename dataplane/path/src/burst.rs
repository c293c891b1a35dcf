//! A burst: the packets that go through the stages together, and what each stage knows of them.

use sluice_api::DropReason;
use sluice_wire::tcp::TcpFlags;

use crate::flow::{FlowKey, Tuple};
use crate::ids::InterfaceId;
use crate::table::conn::ConnRef;
pub use crate::verdict::Verdict;

/// Most packets of a burst.
pub const BURST: usize = 32;

/// Places from one packet to the one whose lines are asked for meanwhile.
const AHEAD: usize = 4;

/// What kind of packet it is, for the stages to share out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// TCP or UDP with its headers in their places: `tuple`, `hash`, `tcp_flags`, `ip_len` hold.
    Flow,
    /// ARP.
    Arp,
    /// ICMP with its header in its place.
    Icmp,
    /// IPv4 for a group or broadcast address that the host behind the port listens to.
    Group,
    /// IPv4 that only the kernel could take; when it is not for the kernel, this is why it dies.
    Other(DropReason),
}

/// What the stages know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What kind it is.
    pub class: Class,
    /// The interface it came in by.
    pub interface: InterfaceId,
    /// Whether another worker has received it and handed it over, or it has waited here.
    pub handed_over: bool,
    /// Whether a conn was made for it.
    pub begins_conn: bool,
    /// TCP flags; anything when it is not TCP.
    pub tcp_flags: TcpFlags,
    /// IP total length, in bytes.
    pub ip_len: u16,
    /// Its flow, as it stands in the packet.
    pub tuple: Tuple,
    /// Its flow's hash.
    pub hash: u64,
    /// Its conn.
    pub conn: ConnRef,
}

impl Meta {
    /// A packet of which only the interface is known.
    pub const fn received(interface: InterfaceId, handed_over: bool) -> Self {
        Meta {
            verdict: Verdict::Continue,
            class: Class::Other(DropReason::EtherTruncated),
            interface,
            handed_over,
            begins_conn: false,
            tcp_flags: TcpFlags::NONE,
            ip_len: 0,
            tuple: Tuple { addresses: 0, ports: 0, protocol: 0 },
            hash: 0,
            conn: ConnRef::NONE,
        }
    }

    /// Its flow, to decide by.
    #[inline]
    pub fn key(&self) -> FlowKey {
        FlowKey::from(&self.tuple)
    }
}

/// Some packets of a burst: bit `i` stands for packet `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(u32);

const _: () = assert!(BURST <= u32::BITS as usize, "a mask has a bit for each packet");

impl Mask {
    /// No packet.
    pub const NONE: Mask = Mask(0);

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first so many packets.
    #[inline(always)]
    pub const fn first(count: usize) -> Mask {
        Mask(((1u64 << count) - 1) as u32)
    }

    /// Take in the packet at this place.
    #[inline(always)]
    pub const fn insert(&mut self, index: usize) {
        self.0 |= 1 << (index % BURST);
    }

    /// Leave out the packet at this place.
    #[inline(always)]
    pub const fn remove(&mut self, index: usize) {
        self.0 &= !(1 << (index % BURST));
    }
}

/// Up to [`BURST`] packets with their meta data.
pub struct Burst<F> {
    frames: Vec<F>,
    metas: [Meta; BURST],
}

impl<F> Default for Burst<F> {
    fn default() -> Self {
        Burst {
            frames: Vec::with_capacity(BURST),
            metas: [Meta::received(InterfaceId(0), false); BURST],
        }
    }
}

impl<F> Burst<F> {
    /// Packets in the burst.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Where a queue puts its packets, at most [`BURST`]; follow with
    /// [`received`](Self::received).
    pub fn frames_mut(&mut self) -> &mut Vec<F> {
        &mut self.frames
    }

    /// Start over with what is in the buffer: `meta` tells what is known of each.
    #[inline(always)]
    pub fn received(&mut self, mut meta: impl FnMut(&F) -> Meta) {
        debug_assert!(self.frames.len() <= BURST, "queues give at most BURST packets");
        self.frames.truncate(BURST);
        for (frame, slot) in self.frames.iter().zip(&mut self.metas) {
            *slot = meta(frame);
        }
    }

    /// The port by which its packets came in, when there are any and not from another worker.
    #[inline(always)]
    pub fn received_from(&self) -> Option<InterfaceId> {
        let first = &self.metas[0];
        (!self.frames.is_empty() && !first.handed_over).then_some(first.interface)
    }

    /// All packets.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&mut F, &mut Meta)> {
        self.frames.iter_mut().zip(&mut self.metas)
    }

    /// Do something with each of some packets; those for which it says so are the result.
    #[inline(always)]
    pub fn filter(&mut self, which: Mask, f: impl FnMut(&mut F, &mut Meta) -> bool) -> Mask {
        self.filter_ahead(which, |_| {}, f)
    }

    /// The same; `ahead` is shown what is known of a packet a few places before its turn, to ask
    /// for what it will need.
    #[inline(always)]
    pub fn filter_ahead(
        &mut self,
        which: Mask,
        ahead: impl Fn(&Meta),
        mut f: impl FnMut(&mut F, &mut Meta) -> bool,
    ) -> Mask {
        let mut left = which.0;
        let mut result = 0;
        let (frames, metas) = (self.frames.as_mut_slice(), &mut self.metas);
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            let Some(frame) = frames.get_mut(index) else { break };
            ahead(&metas[(index + AHEAD) % BURST]);
            if f(frame, &mut metas[index % BURST]) {
                result |= left & left.wrapping_neg();
            }
            left &= left - 1;
        }
        Mask(result)
    }

    /// Do something with each of some packets, given its place.
    #[inline(always)]
    pub fn each(&mut self, which: Mask, mut f: impl FnMut(usize, &mut F, &mut Meta)) {
        let mut left = which.0;
        while left != 0 {
            let index = left.trailing_zeros() as usize % BURST;
            left &= left - 1;
            let Some(frame) = self.frames.get_mut(index) else { break };
            f(index, frame, &mut self.metas[index]);
        }
    }

    /// Do something with what is known of each of some packets.
    #[inline(always)]
    pub fn each_meta(&mut self, which: Mask, mut f: impl FnMut(&mut Meta)) {
        let mut left = which.0;
        while left != 0 {
            f(&mut self.metas[left.trailing_zeros() as usize % BURST]);
            left &= left - 1;
        }
    }

    /// The interface that all packets leave by, as those of a burst mostly do; `None` when they do not,
    /// or when there are none.
    #[inline(always)]
    pub fn common_interface(&self) -> Option<InterfaceId> {
        let metas = &self.metas[..self.frames.len().min(BURST)];
        let Verdict::Transmit { interface } = metas.first()?.verdict else { return None };
        metas
            .iter()
            .all(|meta| meta.verdict == Verdict::Transmit { interface })
            .then_some(interface)
    }

    /// Take all packets out, in order.
    #[inline(always)]
    pub fn drain(&mut self) -> impl Iterator<Item = (F, &Meta)> {
        self.frames.drain(..).zip(&self.metas)
    }
}
