//! Times in which a check without an answer tells nothing, by cause. Pure: times are in µs since the
//! scheduler's start.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::way::Via;

/// Why answers may have been lost on this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// A worker of the data plane, or its main thread, did not come round.
    Stall,
    /// The data plane did not answer control.
    Dataplane,
    /// The interface that is a port's exception port was not in order.
    Interface(Arc<str>),
    /// The link of the port with this interface was down.
    Link(Arc<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Stall => f.write_str("a worker of the data plane was stuck"),
            Cause::Dataplane => f.write_str("the data plane did not answer"),
            Cause::Interface(name) => write!(f, "interface {name} was not in order"),
            Cause::Link(name) => write!(f, "the link of the port with {name} was down"),
        }
    }
}

impl Cause {
    /// Whether it is one for checks that go this way.
    pub(super) fn concerns(&self, via: &Via) -> bool {
        match (self, via) {
            (_, Via::Elsewhere) => false,
            (Cause::Interface(name) | Cause::Link(name), Via::Port(port)) => name == port,
            (Cause::Interface(_) | Cause::Link(_), Via::Unknown) => false,
            (Cause::Stall | Cause::Dataplane, _) => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from_us: u64,
    /// Absent while it lasts.
    until_us: Option<u64>,
}

/// The last time of doubt of each cause.
#[derive(Debug, Default)]
pub(super) struct Doubts(HashMap<Cause, Span>);

impl Doubts {
    /// There is doubt from then to then, or still. A former time that touches this one is a part of
    /// it. Returns since when.
    pub(super) fn note(&mut self, cause: Cause, from_us: u64, until_us: Option<u64>) -> u64 {
        let mut span = Span { from_us, until_us };
        let old = self.0.get(&cause);
        if let Some(old) = old.filter(|old| old.until_us.is_none_or(|us| us >= from_us)) {
            span.from_us = from_us.min(old.from_us);
        }
        self.0.insert(cause, span);
        span.from_us
    }

    /// The doubt is over, if there is one. Returns whether there was.
    pub(super) fn end(&mut self, cause: &Cause, now_us: u64) -> bool {
        match self.0.get_mut(cause) {
            Some(Span { until_us: until_us @ None, .. }) => {
                *until_us = Some(now_us);
                true
            }
            _ => false,
        }
    }

    /// Why a check that went this way from then to then may have lost its answer.
    pub(super) fn about(&self, via: &Via, started_us: u64, ended_us: u64) -> Option<&Cause> {
        let overlaps = |span: &Span| {
            span.from_us <= ended_us && span.until_us.is_none_or(|us| started_us <= us)
        };
        self.0.iter().find(|(cause, span)| cause.concerns(via) && overlaps(span)).map(|(c, _)| c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_within_a_time_of_doubt_tells_nothing() {
        let mut doubts = Doubts::default();
        let port = Via::Port("sl-lan".into());
        doubts.note(Cause::Dataplane, 100, None);
        assert_eq!(doubts.about(&port, 50, 99), None, "before");
        assert_eq!(doubts.about(&port, 50, 100), Some(&Cause::Dataplane));
        assert_eq!(doubts.about(&port, 9_000, 9_100), Some(&Cause::Dataplane), "it lasts");
        assert!(doubts.end(&Cause::Dataplane, 10_000));
        assert!(!doubts.end(&Cause::Dataplane, 11_000), "once");
        assert_eq!(doubts.about(&port, 10_000, 12_000), Some(&Cause::Dataplane), "began before");
        assert_eq!(doubts.about(&port, 10_001, 12_000), None);
    }

    #[test]
    fn doubt_is_about_checks_by_the_data_planes_ports() {
        let mut doubts = Doubts::default();
        let about = |doubts: &Doubts, via: &Via| doubts.about(via, 5, 6).cloned();
        let (lan, wan) = (Via::Port("sl-lan".into()), Via::Port("sl-wan".into()));
        for cause in [Cause::Interface("sl-lan".into()), Cause::Link("sl-lan".into())] {
            doubts.note(cause.clone(), 0, None);
            assert_eq!(about(&doubts, &lan), Some(cause.clone()));
            assert_eq!(about(&doubts, &wan), None, "another port");
            assert_eq!(about(&doubts, &Via::Unknown), None);
            doubts.end(&cause, 1);
        }
        doubts.note(Cause::Stall, 0, None);
        assert_eq!(about(&doubts, &wan), Some(Cause::Stall));
        assert_eq!(about(&doubts, &Via::Unknown), Some(Cause::Stall));
        assert_eq!(about(&doubts, &Via::Elsewhere), None);
    }

    #[test]
    fn times_that_touch_are_one() {
        let mut doubts = Doubts::default();
        assert_eq!(doubts.note(Cause::Stall, 100, Some(200)), 100);
        assert_eq!(doubts.note(Cause::Stall, 150, None), 100);
        assert_eq!(doubts.note(Cause::Stall, 50, Some(300)), 50);
        assert_eq!(doubts.note(Cause::Stall, 301, None), 301, "a time of its own");
    }
}
