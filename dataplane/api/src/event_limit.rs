//! How much people are told of what others can cause: the limits of all event logs, and what a log
//! keeps. Both are bounded in memory, whatever happens.
//!
//! Each kind of event has a rate, and each subject within it another one, so that a subject that
//! flaps hides no other and a flood over many subjects hides no other kind. What is left out is
//! counted, and told with the next one of the same subject, or by itself once the rate allows it.

use std::collections::{HashMap, VecDeque};

/// Subjects of a kind that are told apart; the others share what the kind has.
const MOST_SUBJECTS: usize = 1_024;
/// Kinds that are told apart; the others share one.
const MOST_KINDS: usize = 256;

/// How often something is told.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Times at once, after a pause.
    pub at_once: u64,
    /// Time for one more, in ms.
    pub every_ms: u64,
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Time that has been saved up: [`Rate::every_ms`] for each time.
    saved_ms: u64,
    filled_ms: u64,
}

impl Bucket {
    fn full(rate: Rate, now_ms: u64) -> Self {
        Bucket { saved_ms: rate.at_once * rate.every_ms, filled_ms: now_ms }
    }

    fn fill(&mut self, rate: Rate, now_ms: u64) {
        let fresh_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.saved_ms = self.saved_ms.saturating_add(fresh_ms).min(rate.at_once * rate.every_ms);
    }

    fn has_one(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.fill(rate, now_ms);
        self.saved_ms >= rate.every_ms
    }

    fn take(&mut self, rate: Rate) {
        self.saved_ms -= rate.every_ms;
    }
}

/// What was left out: how many, and the last of them.
#[derive(Debug)]
struct Untold<E> {
    count: u64,
    last: Option<E>,
}

impl<E> Untold<E> {
    const NOTHING: Self = Untold { count: 0, last: None };

    fn add(&mut self, event: E) {
        self.count += 1;
        self.last = Some(event);
    }

    fn take(&mut self) -> Option<(E, u64)> {
        let count = std::mem::take(&mut self.count);
        self.last.take().map(|last| (last, count))
    }
}

#[derive(Debug)]
struct Subject<E> {
    bucket: Bucket,
    untold: Untold<E>,
}

#[derive(Debug)]
struct Kind<E> {
    bucket: Bucket,
    subjects: HashMap<String, Subject<E>>,
    /// Of subjects that are not told apart.
    untold: Untold<E>,
}

/// The limits of a log of events `E`.
#[derive(Debug)]
pub struct EventLimits<E> {
    each: Rate,
    kind: Rate,
    kinds: HashMap<String, Kind<E>>,
}

impl<E> EventLimits<E> {
    /// With rates of each subject, and of each kind over all its subjects.
    pub fn new(each: Rate, kind: Rate) -> Self {
        EventLimits { each, kind, kinds: HashMap::new() }
    }

    /// The event, if it may be told now, and how many of its subject before it were not.
    pub fn offer(&mut self, now_ms: u64, kind: &str, subject: &str, event: E) -> Option<(E, u64)> {
        let (each, of_kind) = (self.each, self.kind);
        let name = if self.kinds.len() < MOST_KINDS { kind } else { "" };
        let name = if self.kinds.contains_key(kind) { kind } else { name };
        let kind = self.kinds.entry(name.to_owned()).or_insert_with(|| Kind {
            bucket: Bucket::full(of_kind, now_ms),
            subjects: HashMap::new(),
            untold: Untold::NOTHING,
        });
        if kind.subjects.len() >= MOST_SUBJECTS && !kind.subjects.contains_key(subject) {
            kind.forget_quiet(each, now_ms);
        }
        let has_one = kind.bucket.has_one(of_kind, now_ms);
        if kind.subjects.len() >= MOST_SUBJECTS && !kind.subjects.contains_key(subject) {
            if !has_one {
                kind.untold.add(event);
                return None;
            }
            kind.bucket.take(of_kind);
            let before = kind.untold.take().map_or(0, |(_, count)| count);
            return Some((event, before));
        }
        let subject = kind.subjects.entry(subject.to_owned()).or_insert_with(|| Subject {
            bucket: Bucket::full(each, now_ms),
            untold: Untold::NOTHING,
        });
        if !subject.bucket.has_one(each, now_ms) || !has_one {
            subject.untold.add(event);
            return None;
        }
        subject.bucket.take(each);
        kind.bucket.take(of_kind);
        let before = subject.untold.take().map_or(0, |(_, count)| count);
        Some((event, before))
    }

    /// What was left out and may be told now: the last of each subject, and how many there were,
    /// this one included. Call now and then.
    pub fn overdue(&mut self, now_ms: u64) -> Vec<(E, u64)> {
        let (each, of_kind) = (self.each, self.kind);
        let mut all = Vec::new();
        for kind in self.kinds.values_mut() {
            let subjects = kind.subjects.values_mut().filter(|subject| subject.untold.count > 0);
            for subject in subjects {
                if !kind.bucket.has_one(of_kind, now_ms) {
                    break;
                }
                if subject.bucket.has_one(each, now_ms) {
                    subject.bucket.take(each);
                    kind.bucket.take(of_kind);
                    all.extend(subject.untold.take());
                }
            }
            if kind.untold.count > 0 && kind.bucket.has_one(of_kind, now_ms) {
                kind.bucket.take(of_kind);
                all.extend(kind.untold.take());
            }
        }
        all
    }
}

