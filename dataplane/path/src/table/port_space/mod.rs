//! Which local ports of one pool are taken towards one backend: counts by block, a part of them for
//! each worker.
//!
//! Whether a port is taken is what the conn index says. What is kept here is where the next search
//! starts, and how many ports of each block of [`BLOCK`] candidates are taken, so that a search that
//! finds one after the other taken goes on in a block that has room. Searches go round through all
//! addresses and ports, so a port is used again as late as possible: the backend may still hold it
//! in TIME_WAIT.
//!
//! Counts never say more than there is: a new space starts with none, although conns of an earlier
//! one may be there. A search that finds a whole block taken has learned its count.
//!
//! A port rests while the backend holds it in TIME_WAIT: its conn is over, and stays in the index so
//! that the port counts as taken. Only when no other is free is one used again that rests, the
//! longest resting one nearly always, as searches go round.

mod blocks;
mod part;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

pub use part::{BLOCK, Exhausted};
use part::{Part, add};

use super::local_port::{LocalPort, OwnPorts, Towards};
use super::toeplitz::RssFamily;
use crate::family::V4;
use crate::flow::{Endpoint, Flow};
use crate::ids::WorkerId;

/// Looks without a port that was used again too early after which that is over: a minute.
const QUIET_LOOKS: u32 = 60;

/// The local ports of a pool towards a backend.
#[derive(Debug)]
pub struct PortSpace<F: RssFamily = V4> {
    backend: Endpoint<F::Address>,
    /// Local addresses of the pool, in host order.
    addresses: Box<[F::Address]>,
    /// By worker.
    parts: Box<[Part]>,
    /// What [`reused`](Self::reused) was at the last look that saw it grow.
    looked: AtomicU64,
    /// By how much it grew then; 0 when that was long ago.
    reuse_rate: AtomicU32,
    /// Looks since.
    quiet_looks: AtomicU32,
}

