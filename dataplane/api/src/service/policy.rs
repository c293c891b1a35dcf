//! The words of a service: its protocol, how its packets travel, who gets a new conn, and how nobody is
//! answered.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Transport protocol of a service.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA): 6 or 17.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Source and destination are rewritten; replies come back through Sluice. Needs a pool.
    FullNat,
    /// Direct routing: only MAC addresses change; the backend holds the VIP and replies to the
    /// client itself.
    Dr,
}

/// What a mode asks of what is configured, and does not do: rules ask this, and never which mode it is.
impl Mode {
    /// Whether backends see local addresses, of a pool, in place of the client's.
    pub const fn needs_pool(self) -> bool {
        matches!(self, Mode::FullNat)
    }

    /// Whether a backend can have another L4 port than the service.
    pub const fn changes_port(self) -> bool {
        matches!(self, Mode::FullNat)
    }

    /// Whether packets still go to the VIP, so that no gateway may lie in between.
    pub const fn keeps_vip(self) -> bool {
        matches!(self, Mode::Dr)
    }

    /// Whether backends answer through Sluice, which so hears how their connections end.
    pub const fn sees_replies(self) -> bool {
        matches!(self, Mode::FullNat)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::FullNat => "full-nat",
            Mode::Dr => "dr",
        })
    }
}

/// How a new conn chooses its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Maglev consistent hashing (Eisenbud et al., NSDI 2016), weighted.
    #[default]
    Maglev,
    /// Weighted round robin: exact over every round of a worker.
    Wrr,
    /// Weighted least connections, over all workers.
    Wlc,
    /// Weighted choice by a hash of the client address.
    SourceHash,
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheduler::Maglev => "maglev",
            Scheduler::Wrr => "wrr",
            Scheduler::Wlc => "wlc",
            Scheduler::SourceHash => "source-hash",
        })
    }
}

/// What Maglev hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum HashOn {
    /// The client address alone: all conns of a client go to one backend.
    #[serde(rename = "source")]
    Source,
    /// Both addresses, both L4 ports and the protocol.
    #[default]
    #[serde(rename = "5-tuple")]
    FiveTuple,
}

/// What a TCP segment of a conn that is not there is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoConn {
    /// RST, as by a host that knows no such connection (RFC 9293, 3.10.7.1).
    Reset,
    /// Nothing.
    Drop,
}

impl NoConn {
    /// What a service does that does not say: reset where replies pass. Elsewhere, as in DR, drop:
    /// another node may know the conn, and the backend could answer itself.
    pub const fn of_mode(mode: Mode) -> Self {
        if mode.sees_replies() { NoConn::Reset } else { NoConn::Drop }
    }
}

impl fmt::Display for NoConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoConn::Reset => "reset",
            NoConn::Drop => "drop",
        })
    }
}

/// What a client is answered with that nobody serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// TCP: RST, "connection refused". UDP, which has none: ICMP port unreachable.
    #[default]
    Reset,
    /// ICMP destination unreachable, with the code that fits.
    Unreachable,
    /// Nothing.
    Drop,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Reset => "reset",
            Refusal::Unreachable => "unreachable",
            Refusal::Drop => "drop",
        })
    }
}
