//! Find the worker that owns a packet's conn, where the NIC has not found it.
//!
//! Both directions of a conn must meet on one worker (design, invariant 2). Which one that is
//! [`Owners`] says, the same for all ports. Whether it has to be asked depends on the port:
//!
//! - a port whose NIC spreads by that very rule brings packets to their owner. It is believed when
//!   the first packets bear it out; from then on only packets without a conn are looked at, of which
//!   there is one per conn when all is well.
//! - any other port's packets are looked at before all else, and handed over.
//!
//! So a NIC that does not do as it says costs time, and never a conn.

#[cfg(test)]
mod tests;

use crate::burst::{Burst, Mask, Meta, Verdict};
use crate::counters::WorkerCounters;
use crate::ids::{PortId, WorkerId};
use crate::snapshot::{Address, Compiled};
use crate::table::owner::Owners;

/// Packets of a port that a worker looks at before it believes the NIC.
pub const FIRST_PACKETS: u64 = 1_000;
/// Packets of a port over which a worker sums up mis-steered ones afterwards.
pub const WINDOW_PACKETS: u64 = 100_000;
/// Mis-steered packets, in percent of the above, that a port may have.
pub const MOST_MIS_STEERED_PERCENT: u64 = 1;

/// How packets get to the owner of their conn: the same for all workers but for their number.
#[derive(Clone, Debug)]
pub struct Steering {
    /// Who owns what.
    pub owners: Owners,
    /// By port: whether its NIC says that it spreads by `owners`.
    pub by_nic: Box<[bool]>,
}

impl Steering {
    /// For any ports: whoever receives a packet finds the owner, among so many workers.
    pub fn by_handover(workers: u16) -> Self {
        Steering { owners: Owners::Arithmetic { workers }, by_nic: Box::default() }
    }
}

/// What a worker thinks of a port's RSS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Trust {
    /// The port has none that could be used: every packet is looked at.
    #[default]
    None,
    /// Every packet is looked at, to find out.
    Checking,
    /// Packets come to their owner.
    Trusted,
    /// They did not: every packet is looked at.
    Lost,
}

impl Trust {
    /// As a counter says it.
    #[inline]
    pub fn from_gauge(value: u64) -> Self {
        [Trust::None, Trust::Checking, Trust::Trusted, Trust::Lost]
            .into_iter()
            .find(|trust| *trust as u64 == value)
            .unwrap_or_default()
    }
}

/// What a worker knows of a port's RSS.
#[derive(Clone, Copy, Debug, Default)]
struct PortTrust {
    trust: Trust,
    /// Packets looked at; when trusted, the port's packets at the begin of the window.
    since: u64,
    /// Mis-steered ones among these, or since then.
    mis_steered: u64,
}

/// What the stages know of steering.
pub struct Steer {
    owners: Owners,
    worker: WorkerId,
    ports: Box<[PortTrust]>,
    /// Whether every packet is with its owner: of one worker, or by ports that are all trusted.
    all_at_home: bool,
    /// Whether some port is trusted.
    some_trusted: bool,
}