impl<F: RssFamily> PortSpace<F> {
    /// The ports of a pool of these addresses towards a backend; all of them free. `owners` are the
    /// workers' parts. Searches start somewhere, by `seed`: after a restart, not where the last process
    /// started.
    pub fn new(
        backend: Endpoint<F::Address>,
        addresses: &[F::Address],
        owners: &[OwnPorts<F>],
        seed: u32,
    ) -> Self {
        let workers = owners.len() as u32;
        let part = |own: &OwnPorts<F>| Part::new(own.capacity(addresses.len()), workers, seed);
        PortSpace {
            backend,
            addresses: addresses.into(),
            parts: owners.iter().map(part).collect(),
            looked: AtomicU64::new(0),
            reuse_rate: AtomicU32::new(0),
            quiet_looks: AtomicU32::new(0),
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        let part = |p: &Part| size_of::<Part>() + p.taken.bytes() + p.at_rest.bytes();
        size_of_val(&*self.addresses) + self.parts.iter().map(part).sum::<usize>()
    }

    /// The local addresses, in host order.
    pub fn addresses(&self) -> &[F::Address] {
        &self.addresses
    }

    /// Ports that a worker has in use and that do not rest, and those that it has.
    pub fn usage(&self, worker: WorkerId) -> (u32, u32) {
        let part = &self.parts[worker.index()];
        let resting = part.resting.load(Relaxed);
        (part.in_use.load(Relaxed).saturating_sub(resting), part.capacity)
    }

    /// How often a port was used again that rested, over all workers.
    pub fn reused(&self) -> u64 {
        self.parts.iter().map(|part| part.reused.get()).sum()
    }

    /// See how often that has happened since the last look; for one thread, once a second.
    pub fn look_at_reuse(&self) {
        let reused = self.reused();
        let news = reused - self.looked.load(Relaxed);
        if news > 0 {
            self.looked.store(reused, Relaxed);
            self.reuse_rate.store(news.min(u32::MAX.into()) as u32, Relaxed);
            self.quiet_looks.store(0, Relaxed);
        } else if self.reuse_rate.load(Relaxed) > 0 {
            add(&self.quiet_looks, 1);
            if self.quiet_looks.load(Relaxed) >= QUIET_LOOKS {
                self.reuse_rate.store(0, Relaxed);
            }
        }
    }

    /// How many ports a second were used again that rested, when there were some in the last minute.
    pub fn reuse_rate(&self) -> u32 {
        self.reuse_rate.load(Relaxed)
    }

    /// Ports that there are, over all workers.
    pub fn capacity(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.capacity)).sum()
    }

    /// Candidates of a worker's block: a search looks at no more than twice as many.
    pub fn block(&self, worker: WorkerId) -> u32 {
        1 << self.parts[worker.index()].shift
    }

    /// Whether any worker has one in use.
    pub fn is_in_use(&self) -> bool {
        self.parts.iter().any(|part| part.in_use.load(Relaxed) > 0)
    }

    fn towards(&self) -> Towards<'_, F> {
        Towards { backend: self.backend, local_addresses: &self.addresses }
    }

    /// The flow in which the backend answers to a local port.
    #[inline(always)]
    fn return_flow(&self, local: LocalPort) -> Flow<F::Address> {
        Flow {
            src: self.backend.address,
            dst: self.addresses[local.address as usize],
            src_port: self.backend.port,
            dst_port: local.port,
            protocol: self.backend.protocol,
        }
    }

    /// Take the next port, unseen: it is likely to be free. The return flow that it gives.
    ///
    /// # Errors
    /// [`Exhausted`] when none is free.
    #[inline(always)]
    pub fn reserve(&self, own: &OwnPorts<F>) -> Result<Flow<F::Address>, Exhausted> {
        let part = &self.parts[own.worker().index()];
        let number = part.next()?;
        part.next.store(number + 1, Relaxed);
        part.take(number >> part.shift);
        let towards = self.towards();
        let share = own.backend_share(&towards);
        Ok(self.return_flow(own.candidate(number, &towards, share)))
    }

    /// Find a port that is free: the first one from where the last search ended that `take` accepts.
    ///
    /// Looks through what is left of the current block and through the next one that has room. Only
    /// where conns of an earlier space are there that are not counted, it may have to look through
    /// more: once through each.
    ///
    /// # Errors
    /// [`Exhausted`] when none is free.
    pub fn find<T>(
        &self,
        own: &OwnPorts<F>,
        mut take: impl FnMut(Flow<F::Address>) -> Option<T>,
    ) -> Result<T, Exhausted> {
        let part = &self.parts[own.worker().index()];
        let towards = self.towards();
        let share = own.backend_share(&towards);
        // The first block may come again at the end, whole.
        for _ in 0..=part.blocks {
            let first = part.next()?;
            let block = first >> part.shift;
            let numbers = part.rest_of_block(first);
            let end = numbers.end;
            for number in numbers {
                let flow = self.return_flow(own.candidate(number, &towards, share));
                if let Some(taken) = take(flow) {
                    part.next.store(number + 1, Relaxed);
                    part.take(block);
                    return Ok(taken);
                }
            }
            if first == block << part.shift {
                part.learn_full(block);
            }
            part.next.store(end, Relaxed);
        }
        Err(Exhausted)
    }

    /// Find a port that rests, to be used again: the first one from where the last search ended, and
    /// so the longest resting one nearly always, that `is_resting` knows. Once its conn is given up,
    /// [`reserve`](Self::reserve) takes it.
    pub fn find_resting<T>(
        &self,
        own: &OwnPorts<F>,
        mut is_resting: impl FnMut(Flow<F::Address>) -> Option<T>,
    ) -> Option<T> {
        let part = &self.parts[own.worker().index()];
        let towards = self.towards();
        let share = own.backend_share(&towards);
        let mut next = part.next.load(Relaxed);
        for _ in 0..=part.blocks {
            let numbers = part.rest_of_block(part.next_in(&part.at_rest, next).ok()?);
            next = numbers.end;
            for number in numbers {
                let flow = self.return_flow(own.candidate(number, &towards, share));
                if let Some(found) = is_resting(flow) {
                    part.next.store(number, Relaxed);
                    part.reused.add(1);
                    return Some(found);
                }
            }
        }
        None
    }

    /// A conn with this local port has ended, or was not made.
    #[inline(always)]
    pub fn release(&self, own: &OwnPorts<F>, local: LocalPort) {
        if let Some((part, block)) = self.block_of(own, local) {
            part.give_back(block);
        }
    }

    /// A conn with this local port begins to rest.
    pub fn rest(&self, own: &OwnPorts<F>, local: LocalPort) {
        if let Some((part, block)) = self.block_of(own, local) {
            part.rest(block);
        }
    }

    /// A conn with this local port rests no more.
    pub fn end_rest(&self, own: &OwnPorts<F>, local: LocalPort) {
        if let Some((part, block)) = self.block_of(own, local) {
            part.end_rest(block);
        }
    }

    #[inline(always)]
    fn block_of(&self, own: &OwnPorts<F>, local: LocalPort) -> Option<(&Part, u32)> {
        let part = &self.parts[own.worker().index()];
        Some((part, own.number(local, &self.towards())? >> part.shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::V6;
    use crate::flow::{FlowBytes, FlowKey};
    use crate::ids::L4Port;
    use crate::table::spread::FIRST_PORT;
    use crate::table::spread::Spread;
    use crate::table::toeplitz::Reta;
    use crate::table::toeplitz::tests::real_keys;
    use crate::testkit::{Random, range_of};
    use std::collections::HashSet;
    use std::sync::Arc;

    const BACKEND: Endpoint = Endpoint { address: 0x0a00_0101, port: L4Port(80), protocol: 6 };

    fn owners(workers: u16, by_hash: bool) -> Vec<OwnPorts> {
        let (_, key) = &real_keys()[0];
        let spread = Arc::new(Spread::new(key, &Reta::even(128, workers), workers).unwrap());
        (0..workers)
            .map(|worker| match by_hash {
                true => OwnPorts::by_hash(WorkerId(worker), Arc::clone(&spread)),
                false => OwnPorts::by_modulo(WorkerId(worker), workers),
            })
            .collect()
    }

    /// One worker's part of a space beside a conn index.
    struct Model {
        space: PortSpace,
        own: OwnPorts,
        taken: HashSet<(u32, L4Port)>,
        /// In the order in which they were made, for quick random picks.
        conns: Vec<(u32, L4Port)>,
        most_probes: usize,
    }

    impl Model {
        fn new(owners: &[OwnPorts], worker: usize, addresses: &[u32], seed: u32) -> Self {
            Model {
                space: PortSpace::new(BACKEND, addresses, owners, seed),
                own: owners[worker].clone(),
                taken: HashSet::new(),
                conns: Vec::new(),
                most_probes: 0,
            }
        }

        fn capacity(&self) -> usize {
            self.own.capacity(self.space.addresses.len()) as usize
        }

        /// As `admit` does it: take the next one unseen, and search when the index knows it.
        fn make(&mut self) -> Result<(u32, L4Port), Exhausted> {
            let planned = self.space.reserve(&self.own)?;
            self.settle(planned)
        }

        fn settle(&mut self, planned: FlowKey) -> Result<(u32, L4Port), Exhausted> {
            let mut found = (planned.dst, planned.dst_port);
            if !self.taken.insert(found) {
                self.release(found);
                let (taken, mut probes) = (&mut self.taken, 0);
                found = self.space.find(&self.own, |flow| {
                    probes += 1;
                    let key = (flow.dst, flow.dst_port);
                    taken.insert(key).then_some(key)
                })?;
                self.most_probes = self.most_probes.max(probes);
            }
            self.conns.push(found);
            Ok(found)
        }

        fn release(&self, (address, port): (u32, L4Port)) {
            let index = self.space.addresses.iter().position(|a| *a == address);
            if let Some(index) = index {
                self.space.release(&self.own, LocalPort { address: index as u32, port });
            }
        }

        fn end(&mut self, index: usize) {
            let conn = self.conns.swap_remove(index);
            assert!(self.taken.remove(&conn));
            self.release(conn);
        }
    }

    #[test]
    fn the_last_free_port_is_found_wherever_it_is_and_none_beyond() {
        let mut random = Random::from_env();
        for (workers, by_hash, addresses) in
            [(1, false, 1), (3, true, 2), (3, false, 2), (16, false, 16)]
        {
            let owners = owners(workers, by_hash);
            let addresses: Vec<u32> = (1..=addresses).collect();
            let worker = random.below(usize::from(workers));
            let mut m = Model::new(&owners, worker, &addresses, random.next_u64() as u32);
            for made in 0..m.capacity() {
                m.make().unwrap_or_else(|_| panic!("{made} of {}", m.capacity()));
            }
            assert_eq!(m.make(), Err(Exhausted), "{workers} workers, by hash: {by_hash}");
            for _ in 0..1_000 {
                let index = random.below(m.conns.len());
                let free = m.conns[index];
                m.end(index);
                assert_eq!(m.make(), Ok(free));
                assert_eq!(m.make(), Err(Exhausted));
            }
            let block = m.space.block(WorkerId(worker as u16)) as usize;
            assert!(m.most_probes <= 2 * block, "{} probes", m.most_probes);
            assert!(addresses.len() > 8 || block == BLOCK as usize);
            assert_eq!(
                m.space.usage(WorkerId(worker as u16)),
                (m.capacity() as u32, m.capacity() as u32)
            );
        }
    }

    #[test]
    fn it_is_refused_only_if_none_is_free_whatever_came_before() {
        let mut random = Random::from_env();
        for (workers, by_hash) in [(3, false), (16, true)] {
            let owners = owners(workers, by_hash);
            let mut addresses = vec![7, 8];
            let mut m = Model::new(&owners, 0, &addresses, 0);
            for round in 0..60 {
                // Mostly full, and emptied a little at times.
                let most = if random.below(8) == 0 { m.conns.len() + 1 } else { 400 };
                let end = random.below(most);
                for _ in 0..end.min(m.conns.len()) {
                    let index = random.below(m.conns.len());
                    m.end(index);
                }
                let in_pool = m.conns.iter().filter(|(a, _)| addresses.contains(a)).count();
                let mut free = m.capacity() - in_pool;
                // Some at a time, as they are planned in bursts.
                for _ in 0..1_000 {
                    let burst = 1 + random.below(32);
                    let planned: Vec<_> =
                        (0..burst).map_while(|_| m.space.reserve(&m.own).ok()).collect();
                    let made = planned.into_iter().filter(|p| m.settle(*p).is_ok()).count();
                    assert_eq!(made, burst.min(free), "round {round}: {free} free");
                    free -= made;
                }
                if round % 10 == 9 {
                    // The pool changes: conns go on, and the counts start anew.
                    let index = random.below(addresses.len());
                    addresses[index] = random.next_u64() as u32;
                    m.space = PortSpace::new(BACKEND, &addresses, &owners, 5);
                }
            }
        }
    }

    #[test]
    fn long_conns_in_a_row_cost_one_search_and_none_is_refused() {
        let owners = owners(1, false);
        for long in [300, 30_000, 63_222] {
            let mut m = Model::new(&owners, 0, &[1], 0);
            (0..long).for_each(|_| assert!(m.make().is_ok()));
            let mut searches = 0;
            for _ in 0..2 * 64_512 {
                m.most_probes = 0;
                assert!(m.make().is_ok(), "with {long} in use for long");
                searches += usize::from(m.most_probes > 0);
                m.end(m.conns.len() - 1);
            }
            // Once a round at the first taken port, and once where the start is come to.
            let rounds = 1 + 2 * 64_512 / (64_512 - long);
            assert!(searches <= 2 * rounds, "{long}: {searches} searches in {rounds} rounds");
        }
    }

    #[test]
    fn a_released_port_comes_again_as_late_as_possible() {
        for (workers, by_hash) in [(1, false), (3, true)] {
            let mut m = Model::new(&owners(workers, by_hash), 0, &[1], 77);
            let first = m.make().unwrap();
            m.end(0);
            for _ in 1..m.capacity() {
                assert_ne!(m.make().unwrap(), first);
                m.end(0);
            }
            assert_eq!(m.make(), Ok(first));
        }
    }

    #[test]
    fn a_space_is_about_a_kilobyte_for_each_address() {
        for workers in [1, 2, 4, 16] {
            let owners = owners(workers, false);
            for addresses in [1, 2, 4, 8, 16, 256] {
                let addresses: Vec<u32> = (1..=addresses).collect();
                let space = PortSpace::new(BACKEND, &addresses, &owners, 0);
                let per_worker = 64 + 4 * 64;
                let most = addresses.len().min(8) * 2 * 576 + addresses.len() * 4;
                let most = most + usize::from(workers) * per_worker;
                assert!(space.bytes() <= most, "{workers} {}: {}", addresses.len(), space.bytes());
            }
        }
    }

    #[test]
    fn workers_share_no_line_of_a_space() {
        for workers in [2, 3, 8] {
            let space = PortSpace::new(BACKEND, &[1, 2, 3], &owners(workers, true), 0);
            let mut lines: Vec<_> = (0..usize::from(workers))
                .flat_map(|worker| {
                    let part = &space.parts[worker];
                    let whole = range_of(std::slice::from_ref(part));
                    let (taken, rest) = (&part.taken, &part.at_rest);
                    let taken = [range_of(&taken.counts), range_of(&taken.bits)];
                    let rest = [range_of(&rest.counts), range_of(&rest.bits)];
                    let ranges = [whole].into_iter().chain(taken).chain(rest);
                    ranges.map(move |range| (range.start / 64, range.end.div_ceil(64), worker))
                })
                .collect();
            lines.sort_unstable();
            assert_eq!(lines.len(), 5 * usize::from(workers));
            assert!(lines.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{lines:x?}");
        }
    }

    /// The same search over addresses of another family.
    #[test]
    fn a_space_of_ipv6_gives_each_port_once_and_one_again_that_is_free() {
        let (_, key) = &real_keys()[0];
        let spread = Arc::new(Spread::<V6>::new(key, &Reta::even(128, 2), 2).unwrap());
        let owners: Vec<OwnPorts<V6>> =
            WorkerId::first(2).map(|w| OwnPorts::by_hash(w, Arc::clone(&spread))).collect();
        let backend = Endpoint { address: 7 << 64, port: L4Port(80), protocol: 17 };
        let space = PortSpace::<V6>::new(backend, &[1, 2 << 96], &owners, 3);
        let capacity = owners[1].capacity(2);
        let mut taken = HashSet::new();
        for _ in 0..capacity {
            let flow = space.reserve(&owners[1]).unwrap();
            assert_eq!((flow.source(), spread.queue(&FlowBytes::from(&flow))), (backend, 1));
            assert!(taken.insert(flow.destination()));
        }
        assert_eq!(space.reserve(&owners[1]), Err(Exhausted));
        assert_eq!(space.usage(WorkerId(1)), (capacity, capacity));
        let free = taken.iter().find(|end| end.address == 2 << 96).unwrap();
        space.release(&owners[1], LocalPort { address: 1, port: free.port });
        let found = space.find(&owners[1], |flow| (flow.destination() == *free).then_some(flow));
        assert_eq!(found.map(|flow| flow.destination()), Ok(*free));
    }

    #[test]
    fn ports_of_others_change_nothing() {
        let owners = owners(3, false);
        let mut m = Model::new(&owners, 1, &[1, 2], 0);
        m.make().unwrap();
        let foreign = (0..=FIRST_PORT.0 + 30).filter(|p| *p < FIRST_PORT.0 || p % 3 != 1);
        let foreign = foreign.map(L4Port);
        foreign.for_each(|port| m.space.release(&m.own, LocalPort { address: 0, port }));
        assert_eq!(m.space.usage(WorkerId(1)).0, 1);
    }
}
