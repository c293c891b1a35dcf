//! Flows of the host itself, as the main thread sees it send them, and as workers ask: is this packet
//! for the host an answer, or has nobody asked for it?
//!
//! The main thread writes, workers read, on the way to the kernel only. It may forget flows, and very
//! rarely knows one that was never there: it decides about whose turn it is, not about what is right.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use sluice_wire::headers::Ipv4Frame;
use sluice_wire::ipv4::{PROTO_TCP, PROTO_UDP};
use sluice_wire::tcp::TcpFlags;

use crate::flow::{FlowHasher, FlowKey, Tuple};

/// Flows side by side that may stand in for each other: 16 bytes.
const WAYS: usize = 4;
/// Sets of them: 256 KiB in all. Health checks of 4,096 backends at a time fill a sixteenth.
const SETS: usize = 1 << 14;
/// How long a flow on which the host sends nothing is known, in units of 1,024 ms: about 5 minutes.
/// A BGP session speaks every 60 s.
const KNOWN_TICKS: u16 = 300;

/// The flows, each by 15 bits of its hash, a bit that is always set, and when the host last sent, in
/// 1,024 ms (modulo 2^16, 18 hours).
pub struct HostFlows {
    hasher: FlowHasher,
    sets: Box<[[AtomicU32; WAYS]]>,
}

/// Whose turn it is on the way to the kernel: each kind has room of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KernelLane {
    /// ARP, and what is sent to groups (OSPF, VRRP), which has a rate of its own.
    Neighbours,
    /// TCP and UDP of flows on which the host has sent.
    Answers,
    /// All else: new connections to the host, datagrams that it has not asked for.
    Unsolicited,
}

impl KernelLane {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// Packets that wait in all of them together, per worker.
    pub const ALL_SIZES: u32 =
        Self::Neighbours.size() + Self::Answers.size() + Self::Unsolicited.size();

    /// Packets that may wait in it, per worker.
    pub const fn size(self) -> u32 {
        match self {
            KernelLane::Answers => 1_024,
            KernelLane::Neighbours | KernelLane::Unsolicited => 256,
        }
    }
}

impl HostFlows {
    /// None yet; flows are hashed with the seed that the workers' are.
    pub fn new(seed: u64) -> Self {
        let sets = (0..SETS).map(|_| Default::default()).collect();
        HostFlows { hasher: FlowHasher::new(seed), sets }
    }

    fn set_and_tag(&self, hash: u64) -> (&[AtomicU32; WAYS], u32) {
        let tag = (hash >> 48) as u32 | 1;
        (&self.sets[hash as usize % SETS], tag)
    }

    /// The host sends a frame. What opens a TCP connection or belongs to one, or is UDP, makes its
    /// flow known. A SYN-ACK or a RST does not: whoever sends a SYN gets one of them.
    pub fn note_sent(&self, frame: &[u8], now_ms: u64) {
        let Ok(view) = Ipv4Frame::parse(frame) else { return };
        let is_known_kind = match view.ip.protocol {
            PROTO_UDP => true,
            PROTO_TCP => {
                let Some(flags) = frame.get(TCP_FLAGS_AT).map(|bits| TcpFlags(*bits)) else {
                    return;
                };
                !flags.contains(TcpFlags::RST) && !flags.contains(TcpFlags::SYN | TcpFlags::ACK)
            }
            _ => false,
        };
        if !is_known_kind || view.ip.has_options() || view.ip.is_fragment() {
            return;
        }
        self.note(self.hasher.hash(&Tuple::from(&FlowKey::from(view)).reversed()), now_ms);
    }

    fn note(&self, hash: u64, now_ms: u64) {
        let (set, tag) = self.set_and_tag(hash);
        let now = ticks(now_ms);
        let age = |entry: u32| match entry {
            0 => u16::MAX,
            entry => now.wrapping_sub(entry as u16),
        };
        // Its own place, or else that of the one which has been quiet for longest.
        let own = set.iter().find(|entry| entry.load(Relaxed) >> 16 == tag);
        let place = own.or_else(|| set.iter().max_by_key(|entry| age(entry.load(Relaxed))));
        if let Some(place) = place {
            place.store(tag << 16 | u32::from(now), Relaxed);
        }
    }

    /// Whether the host has sent lately on the flow with this hash, which is that of packets to it.
    pub fn knows(&self, hash: u64, now_ms: u64) -> bool {
        let (set, tag) = self.set_and_tag(hash);
        let now = ticks(now_ms);
        set.iter().any(|entry| {
            let entry = entry.load(Relaxed);
            entry >> 16 == tag && now.wrapping_sub(entry as u16) <= KNOWN_TICKS
        })
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }
}

