//! How packets of a conn leave: a value in the conn, from its service's mode when it is made.
//! `pipeline/rewrite/` has a file for each.

use sluice_api::Mode;

/// What is done to a conn's packets. Those whose replies do not pass here are numbered down from 255:
/// a plain conn notes which it is where others note the port that replies come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Treatment {
    /// Addresses and L4 ports are rewritten, in both directions.
    FullNat = 0,
    /// Only MAC addresses and the TTL change; what the backend answers does not pass here.
    Dr = u8::MAX,
}

impl Treatment {
    /// The lowest number of one whose replies do not pass here.
    pub const FIRST_UNHEARD: u8 = Treatment::Dr as u8;

    /// That of a service of this mode.
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::FullNat => Treatment::FullNat,
            Mode::Dr => Treatment::Dr,
        }
    }

    /// That of a plain conn which has noted this.
    #[inline(always)]
    pub const fn of_note(note: u8) -> Self {
        const DR: u8 = Treatment::Dr as u8;
        match note {
            DR => Treatment::Dr,
            _ => Treatment::FullNat,
        }
    }

    /// Whether the backend's packets pass here.
    #[inline(always)]
    pub const fn sees_replies(self) -> bool {
        (self as u8) < Self::FIRST_UNHEARD
    }
}
