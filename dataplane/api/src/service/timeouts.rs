//! How long conns may be idle.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a conn may stay idle, in ms: up to 7 days.
pub const TIMEOUT_MS: RangeInclusive<u32> = 1..=7 * 24 * 3_600 * 1_000;

/// How long a conn may stay idle in each state, in ms (1 to 604,800,000 = 7 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// The client's SYN was seen, the backend has not answered.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_syn_sent_ms: u32,
    /// The backend's SYN-ACK was seen (in DR: the client's SYN), the handshake is not complete.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_syn_received_ms: u32,
    /// Handshake complete.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_established_ms: u32,
    /// One side has sent FIN.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_fin_wait_ms: u32,
    /// Both sides have sent FIN, the last ACK is missing.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_last_ack_ms: u32,
    /// Both sides have closed, the backend first: how long it holds the ports in TIME_WAIT. Where the
    /// client closed first, 10 s at the most.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_time_wait_ms: u32,
    /// Either side has sent RST.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub tcp_closed_ms: u32,
    /// UDP: only the client has sent so far. In DR always this one, as replies pass elsewhere.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub udp_one_way_ms: u32,
    /// UDP: the backend has answered.
    #[schemars(range(min = *TIMEOUT_MS.start(), max = *TIMEOUT_MS.end()))]
    pub udp_two_way_ms: u32,
}

impl Default for Timeouts {
    /// RFC 5382 (TCP) and RFC 4787 (UDP) ask for at least 124 min and 2 min of a NAT for strangers;
    /// a load balancer knows its services, and peers use 90 s to 15 min. We take 15 min and 2 min.
    fn default() -> Self {
        Timeouts {
            tcp_syn_sent_ms: 10_000,
            tcp_syn_received_ms: 30_000,
            tcp_established_ms: 900_000,
            tcp_fin_wait_ms: 60_000,
            tcp_last_ack_ms: 30_000,
            tcp_time_wait_ms: 60_000,
            tcp_closed_ms: 2_000,
            udp_one_way_ms: 60_000,
            udp_two_way_ms: 120_000,
        }
    }
}
