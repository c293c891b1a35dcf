//! What the networks around are told of our addresses, and whoever else claims one.
//!
//! [`Announcer`] is a pure state machine, without clock and I/O: addresses that control has
//! announced, links that come up, claims of others and the time go in; ARP frames to send come out
//! ([`Announcer::due`]), at a rate that does not depend on how many addresses there are.
//!
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
/// Time between the two announcements after a link-up, in ms (RFC 5227, 1.1: ANNOUNCE_INTERVAL).
const ANNOUNCE_INTERVAL_MS: u64 = 2_000;
/// Announcements for each probe, once an address is announced.
const ANNOUNCEMENTS_PER_PROBE: u8 = 5;
/// Frames per second, in the long run: 60,000 addresses are announced anew within 60 s.
const FRAMES_PER_SECOND: u64 = 1_000;
/// Frames at once after a quiet time.
const FRAME_BURST: u64 = 100;

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
    /// When next, in ms; the time in `turns`, if it stands there.
    at_ms: Option<u64>,
    /// Announcements until the next probe; none for a port's own address, which is the kernel's to
    /// probe for.
    until_probe: Option<u8>,
}

/// Our addresses, as the networks around hear of them.
pub struct Announcer {
    /// Time between two announcements of an address, in ms; 0 for never.
    every_ms: u64,
    /// The ports' addresses, by port.
    ports: Vec<Vec<InterfaceAddress>>,
    /// VIPs and local addresses that control has announced.
    announced: BTreeSet<Ipv4Addr>,
    places: BTreeMap<Place, Turn>,
    /// Those that have a time, in its order.
    turns: BTreeSet<(u64, Place)>,
    /// To be sent as soon as the rate allows, before what has its turn.
    urgent: VecDeque<ArpFrame>,
    /// Last defence of each address that was claimed, in ms.
    defended: HashMap<Place, u64>,
    tokens: u64,
    filled_ms: u64,
}

impl Announcer {
    /// For ports with these addresses, by port; each address is announced every so many ms, or, if
    /// that is 0, when it is new or its port comes up, and not again.
    pub fn new(ports: Vec<Vec<InterfaceAddress>>, every_ms: u64, now_ms: u64) -> Self {
        let mut announcer = Announcer {
            every_ms,
            ports,
            announced: BTreeSet::new(),
            places: BTreeMap::new(),
            turns: BTreeSet::new(),
            urgent: VecDeque::new(),
            defended: HashMap::new(),
            tokens: FRAME_BURST,
            filled_ms: now_ms,
        };
        for port in 0..announcer.ports.len() {
            for index in 0..announcer.ports[port].len() {
                let place = (port as u16, announcer.ports[port][index].address());
                announcer.places.insert(place, Turn { at_ms: None, until_probe: None });
                if every_ms > 0 {
                    announcer.set_turn(place, now_ms);
                }
            }
        }
        announcer
    }

    /// VIPs and local addresses that control has announced, in order.
    pub fn announced(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.announced.iter().copied()
    }

    /// Announce a VIP or local address, and go on with it. One that waits for its turn keeps it.
    pub fn announce(&mut self, now_ms: u64, address: Ipv4Addr) {
        let is_new = self.announced.insert(address);
        for port in self.ports_of(address) {
            let place = (port, address);
            if is_new {
                self.places.insert(place, Turn { at_ms: None, until_probe: Some(0) });
            }
            let waits = |turn: &Turn| turn.at_ms.is_some_and(|at_ms| at_ms <= now_ms);
            if !self.places.get(&place).is_some_and(waits) {
                self.set_turn(place, now_ms);
            }
        }
    }

    /// Go on with no VIPs and local addresses but these.
    pub fn retain(&mut self, is_ours: impl Fn(Ipv4Addr) -> bool) {
        self.announced.retain(|address| is_ours(*address));
        let (announced, turns) = (&self.announced, &mut self.turns);
        self.places.retain(|place, turn| {
            let stays = turn.until_probe.is_none() || announced.contains(&place.1);
            if let (false, Some(at_ms)) = (stays, turn.at_ms) {
                turns.remove(&(at_ms, *place));
            }
            stays
        });
        let places = &self.places;
        let is_known = |place: &Place| places.contains_key(place) || is_ours(place.1);
        self.urgent.retain(|frame| is_known(&(frame.port, frame.address)));
        self.defended.retain(|place, _| is_known(place));
    }

