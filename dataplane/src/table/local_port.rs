//! Local ports for full-NAT: which (local address, local port) a new conn gets.
//!
//! A local port may serve one conn towards each backend at a time, so a backend has all of them to
//! itself. What is taken is what the conn index says; all that is kept here is, per backend, how
//! many are in use and where the next search starts. Searches go round through all addresses and
//! ports, so a port is used again as late as possible: the backend may still hold it in TIME_WAIT.
//!
//! A worker owns the ports that are congruent to its number modulo the workers: the return packet
//! names its owner (design, invariant 2).

/// First local port: those below are for servers (RFC 6335).
pub const FIRST_PORT: u16 = 1_024;

/// Candidates looked at before a new conn is refused although some port may be free. At 98 % use
/// of a backend's ports a search of this length fails once in 170 times.
pub const MOST_PROBES: u32 = 256;

/// A candidate: a local address and local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// Index of the address in the pool.
    pub address: u32,
    /// L4 port.
    pub port: u16,
}

/// The part of every local address's ports that one worker owns.
#[derive(Clone, Copy, Debug)]
pub struct OwnPorts {
    first: u32,
    step: u32,
    per_address: u32,
}

impl OwnPorts {
    /// Those of worker number `worker` of `workers`.
    pub fn new(worker: u16, workers: u16) -> Self {
        let (worker, step) = (u32::from(worker), u32::from(workers));
        let start = u32::from(FIRST_PORT);
        let first = start + (worker + step - start % step) % step;
        OwnPorts { first, step, per_address: (0xffff - first) / step + 1 }
    }

    /// The worker, of `workers`, that owns a local port.
    #[inline(always)]
    pub fn owner(port: u16, workers: u16) -> u16 {
        port % workers
    }

    /// How many conns towards one backend this worker can have with so many local addresses.
    pub fn capacity(&self, addresses: usize) -> u32 {
        self.per_address.saturating_mul(addresses as u32)
    }

    /// Candidate number `cursor`; neighbours in number use different addresses, so that all are
    /// used equally.
    #[inline]
    fn candidate(&self, cursor: u32, addresses: u32) -> LocalPort {
        let nth = cursor / addresses % self.per_address;
        LocalPort { address: cursor % addresses, port: (self.first + nth * self.step) as u16 }
    }
}

/// Where the search for one backend stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    next: u32,
    in_use: u32,
}

/// All local ports towards a backend are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Cursor {
    /// A cursor that starts somewhere: after a restart, not where the last process started.
    pub fn starting_at(seed: u32) -> Self {
        Cursor { next: seed, in_use: 0 }
    }

    /// Conns that have a local port towards this backend.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Find a local port for a new conn: the first candidate that `take` accepts.
    ///
    /// # Errors
    /// [`Exhausted`] when all are in use, or none of the next [`MOST_PROBES`] candidates is free.
    pub fn allocate<T>(
        &mut self,
        ports: &OwnPorts,
        addresses: usize,
        mut take: impl FnMut(LocalPort) -> Option<T>,
    ) -> Result<T, Exhausted> {
        let capacity = ports.capacity(addresses);
        if self.in_use >= capacity {
            return Err(Exhausted);
        }
        for _ in 0..MOST_PROBES {
            if self.next >= capacity {
                self.next = if self.next == capacity { 0 } else { self.next % capacity };
            }
            let candidate = ports.candidate(self.next, addresses as u32);
            self.next += 1;
            if let Some(taken) = take(candidate) {
                self.in_use += 1;
                return Ok(taken);
            }
        }
        Err(Exhausted)
    }

    /// Count a port in again that was given back too early.
    pub fn keep(&mut self) {
        self.in_use += 1;
    }

    /// A conn has given its local port back.
    pub fn release(&mut self) {
        debug_assert!(self.in_use > 0, "a port is given back once");
        self.in_use = self.in_use.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn workers_share_all_ports_and_nobody_owns_one_twice() {
        for workers in 1..=7 {
            let mut seen = HashSet::new();
            for worker in 0..workers {
                let ports = OwnPorts::new(worker, workers);
                for cursor in 0..ports.capacity(1) {
                    let port = ports.candidate(cursor, 1).port;
                    assert_eq!(OwnPorts::owner(port, workers), worker);
                    assert!(port >= FIRST_PORT && seen.insert(port));
                }
            }
            assert_eq!(seen.len(), 65_536 - usize::from(FIRST_PORT));
        }
    }

    #[test]
    fn every_port_of_every_address_is_used_once_then_it_is_exhausted() {
        let ports = OwnPorts::new(1, 2);
        let mut cursor = Cursor::starting_at(4_000_000_000);
        let mut taken = HashSet::new();
        let capacity = ports.capacity(3);
        for _ in 0..capacity {
            let port = cursor
                .allocate(&ports, 3, |c| taken.insert((c.address, c.port)).then_some(c))
                .unwrap();
            assert!(port.address < 3);
        }
        assert_eq!(taken.len() as u32, capacity);
        assert_eq!(cursor.allocate(&ports, 3, Some), Err(Exhausted));
        cursor.release();
        assert!(cursor.allocate(&ports, 3, Some).is_ok());
    }

    #[test]
    fn a_released_port_comes_again_as_late_as_possible() {
        let ports = OwnPorts::new(0, 1);
        let mut cursor = Cursor::default();
        let first = cursor.allocate(&ports, 1, Some).unwrap();
        cursor.release();
        for _ in 1..ports.capacity(1) {
            assert_ne!(cursor.allocate(&ports, 1, Some).unwrap(), first);
            cursor.release();
        }
        assert_eq!(cursor.allocate(&ports, 1, Some).unwrap(), first);
    }

    #[test]
    fn a_search_is_bounded() {
        let ports = OwnPorts::new(0, 1);
        let mut cursor = Cursor::default();
        let mut probes = 0;
        let found = cursor.allocate(&ports, 256, |_| {
            probes += 1;
            None::<()>
        });
        assert_eq!((found, probes), (Err(Exhausted), MOST_PROBES));
    }
}
