//! The load: builds packets in bursts from prepared templates, in a prepared order.

use sluice_dataplane::dpdk::{Mbuf, Mempool, TxQueue};
use sluice_path::frame::Frame;

use super::flows::{Client, FlowSpace};
use super::handler::Handler;
use super::link::BURST;
use super::order::Slot;
use super::plan::Plan;
use super::template::{Target, Template};

/// Builds and sends the load.
pub struct Sender {
    pool: Mempool,
    templates: Vec<Template>,
    slots: Vec<Slot>,
    position: usize,
    /// Built, and not taken by the device yet.
    waiting: Vec<Mbuf>,
    /// One packet in so many is a probe; 0: none.
    sample_every: usize,
    /// Packets before the next probe.
    until_probe: usize,
    flows: FlowSpace,
    /// Round of sizes, and where in it connections are.
    sizes: Vec<u8>,
    size_position: usize,
}

impl Sender {
    /// For a plan, with buffers of `pool`, all of which are zero.
    pub fn new(plan: &Plan, target: &Target, pool: Mempool) -> Self {
        let kind = plan.traffic.kind();
        // A SYN carries no payload, so no number.
        let has_probes = kind.has_payload();
        Sender {
            pool,
            templates: Template::for_sizes(kind, target, &plan.sizes),
            slots: plan.order.slots(&plan.flows, &plan.sizes.round(), plan.seed),
            position: 0,
            waiting: Vec::with_capacity(BURST),
            sample_every: if has_probes { plan.sample_every as usize } else { 0 },
            until_probe: 0,
            flows: plan.flows,
            sizes: plan.sizes.round(),
            size_position: 0,
        }
    }

    /// The next packet's flow and size, without sending it.
    pub fn next_slot(&mut self) -> Slot {
        let slot = self.slots[self.position];
        self.position = (self.position + 1) % self.slots.len();
        slot
    }

    /// The pool that packets come from.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// Whether the last packets have not been taken yet.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Build `count` packets, at most a burst, unless some wait already.
    #[inline]
    pub fn build(&mut self, count: usize, cycles: u64, handler: &mut Handler) {
        let left = self.slots.len() - self.position;
        let count = count.min(left).min(BURST);
        if !self.pool.alloc_bulk(&mut self.waiting, count) {
            handler.counts.no_buffers += 1;
            return;
        }
        let slots = &self.slots[self.position..self.position + count];
        self.position = if count == left { 0 } else { self.position + count };
        let templates = &self.templates[..];
        for (mbuf, slot) in self.waiting.iter_mut().zip(slots) {
            let Some(template) = templates.get(usize::from(slot.template)) else { continue };
            if mbuf.set_len(template.len()).is_ok() {
                template.write(*slot, mbuf.bytes_mut());
            }
        }
        if self.sample_every > 0 {
            while self.until_probe < count {
                let slot = slots[self.until_probe];
                let client = Client { address: slot.address, port: slot.port };
                let flow = self.flows.index(client).unwrap_or_default();
                let number = handler.probes.send(flow, cycles);
                let template = &templates[usize::from(slot.template)];
                template.write_probe(slot, self.waiting[self.until_probe].bytes_mut(), number);
                self.until_probe += self.sample_every;
            }
            self.until_probe -= count;
        }
    }

    /// Give the device what waits.
    #[inline]
    pub fn flush(&mut self, tx: &mut TxQueue, handler: &mut Handler) {
        if !self.waiting.is_empty() {
            let counts = &mut handler.counts;
            counts.sent += tx.burst(&mut self.waiting) as u64;
            counts.bursts += 1;
            counts.bursts_refused += u64::from(!self.waiting.is_empty());
        }
    }

    /// Drop what waits: the run is over. Probes among it were never sent.
    pub fn discard(&mut self, handler: &mut Handler) {
        for mbuf in self.waiting.drain(..) {
            handler.forget_if_probe(mbuf.bytes());
        }
    }

    /// Build and queue one TCP segment of a connection, as [`Template::write`], with its own numbers.
    pub fn push(
        &mut self,
        template: &Template,
        slot: Slot,
        (seq, ack): (u32, u32),
        probe: Option<u32>,
    ) -> bool {
        if self.waiting.len() >= BURST {
            return false;
        }
        let Some(mut mbuf) = self.pool.alloc() else { return false };
        if mbuf.set_len(template.len()).is_err() {
            return false;
        }
        match probe {
            Some(number) => template.write_probe(slot, mbuf.bytes_mut(), number),
            None => template.write(slot, mbuf.bytes_mut()),
        }
        super::packet::renumber_segment(mbuf.bytes_mut(), seq, ack);
        self.waiting.push(mbuf);
        true
    }

    /// Whether no more segments can be queued before some are sent.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= BURST
    }

    /// Give the device what waits, which is not of the load.
    pub fn flush_uncounted(&mut self, tx: &mut TxQueue) {
        tx.burst(&mut self.waiting);
    }

    /// The size of the next data packet of a connection, as the number of its template.
    pub fn next_size(&mut self) -> u16 {
        self.size_position = (self.size_position + 1) % self.sizes.len();
        u16::from(self.sizes[self.size_position])
    }

    /// Whether the next packet is to be a probe.
    pub fn is_probe_next(&mut self) -> bool {
        if self.sample_every == 0 {
            return false;
        }
        let is_probe = self.until_probe == 0;
        self.until_probe = if is_probe { self.sample_every - 1 } else { self.until_probe - 1 };
        is_probe
    }

    /// The templates of the load, one for each size.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }
}