    /// A port's link came up: the switch behind it may know nothing of us. As RFC 5227 (2.3) wants
    /// it, all is announced twice.
    pub fn link_up(&mut self, now_ms: u64, port: u16) {
        let places: Vec<Place> = self.places.keys().copied().filter(|p| p.0 == port).collect();
        for place in places {
            self.push_urgent(place, Says::Announcement);
            self.set_turn(place, now_ms + ANNOUNCE_INTERVAL_MS);
        }
    }

    /// Another host claims an address that is ours: announce it where it did, unless that was done
    /// lately. Whether it is.
    pub fn claimed(&mut self, now_ms: u64, port: u16, address: Ipv4Addr) -> bool {
        let place = (port, address);
        // VIPs and local addresses are answered for on every port, a port's address on its own.
        let is_ports = self.ports.iter().flatten().any(|own| own.address() == address);
        let is_here = !is_ports || self.places.contains_key(&place);
        let last_ms = self.defended.get(&place);
        if !is_here || last_ms.is_some_and(|last_ms| now_ms < last_ms + DEFEND_INTERVAL_MS) {
            return false;
        }
        self.defended.insert(place, now_ms);
        let defence = ArpFrame { port, address, says: Says::Announcement };
        self.urgent.retain(|frame| *frame != defence);
        self.urgent.push_front(defence);
        true
    }

    /// The next frame to send now. Call until there is none.
    pub fn due(&mut self, now_ms: u64) -> Option<ArpFrame> {
        if self.urgent.is_empty() {
            self.take_turn(now_ms);
        }
        if self.urgent.is_empty() || !self.take_token(now_ms) {
            return None;
        }
        self.urgent.pop_front()
    }

    /// Let the place whose turn it is have its frames sent, and its next turn.
    fn take_turn(&mut self, now_ms: u64) {
        let Some((at_ms, place)) = self.turns.first().copied() else { return };
        if at_ms > now_ms {
            return;
        }
        self.turns.pop_first();
        let Some(turn) = self.places.get_mut(&place) else { return };
        turn.at_ms = None;
        let probes = turn.until_probe == Some(0);
        if let Some(until_probe) = &mut turn.until_probe {
            *until_probe = until_probe.checked_sub(1).unwrap_or(ANNOUNCEMENTS_PER_PROBE - 1);
        }
        if probes {
            self.push_urgent(place, Says::Probe);
        }
        self.push_urgent(place, Says::Announcement);
        if self.every_ms > 0 {
            self.set_turn(place, now_ms + self.every_ms);
        }
    }

    fn push_urgent(&mut self, (port, address): Place, says: Says) {
        self.urgent.push_back(ArpFrame { port, address, says });
    }

    fn set_turn(&mut self, place: Place, at_ms: u64) {
        let Some(turn) = self.places.get_mut(&place) else { return };
        if let Some(old) = turn.at_ms.replace(at_ms) {
            self.turns.remove(&(old, place));
        }
        self.turns.insert((at_ms, place));
    }

    fn take_token(&mut self, now_ms: u64) -> bool {
        // Whole tokens only, so that what is less is not lost.
        let fresh = now_ms.saturating_sub(self.filled_ms) * FRAMES_PER_SECOND / 1_000;
        if fresh > 0 {
            self.filled_ms = now_ms;
            self.tokens = (self.tokens + fresh).min(FRAME_BURST);
        }
        let has_one = self.tokens > 0;
        self.tokens -= u64::from(has_one);
        has_one
    }

    /// The ports whose networks hold an address, or all when none does.
    fn ports_of(&self, address: Ipv4Addr) -> Vec<u16> {
        let holds = |port: &[InterfaceAddress]| port.iter().any(|a| a.network().contains(address));
        let all = 0..self.ports.len() as u16;
        let holding: Vec<u16> =
            all.clone().filter(|port| holds(&self.ports[usize::from(*port)])).collect();
        if holding.is_empty() { all.collect() } else { holding }
    }
}

