//! How packets find the worker that owns their conn: chosen at start-up by what the ports can do,
//! and told as it is now. Nobody configures it.

use std::sync::Arc;

use crate::dpdk::{NoRss, Rss};
use sluice_path::pipeline::{FIRST_PACKETS, MOST_MIS_STEERED_PERCENT, Steering, Trust};
use sluice_path::table::owner::Owners;
use sluice_path::table::spread::Spread;
use sluice_path::table::toeplitz::RssKey;

/// What was found out about a port's RSS, to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRss {
    /// Bytes of its key, 0 when it is not known.
    pub key_bytes: u16,
    /// Entries of its table, 0 when it is not known.
    pub table_entries: u16,
    /// Why it is not used; `None` when it is.
    pub why_not: Option<String>,
    /// Whether an event has said that it is not used any more.
    is_lost: bool,
}

/// Choose for ports with these names and this RSS.
///
/// All workers and ports have one rule for who owns what (`table/owner.rs`): that of most ports.
pub fn choose(ports: &[(&str, Result<&Rss, &NoRss>)], workers: u16) -> (Steering, Vec<PortRss>) {
    let shown = |rss: &Result<&Rss, &NoRss>| match rss {
        Ok(rss) => PortRss {
            key_bytes: rss.key.len() as u16,
            table_entries: rss.reta.len() as u16,
            ..PortRss::default()
        },
        Err(_) => PortRss::default(),
    };
    let mut shown: Vec<PortRss> = ports.iter().map(|(_, rss)| shown(rss)).collect();
    let spreads: Vec<Result<(RssKey, Spread), String>> = ports
        .iter()
        .map(|(_, rss)| {
            let rss = rss.map_err(NoRss::to_string)?;
            let key = RssKey::new(&rss.key);
            let spread = Spread::new(&key, &rss.reta, workers).map_err(|e| e.to_string())?;
            Ok((key, spread))
        })
        .collect();
    let alike = |(key, spread): &(RssKey, Spread), (other_key, other): &(RssKey, Spread)| {
        key.hashes_alike(other_key) && spread.reta().spreads_alike(other.reta())
    };
    let like = |one| spreads.iter().flatten().filter(|other| alike(one, other)).count();
    // Of equals, the first.
    let rule = (0..ports.len())
        .filter_map(|port| spreads[port].as_ref().ok().map(|spread| (port, like(spread))))
        .rev()
        .max_by_key(|(_, count)| *count)
        .map(|(port, _)| port)
        .filter(|_| workers > 1);
    let by_nic: Vec<bool> = spreads
        .iter()
        .zip(&mut shown)
        .map(|(spread, shown)| {
            shown.why_not = match (spread, rule.map(|port| (ports[port].0, &spreads[port]))) {
                (Ok(spread), Some((_, Ok(rule)))) if alike(spread, rule) => None,
                (Ok(_), Some((name, _))) => {
                    Some(format!("its RSS key or table differs from that of port {name}"))
                }
                (Ok(_), None) => Some("there is one worker".to_owned()),
                (Err(reason), _) => Some(reason.clone()),
            };
            shown.why_not.is_none()
        })
        .collect();
    let owners = match rule.and_then(|port| spreads.into_iter().nth(port)) {
        Some(Ok((_, spread))) => Owners::Rss(Arc::new(spread)),
        _ => Owners::Arithmetic { workers },
    };
    (Steering { owners, by_nic: by_nic.into() }, shown)
}

impl PortRss {
    /// How the port's packets find their worker, and why, as the workers trust its NIC.
    pub fn in_words(&self, trusts: &[Trust]) -> (&'static str, String) {
        let count = |wanted| trusts.iter().filter(|trust| **trust == wanted).count();
        match &self.why_not {
            _ if trusts.len() == 1 => ("single-worker", "there is one worker".to_owned()),
            Some(reason) => ("handover", reason.clone()),
            None if count(Trust::Lost) > 0 => {
                ("handover", "packets came to wrong queues".to_owned())
            }
            None if count(Trust::Checking) > 0 => {
                let (trusted, all) = (count(Trust::Trusted), trusts.len());
                let reason = format!(
                    "its RSS is known; verified by {trusted} of {all} queues, by {FIRST_PACKETS} packets each"
                );
                ("rss", reason)
            }
            None => ("rss", "its RSS is known and verified by all queues".to_owned()),
        }
    }

