//! What one port has to say, and how fast it may.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use crate::config::InterfaceAddress;
use sluice_path::ids::InterfaceId;

/// Frames per second of each port for what is new, defended or probed for: 10,000 addresses, which are
/// 40,000 frames, within 7 s.
const FIRST_RATE: Rate = Rate { per_second: 6_000, at_once: 64 };
/// Of each port, for what is repeated: 60,000 addresses are announced anew within 60 s.
const AGAIN_RATE: Rate = Rate { per_second: 1_000, at_once: 64 };

/// A frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpFrame {
    /// The interface that it leaves by.
    pub interface: InterfaceId,
    /// The address that it is about.
    pub address: Ipv4Addr,
    /// What it says.
    pub says: Says,
}

/// What a frame says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It is ours.
    Announcement,
    /// Is it anybody's?
    Probe,
}

/// How often.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: u64,
    /// After a quiet time.
    at_once: u64,
}

/// What a rate leaves.
#[derive(Debug)]
struct Tokens {
    rate: Rate,
    count: u64,
    filled_ms: u64,
}

impl Tokens {
    fn new(rate: Rate, now_ms: u64) -> Self {
        Tokens { rate, count: rate.at_once, filled_ms: now_ms }
    }

    fn take(&mut self, now_ms: u64) -> bool {
        // Whole tokens only, so that what is less is not lost.
        let fresh = now_ms.saturating_sub(self.filled_ms) * self.rate.per_second / 1_000;
        if fresh > 0 {
            self.filled_ms = now_ms;
            self.count = (self.count + fresh).min(self.rate.at_once);
        }
        let has_one = self.count > 0;
        self.count -= u64::from(has_one);
        has_one
    }
}

/// A port, as far as it says something.
#[derive(Debug)]
pub struct Voice {
    /// Its own addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// Whether anything leaves.
    pub link_up: bool,
    /// To be sent as soon as the rate allows, before what has its turn.
    pub urgent: VecDeque<ArpFrame>,
    /// Addresses with announcements at short distance, and all others, by their time.
    firsts: BTreeSet<(u64, Ipv4Addr)>,
    agains: BTreeSet<(u64, Ipv4Addr)>,
    first_tokens: Tokens,
    again_tokens: Tokens,
}

impl Voice {
    /// Of a port with these addresses.
    pub fn new(addresses: Vec<InterfaceAddress>, link_up: bool, now_ms: u64) -> Self {
        Voice {
            addresses,
            link_up,
            urgent: VecDeque::new(),
            firsts: BTreeSet::new(),
            agains: BTreeSet::new(),
            first_tokens: Tokens::new(FIRST_RATE, now_ms),
            again_tokens: Tokens::new(AGAIN_RATE, now_ms),
        }
    }

    /// Where an address stands that has so many announcements left at short distance.
    pub fn turns(&mut self, firsts: u8) -> &mut BTreeSet<(u64, Ipv4Addr)> {
        if firsts > 0 { &mut self.firsts } else { &mut self.agains }
    }

    /// What is urgent, if the rate allows it.
    pub fn next_urgent(&mut self, now_ms: u64) -> Option<ArpFrame> {
        self.first_tokens.take(now_ms).then(|| self.urgent.pop_front()).flatten()
    }

    /// The address whose turn it is, if the rate allows it.
    pub fn next(&mut self, now_ms: u64) -> Option<Ipv4Addr> {
        let lanes = [
            (&mut self.firsts, &mut self.first_tokens),
            (&mut self.agains, &mut self.again_tokens),
        ];
        for (turns, tokens) in lanes {
            if turns.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms) && tokens.take(now_ms) {
                return turns.pop_first().map(|(_, address)| address);
            }
        }
        None
    }
}
