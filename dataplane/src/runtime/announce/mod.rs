//! Our addresses, as the networks around hear of them: what is to be said, on its way to the wire.

mod announcer;
mod voice;

use std::net::Ipv4Addr;

use sluice_wire::arp;

use super::crew::Crew;
use super::outgoing::Outgoing;
use super::ports::Ports;
use crate::config::InterfaceAddress;
use announcer::Announcer;
use sluice_path::ids::{InterfaceId, WorkerId};
use voice::{ArpFrame, Says};

/// Frames on their way to the wire; the next ones leave when it is known what has become of these.
const MOST_ON_THEIR_WAY: usize = 64;
/// A worker that has not sent them after so long, in ms, is not waited for.
const SENT_WITHIN_MS: u64 = 200;

/// What is announced, and what is on its way.
pub struct Announcements {
    announcer: Announcer,
    batch: Batch,
}

/// Frames on their way from the announcer to the wire, by one worker.
#[derive(Debug, Default)]
struct Batch {
    frames: Vec<ArpFrame>,
    /// The worker, and how many frames of ours it has taken when it has taken these.
    worker: WorkerId,
    taken: u64,
    /// How many of ours it had lost before.
    lost: u64,
    since_ms: u64,
}

impl Announcements {
    /// For ports with these addresses, by port, whose links are up or not; each address is announced
    /// every so many ms, or, if that is 0, when it is new or its port comes up, and not again.
    pub fn new(ports: Vec<(Vec<InterfaceAddress>, bool)>, every_ms: u64, now_ms: u64) -> Self {
        let announcer = Announcer::new(ports, every_ms, now_ms);
        Announcements { announcer, batch: Batch::default() }
    }

    /// Announce a VIP or local address, and go on with it.
    pub fn announce(&mut self, now_ms: u64, address: Ipv4Addr) {
        self.announcer.announce(now_ms, address);
    }

    /// Go on with no VIPs and local addresses but these.
    pub fn retain(&mut self, is_ours: impl Fn(Ipv4Addr) -> bool) {
        self.announcer.retain(is_ours);
    }

    /// VIPs and local addresses that have left as often as they should, in order.
    pub fn announced(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.announcer.announced()
    }

    /// A port's link came up, or went down.
    pub fn link(&mut self, now_ms: u64, interface: InterfaceId, is_up: bool) {
        if is_up {
            self.announcer.link_up(now_ms, interface);
        } else {
            self.announcer.link_down(interface);
        }
    }

    /// Another host claims one of our addresses: defend it, unless that was done lately. Whether it is.
    pub fn claimed(&mut self, now_ms: u64, interface: InterfaceId, address: Ipv4Addr) -> bool {
        self.announcer.claimed(now_ms, interface, address)
    }

    /// Send what is to be told now, a batch at a time.
    pub fn send(&mut self, now_ms: u64, ports: &Ports, crew: &Crew, outgoing: &mut Outgoing) {
        if !self.batch_is_over(now_ms, crew) {
            return;
        }
        while self.batch.frames.len() < MOST_ON_THEIR_WAY
            && let Some(frame) = self.announcer.due(now_ms)
        {
            let ArpFrame { interface, address, says } = frame;
            let mac = ports.mac(interface.port());
            let bytes = match says {
                Says::Announcement => arp::build_announcement(mac, address),
                Says::Probe => arp::build_request(mac, Ipv4Addr::UNSPECIFIED, address),
            };
            if !outgoing.send(interface, &bytes) {
                self.announcer.lost(frame);
                break;
            }
            self.batch.frames.push(frame);
        }
        if !self.batch.frames.is_empty() {
            let carrier = crew.carrier();
            self.batch.worker = crew.carrier_number();
            self.batch.taken = carrier.frames_given + outgoing.waiting() as u64;
            self.batch.lost = carrier.counters.main_frames_lost.get();
            self.batch.since_ms = now_ms;
        }
    }

    /// See what has become of the frames that are on their way; whether none is any more.
    fn batch_is_over(&mut self, now_ms: u64, crew: &Crew) -> bool {
        let batch = &mut self.batch;
        if batch.frames.is_empty() {
            return true;
        }
        let counters = &crew.worker(batch.worker).counters;
        let is_sent = counters.main_frames.observe() >= batch.taken;
        let is_late =
            now_ms >= batch.since_ms + SENT_WITHIN_MS || batch.worker != crew.carrier_number();
        if !is_sent && !is_late {
            return false;
        }
        let has_left = is_sent && counters.main_frames_lost.get() == batch.lost;
        for frame in batch.frames.drain(..) {
            if has_left {
                self.announcer.left(now_ms, frame);
            } else {
                self.announcer.lost(frame);
            }
        }
        true
    }
}
