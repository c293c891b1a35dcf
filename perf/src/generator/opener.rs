//! Opens many connections before a run: a handshake for each flow, so many at a time.

/// Most handshakes under way: what a load balancer's receive queue takes without loss.
const WINDOW: u32 = 512;

/// Which connections are open, and whose turn it is.
pub struct Opener {
    open: Vec<bool>,
    opened: u32,
    next: u32,
    under_way: u32,
}

impl Opener {
    /// For so many flows, none of them open.
    pub fn new(flows: u32) -> Self {
        Opener { open: vec![false; flows as usize], opened: 0, next: 0, under_way: 0 }
    }

    /// How many are open.
    pub fn open(&self) -> u32 {
        self.opened
    }

    /// Whether all are open.
    pub fn is_done(&self) -> bool {
        self.opened as usize == self.open.len()
    }

    /// The server answered a flow's SYN.
    pub fn opened(&mut self, flow: u32) {
        let Some(open) = self.open.get_mut(flow as usize) else { return };
        if !*open {
            *open = true;
            self.opened += 1;
            self.under_way = self.under_way.saturating_sub(1);
        }
    }

    /// The next flow whose SYN is to be sent; none when enough are under way or all were tried.
    pub fn next(&mut self) -> Option<u32> {
        if self.under_way >= WINDOW {
            return None;
        }
        while let Some(open) = self.open.get(self.next as usize) {
            let flow = self.next;
            self.next += 1;
            if !open {
                self.under_way += 1;
                return Some(flow);
            }
        }
        None
    }

    /// Nothing was answered for a while: try again all that were not answered.
    pub fn retry(&mut self) {
        self.next = 0;
        self.under_way = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_opened_although_every_third_is_lost() {
        let mut opener = Opener::new(10_000);
        let mut sent = 0_u32;
        for _ in 0..100_000 {
            match opener.next() {
                Some(flow) => {
                    sent += 1;
                    if !sent.is_multiple_of(3) {
                        opener.opened(flow);
                        opener.opened(flow);
                    }
                }
                None if opener.is_done() => break,
                None => opener.retry(),
            }
        }
        assert!(opener.is_done() && opener.next().is_none());
        assert_eq!(opener.open(), 10_000);
        assert!((14_000..16_500).contains(&sent), "{sent}");
    }

    #[test]
    fn no_more_are_under_way_than_a_queue_takes() {
        let mut opener = Opener::new(10_000);
        assert_eq!(std::iter::from_fn(|| opener.next()).count() as u32, WINDOW);
        opener.opened(3);
        opener.opened(10_001);
        assert_eq!(std::iter::from_fn(|| opener.next()).count(), 1);
    }
}