impl Steer {
    pub(super) fn new(
        steering: &Steering,
        (worker, workers): (WorkerId, u16),
        ports: usize,
        counters: &WorkerCounters,
    ) -> Self {
        let alone = workers == 1;
        let by_nic = |port: usize| !alone && steering.by_nic.get(port).is_some_and(|by| *by);
        let trust = |port| if by_nic(port) { Trust::Checking } else { Trust::None };
        let ports: Box<[PortTrust]> =
            (0..ports).map(|p| PortTrust { trust: trust(p), ..PortTrust::default() }).collect();
        let owners = steering.owners.clone();
        let steer = Steer { owners, worker, ports, all_at_home: alone, some_trusted: false };
        (0..)
            .zip(&steer.ports)
            .for_each(|(p, port)| counters.queue(PortId(p)).trust.set(port.trust as u64));
        steer
    }

    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        crate::testkit::range_of(&self.ports)
    }

    /// The worker that owns a packet's conn; `None` when no conn can be meant, and whoever got it
    /// can decide.
    #[inline(always)]
    fn owner(&self, meta: &Meta, config: &Compiled) -> Option<WorkerId> {
        match config.address_of_conns(meta.key().dst)? {
            Address::Local => Some(self.owners.of_backend(&meta.tuple)),
            Address::Vip => Some(self.owners.of_client(&meta.tuple, meta.hash)),
            Address::Own(_) => None,
        }
    }

    /// The worker to whom a packet goes that was found to be of a flow, when it is another one than
    /// this, whatever its port's NIC does. It is handed over once.
    #[inline]
    pub(super) fn elsewhere(&self, meta: &Meta, config: &Compiled) -> Option<WorkerId> {
        let owner = self.owner(meta, config).filter(|owner| *owner != self.worker);
        owner.filter(|_| !meta.handed_over)
    }

    /// Whether this worker owns a packet's conn, if there is one.
    #[inline]
    pub(super) fn is_home(&self, meta: &Meta, config: &Compiled) -> bool {
        self.owner(meta, config) == Some(self.worker)
    }

    #[inline(always)]
    fn trust(&self, port: PortId) -> Trust {
        self.ports[port.index()].trust
    }

    /// Note whether a packet of a port came to its owner, as its NIC says that it does.
    fn note(&mut self, port: PortId, is_home: bool, counters: &WorkerCounters) {
        let queue = counters.queue(port);
        if !is_home {
            queue.mis_steered.add(1);
        }
        let known = &mut self.ports[port.index()];
        let mis_steered = u64::from(!is_home);
        let (packets, next) = match known.trust {
            Trust::None | Trust::Lost => return,
            Trust::Checking => {
                known.since += 1;
                (FIRST_PACKETS, (known.since == FIRST_PACKETS).then_some(Trust::Trusted))
            }
            Trust::Trusted => {
                let now = queue.rx_packets.get();
                if now.wrapping_sub(known.since) > WINDOW_PACKETS {
                    (known.since, known.mis_steered) = (now, 0);
                }
                (WINDOW_PACKETS, None)
            }
        };
        known.mis_steered += mis_steered;
        let too_many = known.mis_steered * 100 > packets * MOST_MIS_STEERED_PERCENT;
        let Some(trust) = (if too_many { Some(Trust::Lost) } else { next }) else { return };
        *known = PortTrust { trust, since: queue.rx_packets.get(), mis_steered: 0 };
        queue.trust.set(trust as u64);
        self.all_at_home = self.ports.iter().all(|port| port.trust == Trust::Trusted);
        self.some_trusted = self.ports.iter().any(|port| port.trust == Trust::Trusted);
    }

    /// The stage: those of `flows` that are this worker's to forward, as far as that is not left to the
    /// NIC.
    pub fn steer<F>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        config: &Compiled,
        counters: &WorkerCounters,
    ) -> Mask {
        if self.all_at_home {
            return flows;
        }
        burst.filter(flows, |_, meta| {
            // A packet is handed over once: if the workers disagree, as they may for the moment in
            // which they adopt a snapshot, it is decided here.
            if meta.handed_over {
                return true;
            }
            let port = meta.interface.port();
            let trust = self.trust(port);
            if trust == Trust::Trusted {
                return true;
            }
            let Some(owner) = self.owner(meta, config) else { return true };
            let is_home = owner == self.worker;
            if !is_home {
                meta.verdict = Verdict::HandOver { worker: owner };
            }
            if trust != Trust::None {
                self.note(port, is_home, counters);
            }
            is_home
        })
    }

    /// The stage for packets without a conn that a NIC was trusted with: those of `flows` that really
    /// are this worker's.
    #[inline(always)]
    pub fn claim<F>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        config: &Compiled,
        counters: &WorkerCounters,
    ) -> Mask {
        if self.some_trusted { self.claim_trusted(burst, flows, config, counters) } else { flows }
    }

    // Never inlined: a stage is a symbol in profiles.
    #[inline(never)]
    fn claim_trusted<F>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        config: &Compiled,
        counters: &WorkerCounters,
    ) -> Mask {
        burst.filter(flows, |_, meta| {
            if meta.handed_over || self.trust(meta.interface.port()) != Trust::Trusted {
                return true;
            }
            let Some(owner) = self.owner(meta, config).filter(|owner| *owner != self.worker) else {
                return true;
            };
            meta.verdict = Verdict::HandOver { worker: owner };
            self.note(meta.interface.port(), false, counters);
            false
        })
    }
}
