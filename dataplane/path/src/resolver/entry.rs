//! What the table knows of one next hop.

use sluice_wire::ether::MacAddr;

use crate::next_hop::Purpose;

/// Who comes first when not all can be served: the later ones here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Wanted for first packets only, and has not answered.
    Stranger,
    /// Has answered, or has a conn.
    Client,
    /// A backend or gateway. There are no more of them than are configured.
    Site,
}

impl Rank {
    pub(super) fn of(purpose: Purpose) -> Rank {
        match purpose {
            Purpose::Site => Rank::Site,
            Purpose::Client => Rank::Client,
            Purpose::Stranger { .. } => Rank::Stranger,
        }
    }
}

/// Whether packets can go there meanwhile, and the number among all that waited.
pub(super) type Place = (bool, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Asked for `tries` times, not usable.
    Incomplete { tries: u8 },
    /// Usable; a want after `fresh_until_ms` starts probing.
    Reachable { mac: MacAddr, fresh_until_ms: u64 },
    /// Usable, but to be confirmed: asked `tries` times, first by unicast, then by broadcast.
    Probing { mac: MacAddr, tries: u8 },
    /// Not usable; a want asks anew, one before `until_ms` does so then.
    Failed { until_ms: u64, wanted: bool },
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) rank: Rank,
    /// Where a first packet of it came from: asked first.
    pub(super) came_from: Option<MacAddr>,
    /// Last want.
    pub(super) wanted_ms: u64,
    /// Last confirmation, at first the first want.
    pub(super) confirmed_ms: u64,
    /// The time in `deadlines`, if it stands there.
    pub(super) due_ms: Option<u64>,
    /// Its place in `waiting` for a token to send its next request.
    pub(super) waiting: Option<Place>,
    /// Its failure was told, and it was not reachable since.
    pub(super) failure_told: bool,
}

impl Entry {
    pub(super) fn mac(&self) -> Option<MacAddr> {
        match self.state {
            State::Reachable { mac, .. } | State::Probing { mac, .. } => Some(mac),
            State::Incomplete { .. } | State::Failed { .. } => None,
        }
    }

    /// Whether its next request goes to where its packet came from.
    pub(super) fn asks_sender(&self) -> bool {
        self.came_from.is_some() && matches!(self.state, State::Incomplete { tries: 0 })
    }

    pub(super) fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }
}
