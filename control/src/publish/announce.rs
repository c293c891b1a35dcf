//! Which addresses to have announced, and which the data plane says have been.
//!
//! The data plane paces announcements, repeats them, and remembers what has left since its start. So an
//! address is asked for when it is in the snapshot and not among those: a new VIP, or any after a restart
//! of the data plane, and none after a restart of control.

use std::collections::HashSet;
use std::net::IpAddr;

/// What is to be announced over one connection.
#[derive(Debug, Default)]
pub struct Announcer {
    /// Addresses of the snapshot in force.
    addresses: Vec<IpAddr>,
    /// Those of them that the data plane was asked for, and has not announced yet as far as we know.
    asked: HashSet<IpAddr>,
    /// Those that the data plane would not announce.
    refused: HashSet<IpAddr>,
}

impl Announcer {
    /// The data plane forwards by a snapshot with these addresses now.
    pub fn in_force(&mut self, addresses: Vec<IpAddr>) {
        let current: HashSet<&IpAddr> = addresses.iter().collect();
        self.asked.retain(|address| current.contains(address));
        self.refused.clear();
        self.addresses = addresses;
    }

    /// Of those that were asked for, the ones that are `announced` since we last looked, in order.
    pub fn done(&mut self, announced: &[IpAddr]) -> Vec<IpAddr> {
        announced.iter().filter(|address| self.asked.remove(*address)).copied().collect()
    }

    /// The addresses to ask for now.
    pub fn missing(&self, announced: &[IpAddr]) -> Vec<IpAddr> {
        let announced: HashSet<&IpAddr> = announced.iter().collect();
        let is_known = |a: &IpAddr| {
            announced.contains(a) || self.asked.contains(a) || self.refused.contains(a)
        };
        self.addresses.iter().filter(|address| !is_known(address)).copied().collect()
    }

    /// The data plane was asked to announce `asked`, and `taken` it does; the others, in order.
    pub fn asked(&mut self, asked: &[IpAddr], taken: Vec<IpAddr>) -> Vec<IpAddr> {
        self.asked.extend(taken);
        let refused: Vec<IpAddr> =
            asked.iter().filter(|address| !self.asked.contains(*address)).copied().collect();
        self.refused.extend(&refused);
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_once_and_told_when_it_has_left() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| IpAddr::from([10, 0, 0, n]));
        let mut announcer = Announcer::default();
        announcer.in_force(vec![a, b, c, d]);
        assert_eq!(announcer.missing(&[a]), [b, c, d]);
        assert_eq!(announcer.asked(&[b, c, d], vec![b, d]), [c]);
        assert!(announcer.missing(&[a]).is_empty(), "b and d are on their way, c was refused");
        assert_eq!(announcer.done(&[a]), [] as [IpAddr; 0], "a had left before");
        assert_eq!(announcer.done(&[a, b]), [b]);
        assert_eq!(announcer.done(&[a, b, d]), [d], "each once");

        announcer.in_force(vec![a, c]);
        assert_eq!(announcer.missing(&[a]), [c], "another snapshot: asked again");
        announcer.asked(&[c], vec![c]);
        announcer.in_force(vec![a]);
        announcer.in_force(vec![a, c]);
        assert_eq!(announcer.missing(&[a]), [c], "it was gone meanwhile: the data plane forgot it");
    }
}
