//! Which addresses to announce, and when to say it again.
//!
//! The data plane remembers what it announced since its start, so an address needs it when it is in
//! the snapshot and not among those: a new VIP, or any after a restart of the data plane, and none
//! after a restart of control. An announcement is repeated, as a single frame may be lost.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

/// How often an announcement is repeated.
const REPEATS: u8 = 2;
/// Time between two repetitions.
const DISTANCE: Duration = Duration::from_secs(1);

/// What was announced over one connection, and is to be repeated.
#[derive(Debug, Default)]
pub struct Announcer {
    /// Addresses of the snapshot in force.
    addresses: Vec<Ipv4Addr>,
    /// Those that the data plane would not announce.
    refused: HashSet<Ipv4Addr>,
    /// Announced, and to be repeated: when next, how often still, what.
    repeats: Vec<(Instant, u8, Vec<Ipv4Addr>)>,
}

impl Announcer {
    /// The data plane forwards by a snapshot with these addresses now.
    pub fn in_force(&mut self, addresses: Vec<Ipv4Addr>) {
        self.refused.clear();
        self.addresses = addresses;
    }

    /// The addresses to announce now for the first time.
    pub fn missing(&self, announced: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let announced: HashSet<&Ipv4Addr> = announced.iter().collect();
        let missing = |a: &&Ipv4Addr| !announced.contains(*a) && !self.refused.contains(*a);
        self.addresses.iter().filter(missing).copied().collect()
    }

    /// The data plane was asked to announce `asked` for the first time and announced `done`.
    pub fn announced(&mut self, asked: &[Ipv4Addr], done: Vec<Ipv4Addr>, now: Instant) {
        self.refused.extend(asked.iter().filter(|a| !done.contains(a)));
        if !done.is_empty() {
            self.repeats.push((now + DISTANCE, REPEATS, done));
        }
    }

    /// The addresses to announce once more now; those that left the snapshot are forgotten.
    pub fn due(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        let current: HashSet<&Ipv4Addr> = self.addresses.iter().collect();
        let mut due = Vec::new();
        for (at, left, addresses) in &mut self.repeats {
            if *at <= now {
                due.extend(addresses.iter().filter(|a| current.contains(a)));
                *at += DISTANCE;
                *left -= 1;
            }
        }
        self.repeats.retain(|(_, left, _)| *left > 0);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announces_what_is_missing_and_repeats_it_twice() {
        let [a, b, c] = [1, 2, 3].map(|n| Ipv4Addr::new(10, 0, 0, n));
        let mut announcer = Announcer::default();
        let start = Instant::now();
        announcer.in_force(vec![a, b, c]);
        assert_eq!(announcer.missing(&[a]), [b, c]);
        announcer.announced(&[b, c], vec![b], start);
        assert!(announcer.missing(&[a, b]).is_empty(), "c was refused: not asked again");
        assert!(announcer.due(start).is_empty());
        assert_eq!(announcer.due(start + DISTANCE), [b]);
        assert!(announcer.due(start + DISTANCE).is_empty());
        assert_eq!(announcer.due(start + 2 * DISTANCE), [b]);
        assert!(announcer.due(start + 9 * DISTANCE).is_empty());

        announcer.in_force(vec![a, c]);
        assert_eq!(announcer.missing(&[a]), [c], "another snapshot: asked again");
    }
}