    /// Whether a worker does not trust the NIC any more, and nobody has been told.
    pub fn has_become_lost(&mut self, trusts: &[Trust]) -> bool {
        let is_news = !self.is_lost && trusts.contains(&Trust::Lost);
        self.is_lost |= is_news;
        is_news
    }

    /// What is told of it then, with the packets that came to wrong queues so far.
    pub fn loss_in_words(port: &str, mis_steered: u64) -> String {
        format!(
            "port {port}: more than {MOST_MIS_STEERED_PERCENT} % of a queue's packets belonged to \
             another by the RSS key and table that the device tells ({mis_steered} packets so \
             far); they are handed over from now on, and no connection is lost"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_path::table::toeplitz::Reta;

    fn rss(seed: u64, entries: usize, workers: u16) -> Rss {
        let key = RssKey::generate(seed).bytes()[..40].into();
        Rss { key, reta: Reta::even(entries, workers) }
    }

    fn chosen(ports: &[Result<&Rss, &NoRss>], workers: u16) -> (bool, Vec<bool>, Vec<PortRss>) {
        let names = ["wan", "lan", "dmz"];
        let ports: Vec<_> = names.into_iter().zip(ports.iter().copied()).collect();
        let (steering, shown) = choose(&ports, workers);
        (matches!(steering.owners, Owners::Rss(_)), steering.by_nic.into(), shown)
    }

    #[test]
    fn ports_that_spread_alike_are_left_to_their_nics() {
        let (small, large) = (rss(1, 64, 4), rss(1, 512, 4));
        let (by_rss, by_nic, shown) = chosen(&[Ok(&small), Ok(&large)], 4);
        assert_eq!((by_rss, by_nic), (true, vec![true, true]));
        let all = PortRss { key_bytes: 40, table_entries: 512, ..PortRss::default() };
        assert_eq!(shown[1], all);
    }

    #[test]
    fn the_rule_of_most_ports_counts_and_the_others_hand_over() {
        let (one, other) = (rss(1, 128, 2), rss(2, 128, 2));
        let (by_rss, by_nic, shown) = chosen(&[Ok(&other), Ok(&one), Ok(&one)], 2);
        assert_eq!((by_rss, by_nic), (true, vec![false, true, true]));
        let why = "its RSS key or table differs from that of port lan";
        assert_eq!(shown[0].why_not.as_deref(), Some(why));
        let (_, by_nic, _) = chosen(&[Ok(&other), Ok(&one)], 2);
        assert_eq!(by_nic, [true, false], "of equals, the first");
    }

    #[test]
    fn ports_without_usable_rss_hand_over() {
        let good = rss(1, 128, 2);
        let (by_rss, by_nic, shown) = chosen(&[Err(&NoRss::Key), Ok(&good)], 2);
        assert_eq!((by_rss, by_nic), (true, vec![false, true]));
        assert_eq!(shown[0].why_not, Some(NoRss::Key.to_string()));
        let bad = Rss { reta: [0; 128].into(), ..good.clone() };
        let (by_rss, by_nic, shown) = chosen(&[Ok(&bad), Err(&NoRss::Table)], 2);
        assert_eq!((by_rss, by_nic), (false, vec![false, false]));
        assert_eq!(shown[0].why_not.as_deref(), Some("its RSS table leads nothing to queue 1"));
        let (by_rss, by_nic, _) = chosen(&[Err(&NoRss::OneQueue), Err(&NoRss::OneQueue)], 1);
        assert_eq!((by_rss, by_nic), (false, vec![false, false]));
    }
}
