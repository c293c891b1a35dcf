//! What the networks around are told of our addresses, and whoever else claims one.
//!
//! [`Announcer`] is a pure state machine, without clock and I/O: addresses that control has
//! announced, links that come and go, claims of others, what has become of frames and the time go in;
//! ARP frames to send come out ([`Announcer::due`]), at rates that do not depend on how many addresses
//! there are.
//!
//! - An address that is new is announced three times, a second apart, on each of its ports whose link is
//!   up. It counts as announced when all of that has left: what a worker could not send is sent again.
//! - Switches forget the MAC address of a port that sends nothing, and flood what is for it: in DR
//!   with two arms nothing ever leaves by the clients' port. So every address is announced again from
//!   time to time, the ports' own ones too: each port says something.
//! - Who comes to a network asks whether its addresses are anybody's (RFC 5227, 2.1.1): VIPs and local
//!   addresses are probed for when they are announced, and now and then. An answer is a claim.
//! - A claim is answered by an announcement, at most every 10 s for each address (RFC 5227, 2.4).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;

use sluice_wire::arp;
use sluice_wire::ether::MacAddr;

use super::main_loop::MainLoop;
use crate::config::InterfaceAddress;

/// Time between two defences of an address, in ms (RFC 5227, 1.1: DEFEND_INTERVAL).
const DEFEND_INTERVAL_MS: u64 = 10_000;
/// How often an address is announced that is new, or whose port has come up: a frame may be lost
/// (RFC 5227, 1.1: ANNOUNCE_NUM is 2).
const FIRST_ANNOUNCEMENTS: u8 = 3;
/// Time between two of these, in ms (RFC 5227, 1.1: ANNOUNCE_INTERVAL is twice as long).
const ANNOUNCE_INTERVAL_MS: u64 = 1_000;
/// Announcements for each probe, once an address is announced.
const ANNOUNCEMENTS_PER_PROBE: u8 = 5;
/// Frames per second of each port for what is new, defended or probed for: 10,000 addresses, which are
/// 40,000 frames, within 7 s.
const FIRST_RATE: Rate = Rate { per_second: 6_000, at_once: 64 };
/// Of each port, for what is repeated: 60,000 addresses are announced anew within 60 s.
const AGAIN_RATE: Rate = Rate { per_second: 1_000, at_once: 64 };
/// Frames on their way to the wire; the next ones leave when it is known what has become of these.
const MOST_ON_THEIR_WAY: usize = 64;
/// A worker that has not sent them after so long, in ms, is not waited for.
const SENT_WITHIN_MS: u64 = 200;

/// A frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpFrame {
    /// Index of the port that it leaves by.
    pub port: u16,
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

/// An address on a port.
type Place = (u16, Ipv4Addr);

/// When an address is announced on a port.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// When next, in ms; the time in its port's turns, if it stands there. None while a frame of it is
    /// on its way.
    at_ms: Option<u64>,
    /// Announcements that are still to be made at short distance.
    firsts: u8,
    /// Announcements until the next probe; none for a port's own address, which is the kernel's to
    /// probe for.
    until_probe: Option<u8>,
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
struct Voice {
    addresses: Vec<InterfaceAddress>,
    link_up: bool,
    /// To be sent as soon as the rate allows, before what has its turn.
    urgent: VecDeque<ArpFrame>,
    /// Addresses with announcements at short distance, and all others, by their time.
    firsts: BTreeSet<(u64, Ipv4Addr)>,
    agains: BTreeSet<(u64, Ipv4Addr)>,
    first_tokens: Tokens,
    again_tokens: Tokens,
}

impl Voice {
    fn turns(&mut self, firsts: u8) -> &mut BTreeSet<(u64, Ipv4Addr)> {
        if firsts > 0 { &mut self.firsts } else { &mut self.agains }
    }