impl MainLoop {
    /// Send what the networks around are to be told now.
    pub fn announce_due(&mut self, now_ms: u64) {
        while let Some(ArpFrame { port, address, says }) = self.announcer.due(now_ms) {
            let mac = self.ports[usize::from(port)].mac;
            let frame = match says {
                Says::Announcement => arp::build_announcement(mac, address),
                Says::Probe => arp::build_request(mac, Ipv4Addr::UNSPECIFIED, address),
            };
            self.send_frame(port, &frame);
        }
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
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
    const WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const EVERY_MS: u64 = 60_000;

    /// Two ports; their own addresses have been announced by 0.
    fn announcer(every_ms: u64) -> Announcer {
        let ports = ["192.0.2.1/24", "10.0.0.1/16"].map(|a| vec![a.parse().unwrap()]);
        let mut announcer = Announcer::new(ports.into(), every_ms, 0);
        let own = [announcement(0, WAN), announcement(1, LAN)];
        assert_eq!(all_due(&mut announcer, 0), if every_ms > 0 { &own[..] } else { &[] });
        announcer
    }

    fn announcement(port: u16, address: Ipv4Addr) -> ArpFrame {
        ArpFrame { port, address, says: Says::Announcement }
    }

    fn probe(port: u16, address: Ipv4Addr) -> ArpFrame {
        ArpFrame { says: Says::Probe, ..announcement(port, address) }
    }

    fn all_due(announcer: &mut Announcer, now_ms: u64) -> Vec<ArpFrame> {
        std::iter::from_fn(|| announcer.due(now_ms)).collect()
    }

    /// What is sent, and when, with a look every 2 ms.
    fn run(announcer: &mut Announcer, from_ms: u64, to_ms: u64) -> Vec<(u64, ArpFrame)> {
        let mut sent = Vec::new();
        for now_ms in (from_ms..to_ms).step_by(2) {
            sent.extend(all_due(announcer, now_ms).into_iter().map(|frame| (now_ms, frame)));
        }
        sent
    }

    #[test]
    fn an_address_is_probed_for_announced_and_repeated_on_its_ports() {
        let mut announcer = announcer(EVERY_MS);
        announcer.announce(1_000, VIP);
        assert_eq!(announcer.announced().collect::<Vec<_>>(), [VIP]);
        let sent = run(&mut announcer, 1_000, 661_002);
        let vip: Vec<_> = sent.iter().filter(|(_, frame)| frame.address == VIP).collect();
        let probes: Vec<u64> =
            vip.iter().filter(|(_, f)| *f == probe(0, VIP)).map(|(at, _)| *at).collect();
        let announcements: Vec<u64> =
            vip.iter().filter(|(_, f)| *f == announcement(0, VIP)).map(|(at, _)| *at).collect();
        assert_eq!(probes, [1_000, 301_000, 601_000]);
        assert_eq!(announcements, (0..=11).map(|n| 1_000 + n * 60_000).collect::<Vec<_>>());
        assert_eq!(vip.len(), probes.len() + announcements.len(), "on its own port only");
        // Each port says something, also the one that has no VIP.
        let lan: Vec<u64> = sent.iter().filter(|(_, f)| f.port == 1).map(|(at, _)| *at).collect();
        assert_eq!(lan, (1..=11).map(|n| n * 60_000).collect::<Vec<_>>());
    }

    #[test]
    fn an_address_of_no_network_is_announced_everywhere_until_it_is_gone() {
        let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
        let mut announcer = announcer(EVERY_MS);
        announcer.announce(0, elsewhere);
        announcer.announce(0, VIP);
        let frames = all_due(&mut announcer, 0);
        assert_eq!(frames.iter().filter(|f| f.address == elsewhere).count(), 4);
        announcer.link_up(100, 0);
        announcer.retain(|address| address != elsewhere);
        assert_eq!(announcer.announced().collect::<Vec<_>>(), [VIP]);
        let later = run(&mut announcer, 100, 200_000);
        assert!(later.iter().all(|(_, f)| f.address != elsewhere));
        assert!(later.iter().any(|(_, f)| f.address == VIP));
    }

    #[test]
    fn without_an_interval_nothing_is_repeated() {
        let mut announcer = announcer(0);
        announcer.announce(0, VIP);
        assert_eq!(run(&mut announcer, 0, 10_000_000).len(), 2);
        announcer.announce(10_000_000, VIP);
        assert_eq!(all_due(&mut announcer, 10_000_000), [announcement(0, VIP)], "control repeats");
    }

    #[test]
    fn a_link_that_comes_up_hears_all_of_its_addresses_twice() {
        let mut announcer = announcer(EVERY_MS);
        announcer.announce(0, VIP);
        run(&mut announcer, 0, 10_000);
        announcer.link_up(10_000, 0);
        let sent = run(&mut announcer, 10_000, 59_000);
        let at = |ms| [(ms, announcement(0, WAN)), (ms, announcement(0, VIP))];
        assert_eq!(sent, [at(10_000), at(12_000)].concat());
        let sent = run(&mut announcer, 59_000, 73_000);
        assert_eq!(sent, [vec![(60_000, announcement(1, LAN))], at(72_000).to_vec()].concat());
    }

    #[test]
    fn ten_thousand_vips_do_not_burst_and_hold_up_no_defence() {
        let mut announcer = announcer(EVERY_MS);
        let vips: Vec<Ipv4Addr> =
            (0..10_000).map(|n| Ipv4Addr::from_bits(0x0a00_1000 + n)).collect();
        vips.iter().for_each(|vip| announcer.announce(0, *vip));
        let mut sent = run(&mut announcer, 0, 10_000);
        assert!(announcer.claimed(10_000, 1, vips[7_000]));
        assert_eq!(announcer.due(10_000), Some(announcement(1, vips[7_000])), "at once");
        sent.extend(run(&mut announcer, 10_000, 120_000));
        for start in (0..120_000).step_by(100) {
            let window = sent.iter().filter(|(at, _)| (start..start + 100).contains(at)).count();
            assert!(window as u64 <= FRAME_BURST + FRAMES_PER_SECOND / 10, "{start}: {window}");
        }
        let times = |says| {
            let mut times: HashMap<Ipv4Addr, Vec<u64>> = HashMap::new();
            for (at, frame) in sent.iter().filter(|(_, f)| f.says == says && f.address != LAN) {
                times.entry(frame.address).or_default().push(*at);
            }
            times.remove(&WAN);
            times
        };
        let (announced, probed) = (times(Says::Announcement), times(Says::Probe));
        assert_eq!((announced.len(), probed.len()), (10_000, 10_000));
        assert!(announced.values().all(|at| at[0] < 21_000 && at[1] <= at[0] + 61_000));
    }

    #[test]
    fn a_claim_is_answered_at_once_and_at_most_every_ten_seconds() {
        let mut announcer = announcer(EVERY_MS);
        announcer.announce(0, VIP);
        run(&mut announcer, 0, 1_000);
        let mut sent = Vec::new();
        for now_ms in 1_000..41_000 {
            // On two ports: it is answered for on both.
            for port in [0, 1] {
                announcer.claimed(now_ms, port, VIP);
            }
            sent.extend(all_due(&mut announcer, now_ms).into_iter().map(|f| (now_ms, f)));
        }
        for port in [0, 1] {
            let at: Vec<u64> =
                sent.iter().filter(|(_, f)| f.port == port).map(|(at, _)| *at).collect();
            assert_eq!(at, [1_000, 11_000, 21_000, 31_000], "port {port}");
        }
        assert!(announcer.claimed(50_000, 0, WAN), "a port's own address, on its port");
        assert!(!announcer.claimed(50_000, 1, WAN), "and nowhere else");
        let unannounced = Ipv4Addr::new(192, 0, 2, 7);
        assert!(announcer.claimed(50_000, 0, unannounced), "a VIP that control has not announced");
        assert!(!announcer.claimed(50_001, 0, unannounced));
    }
}