/// Where the flags of a TCP header behind an IPv4 header without options stand in a frame.
const TCP_FLAGS_AT: usize = 14 + 20 + 13;

/// A time in 1,024 ms: the same bits of a clock of 32 bits and of one of 64.
fn ticks(now_ms: u64) -> u16 {
    (now_ms >> 10) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{self, PORT_MACS, Random};
    use sluice_api::Protocol;

    const HOST: [u8; 4] = [10, 0, 0, 1];
    const PEER: [u8; 4] = [10, 0, 1, 1];

    fn sent(protocol: Protocol, port: u16, flags: TcpFlags) -> Vec<u8> {
        let key = testkit::flow(protocol, (HOST.into(), port), (PEER.into(), 80));
        testkit::packet(PORT_MACS[1], &key, flags, b"")
    }

    fn answers(flows: &HostFlows, protocol: Protocol, port: u16, now_ms: u64) -> bool {
        let key = testkit::flow(protocol, (PEER.into(), 80), (HOST.into(), port));
        flows.knows(flows.hasher.hash(&Tuple::from(&key)), now_ms)
    }

    #[test]
    fn answers_are_told_from_what_nobody_asked_for() {
        let flows = HostFlows::new(7);
        let tcp = Protocol::Tcp;
        let cases = [
            (Protocol::Udp, TcpFlags::NONE, true),
            (tcp, TcpFlags::SYN, true),
            (tcp, TcpFlags::ACK, true),
            (tcp, TcpFlags::FIN | TcpFlags::ACK, true),
            (tcp, TcpFlags::SYN | TcpFlags::ACK, false),
            (tcp, TcpFlags::RST, false),
            (tcp, TcpFlags::RST | TcpFlags::ACK, false),
        ];
        for (port, (protocol, flags, known)) in (5_000..).zip(cases) {
            assert!(!answers(&flows, protocol, port, 1_000));
            flows.note_sent(&sent(protocol, port, flags), 1_000);
            assert_eq!(answers(&flows, protocol, port, 1_000), known, "{flags:?}");
            assert!(!answers(&flows, protocol, port + 1_000, 1_000), "another port");
        }
        // Lies about lengths, and what is no IPv4.
        let whole = sent(tcp, 9, TcpFlags::SYN);
        (0..whole.len()).for_each(|len| flows.note_sent(&whole[..len], 1_000));
    }

    #[test]
    fn a_flow_is_known_for_five_minutes_at_any_time_of_the_clock() {
        for start in [0, 1_000, 65_536 * 1_024 - 500, u64::from(u32::MAX) - 1_000] {
            let flows = HostFlows::new(7);
            assert!(!answers(&flows, Protocol::Tcp, 5, start), "an empty table at {start}");
            flows.note_sent(&sent(Protocol::Tcp, 5, TcpFlags::SYN), start);
            for (after, known) in [(0, true), (300_000, true), (310_000, false), (600_000, false)] {
                // Workers have 32 bits of the time.
                let now = u64::from((start + after) as u32);
                assert_eq!(answers(&flows, Protocol::Tcp, 5, now), known, "{start} + {after}");
            }
        }
    }

    #[test]
    fn many_flows_find_room_and_the_quiet_ones_go() {
        let flows = HostFlows::new(7);
        let mut random = Random(1);
        let old: Vec<u64> = (0..4_096).map(|_| random.next_u64()).collect();
        old.iter().for_each(|hash| flows.note(*hash, 1_000_000));
        let kept = old.iter().filter(|hash| flows.knows(**hash, 1_000_000)).count();
        assert!(kept >= 4_090, "{kept} of 4,096 at a time");
        // Ten times as many as there is room for: the newest are known.
        (0..655_360).for_each(|_| flows.note(random.next_u64(), 1_010_000));
        let new: Vec<u64> = (0..1_024).map(|_| random.next_u64()).collect();
        new.iter().for_each(|hash| flows.note(*hash, 1_020_000));
        assert!(new.iter().filter(|hash| flows.knows(**hash, 1_020_000)).count() >= 1_023);
        // What was never there is hardly ever taken for known, even of a full table.
        let strangers = (0..100_000).filter(|_| flows.knows(random.next_u64(), 1_020_000)).count();
        assert!(strangers < 60, "{strangers} of 100,000");
    }
}