    /// The address whose turn it is, if the rate allows it.
    fn next(&mut self, now_ms: u64) -> Option<Ipv4Addr> {
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

/// Our addresses, as the networks around hear of them.
pub struct Announcer {
    /// Time between two announcements of an address, in ms; 0 for never.
    every_ms: u64,
    voices: Vec<Voice>,
    /// The port whose turn it is.
    turn: usize,
    /// VIPs and local addresses that control wants announced.
    wanted: BTreeSet<Ipv4Addr>,
    /// Those of them that have left on each of their ports as often as they should.
    announced: BTreeSet<Ipv4Addr>,
    places: BTreeMap<Place, Turn>,
    /// Last defence of each address that was claimed, in ms.
    defended: HashMap<Place, u64>,
}

impl Announcer {
    /// For ports with these addresses, by port, whose links are up or not; each address is announced
    /// every so many ms, or, if that is 0, when it is new or its port comes up, and not again.
    pub fn new(ports: Vec<(Vec<InterfaceAddress>, bool)>, every_ms: u64, now_ms: u64) -> Self {
        let voice = |(addresses, link_up)| Voice {
            addresses,
            link_up,
            urgent: VecDeque::new(),
            firsts: BTreeSet::new(),
            agains: BTreeSet::new(),
            first_tokens: Tokens::new(FIRST_RATE, now_ms),
            again_tokens: Tokens::new(AGAIN_RATE, now_ms),
        };
        let mut announcer = Announcer {
            every_ms,
            voices: ports.into_iter().map(voice).collect(),
            turn: 0,
            wanted: BTreeSet::new(),
            announced: BTreeSet::new(),
            places: BTreeMap::new(),
            defended: HashMap::new(),
        };
        for port in 0..announcer.voices.len() {
            for index in 0..announcer.voices[port].addresses.len() {
                let place = (port as u16, announcer.voices[port].addresses[index].address());
                let turn = Turn { at_ms: None, firsts: 0, until_probe: None };
                announcer.places.insert(place, turn);
                if every_ms > 0 {
                    announcer.set_turn(place, now_ms);
                }
            }
        }
        announcer
    }

    /// VIPs and local addresses that have left three times on each of their ports, in order.
    pub fn announced(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.announced.iter().copied()
    }

    /// Announce a VIP or local address, and go on with it. One that is being announced, or has been,
    /// goes on as it does.
    pub fn announce(&mut self, now_ms: u64, address: Ipv4Addr) {
        if !self.wanted.insert(address) {
            return;
        }
        for port in self.ports_of(address) {
            let place = (port, address);
            let turn = Turn { at_ms: None, firsts: FIRST_ANNOUNCEMENTS, until_probe: Some(0) };
            self.places.insert(place, turn);
            self.set_turn(place, now_ms);
        }
    }

    /// Go on with no VIPs and local addresses but these.
    pub fn retain(&mut self, is_ours: impl Fn(Ipv4Addr) -> bool) {
        self.wanted.retain(|address| is_ours(*address));
        let (wanted, voices) = (&self.wanted, &mut self.voices);
        self.announced.retain(|address| wanted.contains(address));
        self.places.retain(|place, turn| {
            let stays = turn.until_probe.is_none() || wanted.contains(&place.1);
            if let (false, Some(at_ms)) = (stays, turn.at_ms) {
                voices[usize::from(place.0)].turns(turn.firsts).remove(&(at_ms, place.1));
            }
            stays
        });
        let places = &self.places;
        let is_known = |place: &Place| places.contains_key(place) || is_ours(place.1);
        for voice in voices {
            voice.urgent.retain(|frame| is_known(&(frame.port, frame.address)));
        }
        self.defended.retain(|place, _| is_known(place));
    }

    /// A port's link came up: the switch behind it may know nothing of us. As RFC 5227 (2.3) wants
    /// it, all is announced anew.
    pub fn link_up(&mut self, now_ms: u64, port: u16) {
        self.voices[usize::from(port)].link_up = true;
        for place in self.places_on(port) {
            self.unset_turn(place);
            if let Some(turn) = self.places.get_mut(&place) {
                turn.firsts = FIRST_ANNOUNCEMENTS;
            }
            self.set_turn(place, now_ms);
        }
    }

    /// A port's link went down: nothing leaves, and no address waits for it.
    pub fn link_down(&mut self, port: u16) {
        let voice = &mut self.voices[usize::from(port)];
        voice.link_up = false;
        voice.urgent.clear();
        for place in self.places_on(port) {
            self.unset_turn(place);
            self.check_announced(place.1);
        }
    }

    /// Another host claims an address that is ours: announce it where it did, unless that was done
    /// lately. Whether it is.
    pub fn claimed(&mut self, now_ms: u64, port: u16, address: Ipv4Addr) -> bool {
        let place = (port, address);
        // VIPs and local addresses are answered for on every port, a port's address on its own.
        let is_ports =
            self.voices.iter().flat_map(|v| &v.addresses).any(|own| own.address() == address);
        let is_here = !is_ports || self.places.contains_key(&place);
        let last_ms = self.defended.get(&place);
        if !is_here || last_ms.is_some_and(|last_ms| now_ms < last_ms + DEFEND_INTERVAL_MS) {
            return false;
        }
        self.defended.insert(place, now_ms);
        let defence = ArpFrame { port, address, says: Says::Announcement };
        let urgent = &mut self.voices[usize::from(port)].urgent;
        urgent.retain(|frame| *frame != defence);
        urgent.push_front(defence);
        true
    }

    /// The next frame to send now; what becomes of it is to be told by [`left`](Self::left) or
    /// [`lost`](Self::lost). Call until there is none.
    pub fn due(&mut self, now_ms: u64) -> Option<ArpFrame> {
        for _ in 0..self.voices.len() {
            let port = self.turn % self.voices.len();
            self.turn = port + 1;
            if let Some(frame) = self.due_on(now_ms, port) {
                return Some(frame);
            }
        }
        None
    }

    fn due_on(&mut self, now_ms: u64, port: usize) -> Option<ArpFrame> {
        let voice = &mut self.voices[port];
        if !voice.link_up {
            return None;
        }
        if !voice.urgent.is_empty() {
            return voice.first_tokens.take(now_ms).then(|| voice.urgent.pop_front()).flatten();
        }
        let address = voice.next(now_ms)?;
        let port = port as u16;
        let announcement = ArpFrame { port, address, says: Says::Announcement };
        let turn = self.places.get_mut(&(port, address))?;
        turn.at_ms = None;
        let probes = turn.until_probe == Some(0);
        if let Some(until_probe) = &mut turn.until_probe {
            *until_probe = until_probe.checked_sub(1).unwrap_or(ANNOUNCEMENTS_PER_PROBE - 1);
        }
        if !probes {
            return Some(announcement);
        }
        self.voices[usize::from(port)].urgent.push_back(announcement);
        Some(ArpFrame { says: Says::Probe, ..announcement })
    }

    /// A frame has left by its port.
    pub fn left(&mut self, now_ms: u64, frame: ArpFrame) {
        let place = (frame.port, frame.address);
        let is_up = self.voices[usize::from(frame.port)].link_up;
        let Some(turn) = self.places.get_mut(&place) else { return };
        // Not a probe, nor a defence beside its turn, nor from before its link went down.
        if frame.says == Says::Probe || turn.at_ms.is_some() || !is_up {
            return;
        }
        turn.firsts = turn.firsts.saturating_sub(1);
        if turn.firsts > 0 {
            return self.set_turn(place, now_ms + ANNOUNCE_INTERVAL_MS);
        }
        if self.every_ms > 0 {
            self.set_turn(place, now_ms + self.every_ms);
        }
        self.check_announced(frame.address);
    }

    /// A frame has not left: it is sent again.
    pub fn lost(&mut self, frame: ArpFrame) {
        let voice = &mut self.voices[usize::from(frame.port)];
        if voice.link_up && self.places.contains_key(&(frame.port, frame.address)) {
            voice.urgent.push_back(frame);
        }
    }

    /// Note whether an address has left as often as it should, on each port whose link is up and on at
    /// least one.
    fn check_announced(&mut self, address: Ipv4Addr) {
        if !self.wanted.contains(&address) {
            return;
        }
        let on_ports = (0..self.voices.len()).filter_map(|port| {
            let turn = self.places.get(&(port as u16, address))?;
            Some((self.voices[port].link_up, turn.firsts))
        });
        let (mut done, mut waits) = (false, false);
        for (link_up, firsts) in on_ports {
            done |= firsts == 0;
            waits |= link_up && firsts > 0;
        }
        if done && !waits {
            self.announced.insert(address);
        }
    }

    fn places_on(&self, port: u16) -> Vec<Place> {
        let all = (port, Ipv4Addr::UNSPECIFIED)..=(port, Ipv4Addr::BROADCAST);
        self.places.range(all).map(|(place, _)| *place).collect()
    }

    /// Give a place its next turn; it has none.
    fn set_turn(&mut self, place: Place, at_ms: u64) {
        let Some(turn) = self.places.get_mut(&place) else { return };
        turn.at_ms = Some(at_ms);
        let voice = &mut self.voices[usize::from(place.0)];
        voice.turns(turn.firsts).insert((at_ms, place.1));
    }

    fn unset_turn(&mut self, place: Place) {
        let Some(turn) = self.places.get_mut(&place) else { return };
        if let Some(at_ms) = turn.at_ms.take() {
            let voice = &mut self.voices[usize::from(place.0)];
            voice.turns(turn.firsts).remove(&(at_ms, place.1));
        }
    }

    /// The ports whose networks hold an address, or all when none does.
    fn ports_of(&self, address: Ipv4Addr) -> Vec<u16> {
        let holds = |voice: &Voice| voice.addresses.iter().any(|a| a.network().contains(address));
        let all = 0..self.voices.len() as u16;
        let holding: Vec<u16> =
            all.clone().filter(|port| holds(&self.voices[usize::from(*port)])).collect();
        if holding.is_empty() { all.collect() } else { holding }
    }
}

/// Frames on their way from the announcer to the wire, by one worker.
#[derive(Debug, Default)]
pub struct Batch {
    frames: Vec<ArpFrame>,
    /// The worker, and how many frames of ours it has taken when it has taken these.
    worker: usize,
    taken: u64,
    /// How many of ours it had lost before.
    lost: u64,
    since_ms: u64,
}

impl MainLoop {
    /// Send what the networks around are to be told now, a batch at a time.
    pub fn announce_due(&mut self, now_ms: u64) {
        if !self.batch_is_over(now_ms) {
            return;
        }
        while self.batch.frames.len() < MOST_ON_THEIR_WAY
            && let Some(frame) = self.announcer.due(now_ms)
        {
            let ArpFrame { port, address, says } = frame;
            let mac = self.ports[usize::from(port)].mac;
            let bytes = match says {
                Says::Announcement => arp::build_announcement(mac, address),
                Says::Probe => arp::build_request(mac, Ipv4Addr::UNSPECIFIED, address),
            };
            if !self.send_frame(port, &bytes) {
                self.announcer.lost(frame);
                break;
            }
            self.batch.frames.push(frame);
        }
        if !self.batch.frames.is_empty() {
            let worker = &self.workers[self.carrier];
            self.batch.worker = self.carrier;
            self.batch.taken = worker.frames_given + self.waiting.len() as u64;
            self.batch.lost = worker.counters.main_frames_lost.get();
            self.batch.since_ms = now_ms;
        }
    }

    /// See what has become of the frames that are on their way; whether none is any more.
    fn batch_is_over(&mut self, now_ms: u64) -> bool {
        let batch = &self.batch;
        if batch.frames.is_empty() {
            return true;
        }
        let counters = &self.workers[batch.worker].counters;
        let is_sent = counters.main_frames.observe() >= batch.taken;
        let is_late = now_ms >= batch.since_ms + SENT_WITHIN_MS || batch.worker != self.carrier;
        if !is_sent && !is_late {
            return false;
        }
        let has_left = is_sent && counters.main_frames_lost.get() == batch.lost;
        let mut frames = std::mem::take(&mut self.batch.frames);
        for frame in frames.drain(..) {
            if has_left {
                self.announcer.left(now_ms, frame);
            } else {
                self.announcer.lost(frame);
            }
        }
        self.batch.frames = frames;
        true
    }

    /// Another host claims one of our addresses: defend it, and tell the operator.
    pub fn claimed(&mut self, now_ms: u64, port: u16, address: Ipv4Addr, mac: MacAddr) {
        let defended = self.announcer.claimed(now_ms, port, address);
        let name = &self.config.ports[usize::from(port)].name;
        let also = self.resolver.addresses_of(port, mac);
        let known_as = match also.as_slice() {
            [] => String::new(),
            [first, ..] => format!(
                " (it has {first}: a backend in DR must not speak ARP for its VIP, see arp_ignore \
                 and arp_announce)"
            ),
        };
        let then = if defended { "; it was announced again" } else { "" };
        let message =
            format!("{mac} on port {name} claims {address}, which is ours{known_as}{then}");
        self.events.add_about("address-conflict", &format!("{address} {port}"), message);
    }
}

#[cfg(test)]
mod tests;
