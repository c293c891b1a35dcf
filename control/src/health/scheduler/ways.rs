//! Ways that close and open, and times in which silence tells nothing.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Scheduler;
use super::entry::EntryId;
use crate::health::doubt::Cause;
use crate::health::way::{Contact, Ways};
use crate::health::{CheckResult, phase};
use sluice_api::clock::now_ms;

/// A link that is down is seen so much later at most: the data plane looks each 100 ms at what it finds each
/// 100 ms, and control asks it each 250 ms.
const LINK_SEEN_AFTER: Duration = Duration::from_secs(1);

impl Scheduler {
    /// A worker was stuck then.
    pub(super) fn note_stall(&mut self, stall: Option<(u64, u64)>) {
        let now_us = self.now_us();
        let Some((began_ms, ended_ms)) = stall else {
            // That it is over was not heard.
            self.doubts.end(&Cause::Stall, now_us);
            return;
        };
        let ago = |ms: u64| now_us.saturating_sub(ms.saturating_mul(1_000));
        self.doubt_silence(Cause::Stall, ago(began_ms), (ended_ms > 0).then(|| ago(ended_ms)));
    }

    /// Checks without an answer between then and then tell nothing; nor did they.
    fn doubt_silence(&mut self, cause: Cause, from_us: u64, until_us: Option<u64>) {
        let from_us = self.doubts.note(cause.clone(), from_us, until_us);
        let entries = self.entries.values_mut();
        for entry in entries.filter(|e| e.silent_us > from_us && cause.concerns(&e.via)) {
            entry.silent_us = 0;
            entry.undecided = true;
            let reason = format!("no answer, but {cause}");
            self.last_checks.note(&entry.target, CheckResult::Undecided, &reason, now_ms());
            if std::mem::take(&mut entry.fell_us) > from_us {
                let healthy = entry.machine.restore();
                let _ = self.changes.send(entry.change(healthy, format!("{reason}: taken back")));
            } else if entry.machine.healthy() != Some(false) {
                entry.machine.forget();
            }
        }
    }

    /// Take note of which ways are open. Until `since` they were as noted before.
    pub(super) fn set_ways(&mut self, ways: Ways, since: Instant) {
        let now_us = self.now_us();
        let start = self.start;
        let us = |at: Instant| at.saturating_duration_since(start).as_micros() as u64;
        let mut opened = false;
        match &ways.contact {
            Contact::Away { since, .. } => self.doubt_silence(Cause::Dataplane, us(*since), None),
            Contact::Answers(_) => {
                opened |= self.doubts.end(&Cause::Dataplane, now_us);
                opened |= self.ways.contact == Contact::NotMet;
            }
            Contact::NotMet => {}
        }
        for (name, interface) in &ways.interfaces {
            let cause = Cause::Interface(name.clone());
            if interface.fault.is_some() {
                self.doubt_silence(cause, us(since), None);
            } else {
                opened |= self.doubts.end(&cause, now_us);
            }
            let cause = Cause::Link(name.clone());
            if interface.link_fault.is_some() {
                let seen_after_us = LINK_SEEN_AFTER.as_micros() as u64;
                self.doubt_silence(cause, us(since).saturating_sub(seen_after_us), None);
            } else {
                opened |= self.doubts.end(&cause, now_us);
            }
        }
        self.ways = Arc::new(ways);
        if opened {
            self.ways_opened_us = now_us;
            self.ask_undecided();
        }
    }

    /// Who could not be asked is due now, spread as new targets are.
    fn ask_undecided(&mut self) {
        let now_us = self.now_us();
        let undecided = |id: &EntryId| self.entries.get(id).filter(|entry| entry.undecided);
        let count = self.due.iter().filter(|Reverse((_, id))| undecided(id).is_some()).count();
        let soon = |id: EntryId| {
            let entry = undecided(&id)?;
            Some(phase::first_due(entry.phase, entry.interval_us(), now_us, count))
        };
        let moved = std::mem::take(&mut self.due).into_iter().map(|Reverse((due_us, id))| {
            Reverse((soon(id).map_or(due_us, |soon_us| soon_us.min(due_us)), id))
        });
        self.due = moved.collect();
    }
}
