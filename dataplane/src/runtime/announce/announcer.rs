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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use super::voice::{ArpFrame, Says, Voice};
use crate::config::InterfaceAddress;
use sluice_path::ids::InterfaceId;

/// Time between two defences of an address, in ms (RFC 5227, 1.1: DEFEND_INTERVAL).
const DEFEND_INTERVAL_MS: u64 = 10_000;
/// How often an address is announced that is new, or whose port has come up: a frame may be lost
/// (RFC 5227, 1.1: ANNOUNCE_NUM is 2).
const FIRST_ANNOUNCEMENTS: u8 = 3;
/// Time between two of these, in ms (RFC 5227, 1.1: ANNOUNCE_INTERVAL is twice as long).
const ANNOUNCE_INTERVAL_MS: u64 = 1_000;
/// Announcements for each probe, once an address is announced.
const ANNOUNCEMENTS_PER_PROBE: u8 = 5;

/// An address on an interface.
type Place = (InterfaceId, Ipv4Addr);

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
        let voice = |(addresses, link_up)| Voice::new(addresses, link_up, now_ms);
        let mut announcer = Announcer {
            every_ms,
            voices: ports.into_iter().map(voice).collect(),
            turn: 0,
            wanted: BTreeSet::new(),
            announced: BTreeSet::new(),
            places: BTreeMap::new(),
            defended: HashMap::new(),
        };
        for interface in announcer.interfaces() {
            let voice = interface.index();
            for index in 0..announcer.voices[voice].addresses.len() {
                let place = (interface, announcer.voices[voice].addresses[index].address());
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
        for interface in self.interfaces_of(address) {
            let place = (interface, address);
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
                voices[place.0.index()].turns(turn.firsts).remove(&(at_ms, place.1));
            }
            stays
        });
        let places = &self.places;
        let is_known = |place: &Place| places.contains_key(place) || is_ours(place.1);
        for voice in voices {
            voice.urgent.retain(|frame| is_known(&(frame.interface, frame.address)));
        }
        self.defended.retain(|place, _| is_known(place));
    }

    /// A port's link came up: the switch behind it may know nothing of us. As RFC 5227 (2.3) wants
    /// it, all is announced anew.
    pub fn link_up(&mut self, now_ms: u64, interface: InterfaceId) {
        self.voices[interface.index()].link_up = true;
        for place in self.places_on(interface) {
            self.unset_turn(place);
            if let Some(turn) = self.places.get_mut(&place) {
                turn.firsts = FIRST_ANNOUNCEMENTS;
            }
            self.set_turn(place, now_ms);
        }
    }

    /// A port's link went down: nothing leaves, and no address waits for it.
    pub fn link_down(&mut self, interface: InterfaceId) {
        let voice = &mut self.voices[interface.index()];
        voice.link_up = false;
        voice.urgent.clear();
        for place in self.places_on(interface) {
            self.unset_turn(place);
            self.check_announced(place.1);
        }
    }

    /// Another host claims an address that is ours: announce it where it did, unless that was done
    /// lately. Whether it is.
    pub fn claimed(&mut self, now_ms: u64, interface: InterfaceId, address: Ipv4Addr) -> bool {
        let place = (interface, address);
        // VIPs and local addresses are answered for on every port, a port's address on its own.
        let is_ports =
            self.voices.iter().flat_map(|v| &v.addresses).any(|own| own.address() == address);
        let is_here = !is_ports || self.places.contains_key(&place);
        let last_ms = self.defended.get(&place);
        if !is_here || last_ms.is_some_and(|last_ms| now_ms < last_ms + DEFEND_INTERVAL_MS) {
            return false;
        }
        self.defended.insert(place, now_ms);
        let defence = ArpFrame { interface, address, says: Says::Announcement };
        let urgent = &mut self.voices[interface.index()].urgent;
        urgent.retain(|frame| *frame != defence);
        urgent.push_front(defence);
        true
    }

    /// The next frame to send now; what becomes of it is to be told by [`left`](Self::left) or
    /// [`lost`](Self::lost). Call until there is none.
    pub fn due(&mut self, now_ms: u64) -> Option<ArpFrame> {
        for _ in 0..self.voices.len() {
            let turn = self.turn % self.voices.len();
            self.turn = turn + 1;
            if let Some(frame) = self.due_on(now_ms, InterfaceId(turn as u16)) {
                return Some(frame);
            }
        }
        None
    }

    fn due_on(&mut self, now_ms: u64, interface: InterfaceId) -> Option<ArpFrame> {
        let voice = &mut self.voices[interface.index()];
        if !voice.link_up {
            return None;
        }
        if !voice.urgent.is_empty() {
            return voice.next_urgent(now_ms);
        }
        let address = voice.next(now_ms)?;
        let announcement = ArpFrame { interface, address, says: Says::Announcement };
        let turn = self.places.get_mut(&(interface, address))?;
        turn.at_ms = None;
        let probes = turn.until_probe == Some(0);
        if let Some(until_probe) = &mut turn.until_probe {
            *until_probe = until_probe.checked_sub(1).unwrap_or(ANNOUNCEMENTS_PER_PROBE - 1);
        }
        if !probes {
            return Some(announcement);
        }
        self.voices[interface.index()].urgent.push_back(announcement);
        Some(ArpFrame { says: Says::Probe, ..announcement })
    }

    /// A frame has left by its port.
    pub fn left(&mut self, now_ms: u64, frame: ArpFrame) {
        let place = (frame.interface, frame.address);
        let is_up = self.voices[frame.interface.index()].link_up;
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
        let voice = &mut self.voices[frame.interface.index()];
        if voice.link_up && self.places.contains_key(&(frame.interface, frame.address)) {
            voice.urgent.push_back(frame);
        }
    }

    /// Note whether an address has left as often as it should, on each port whose link is up and on at
    /// least one.
    fn check_announced(&mut self, address: Ipv4Addr) {
        if !self.wanted.contains(&address) {
            return;
        }
        let on_ports = self.interfaces().filter_map(|interface| {
            let turn = self.places.get(&(interface, address))?;
            Some((self.voices[interface.index()].link_up, turn.firsts))
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

    fn places_on(&self, interface: InterfaceId) -> Vec<Place> {
        let all = (interface, Ipv4Addr::UNSPECIFIED)..=(interface, Ipv4Addr::BROADCAST);
        self.places.range(all).map(|(place, _)| *place).collect()
    }

    /// Give a place its next turn; it has none.
    fn set_turn(&mut self, place: Place, at_ms: u64) {
        let Some(turn) = self.places.get_mut(&place) else { return };
        turn.at_ms = Some(at_ms);
        let voice = &mut self.voices[place.0.index()];
        voice.turns(turn.firsts).insert((at_ms, place.1));
    }

    fn unset_turn(&mut self, place: Place) {
        let Some(turn) = self.places.get_mut(&place) else { return };
        if let Some(at_ms) = turn.at_ms.take() {
            let voice = &mut self.voices[place.0.index()];
            voice.turns(turn.firsts).remove(&(at_ms, place.1));
        }
    }

    fn interfaces(&self) -> impl Iterator<Item = InterfaceId> + use<> {
        (0..self.voices.len() as u16).map(InterfaceId)
    }

    /// The interfaces whose networks hold an address, or all when none does.
    fn interfaces_of(&self, address: Ipv4Addr) -> Vec<InterfaceId> {
        let holds = |voice: &Voice| voice.addresses.iter().any(|a| a.network().contains(address));
        let holding: Vec<InterfaceId> =
            self.interfaces().filter(|of| holds(&self.voices[of.index()])).collect();
        if holding.is_empty() { self.interfaces().collect() } else { holding }
    }
}

#[cfg(test)]
#[path = "announcer_tests.rs"]
mod tests;