impl<E> Kind<E> {
    /// Make room: forget the subjects of whom there is nothing left to tell, and whose rate is whole
    /// again.
    fn forget_quiet(&mut self, each: Rate, now_ms: u64) {
        self.subjects.retain(|_, subject| {
            subject.bucket.fill(each, now_ms);
            subject.untold.count > 0 || subject.bucket.saved_ms < each.at_once * each.every_ms
        });
    }
}

/// What to add to an event's sentence, when so many like it were not told before.
pub fn and_before(count: u64) -> String {
    if count == 0 { String::new() } else { format!(" (and {count} more like this before)") }
}

/// What to add to the sentence of the last of so many that were left out.
pub fn last_of(count: u64) -> String {
    if count <= 1 { String::new() } else { format!(" (the last of {count} like this)") }
}

/// The events that a log keeps: the newest, but for one thing: a kind of which there are many makes
/// room for the others.
#[derive(Debug)]
pub struct Kept<E> {
    most: usize,
    events: VecDeque<(String, E)>,
    kinds: HashMap<String, usize>,
}

impl<E> Kept<E> {
    /// Room for `most` events, at least one.
    pub fn new(most: usize) -> Self {
        Kept { most, events: VecDeque::new(), kinds: HashMap::new() }
    }

    /// Add an event. When there is no room, the oldest of the most frequent kind goes.
    pub fn push(&mut self, kind: &str, event: E) {
        if self.events.len() >= self.most {
            let most = self.kinds.values().copied().max().unwrap_or_default();
            let frequent = |(kind, _): &(String, E)| self.kinds.get(kind) == Some(&most);
            let oldest = self.events.iter().position(frequent).unwrap_or_default();
            if let Some((kind, _)) = self.events.remove(oldest)
                && let Some(count) = self.kinds.get_mut(&kind)
            {
                *count -= 1;
                if *count == 0 {
                    self.kinds.remove(&kind);
                }
            }
        }
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        self.events.push_back((kind.to_owned(), event));
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &E> {
        self.events.iter().map(|(_, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Rate = Rate { at_once: 3, every_ms: 60_000 };
    const KIND: Rate = Rate { at_once: 10, every_ms: 1_000 };

    fn limits() -> EventLimits<u32> {
        EventLimits::new(EACH, KIND)
    }

    #[test]
    fn a_subject_that_flaps_is_told_seldom_and_counted() {
        let mut limits = limits();
        let told: Vec<_> = (0..51_350).filter_map(|n| limits.offer(0, "claim", "vip", n)).collect();
        assert_eq!(told, [(0, 0), (1, 0), (2, 0)]);
        // It hides neither another subject nor another kind.
        assert_eq!(limits.offer(0, "claim", "other", 7), Some((7, 0)));
        assert_eq!(limits.offer(0, "link", "vip", 8), Some((8, 0)));
        assert_eq!(limits.overdue(59_999), []);
        assert_eq!(limits.overdue(60_000), [(51_349, 51_347)], "the last, and how many");
        assert_eq!(limits.overdue(1_000_000), []);
        assert_eq!(limits.offer(1_000_000, "claim", "vip", 9), Some((9, 0)));
    }

    #[test]
    fn the_next_one_tells_of_those_before() {
        let mut limits = limits();
        (0..5).for_each(|n| _ = limits.offer(0, "claim", "vip", n));
        assert_eq!(limits.offer(60_000, "claim", "vip", 6), Some((6, 2)));
        assert_eq!(limits.offer(60_000, "claim", "vip", 7), None);
        assert_eq!(limits.offer(u64::MAX, "claim", "vip", 8), Some((8, 1)), "at any time");
        assert_eq!(limits.offer(0, "claim", "vip", 9), Some((9, 0)), "time that goes back is none");
    }

    #[test]
    fn a_kind_is_limited_over_any_number_of_subjects_in_bounded_memory() {
        let mut limits = limits();
        let mut told = 0;
        for n in 0..20_000u32 {
            told += usize::from(limits.offer(0, "claim", &n.to_string(), n).is_some());
        }
        assert_eq!(told, 10);
        assert_eq!(limits.kinds["claim"].subjects.len(), MOST_SUBJECTS);
        let mut left_out = 0;
        let mut lines = 0;
        for second in 1..=2_000 {
            let overdue = limits.overdue(second * 1_000);
            assert!(overdue.len() <= 10);
            lines += overdue.len();
            left_out += overdue.iter().map(|(_, count)| count).sum::<u64>();
        }
        assert_eq!((left_out, lines), (19_990, 1_015), "each is counted once");
        // Those that are quiet by now make room.
        assert!(limits.offer(9_000_000, "claim", "new", 1).is_some());
        assert_eq!(limits.kinds["claim"].subjects.len(), 1);
        for n in 0..10_000 {
            limits.offer(0, &format!("kind-{n}"), "", n);
        }
        assert!(limits.kinds.len() <= MOST_KINDS + 1);
    }

    #[test]
    fn a_frequent_kind_makes_room_for_the_others() {
        let mut kept = Kept::new(100);
        kept.push("link-down", 0);
        (1..=5_000).for_each(|n| kept.push("claim", n));
        kept.push("backend-unhealthy", 5_001);
        (5_002..=9_000).for_each(|n| kept.push("claim", n));
        let all: Vec<u32> = kept.iter().copied().collect();
        assert_eq!((all.len(), all[0], all.is_sorted()), (100, 0, true));
        assert!(all.contains(&5_001) && all.contains(&9_000));
        assert_eq!(kept.kinds.values().sum::<usize>(), 100);
    }
}
