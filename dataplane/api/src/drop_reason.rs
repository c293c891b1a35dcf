//! Why a packet died: one name for each, the same in counters, API, CLI and docs.

use serde::{Deserialize, Serialize};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet died. Indexes a worker's drop counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl DropReason {
            /// All reasons, in counter order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name used everywhere outside the code.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// What it means, in a sentence for an operator.
            pub const fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header.
    EtherTruncated = "ether_truncated",
    /// Longer than a packet buffer: no port of this MTU should receive it.
    FrameTooLong = "frame_too_long",
    /// Destination MAC is neither the port's nor broadcast nor multicast.
    NotOurMac = "not_our_mac",
    /// Source MAC is a group address or zero, which no station may send from (IEEE 802.3).
    BadSourceMac = "bad_source_mac",
    /// Source MAC, or ARP sender's, is one of the ports' own: a loop in the network, or forged.
    OwnMac = "own_mac",
    /// Carries a VLAN tag with an id other than 0; the port is configured untagged.
    VlanTagged = "vlan_tagged",
    /// EtherType is neither IPv4 nor ARP.
    UnknownEthertype = "unknown_ethertype",
    /// ARP packet shorter than 28 bytes (RFC 826).
    ArpTruncated = "arp_truncated",
    /// ARP with other than Ethernet and IPv4 addresses, or an unknown operation.
    ArpInvalid = "arp_invalid",
    /// ARP sender that no host can be: a group's MAC, or 0/8, 127/8, 224/3, a network or its broadcast.
    ArpBadSender = "arp_bad_sender",
    /// ARP by which another host claims an address of ours (RFC 5227, 2.4).
    ArpConflict = "arp_conflict",
    /// ARP for an address that is not ours.
    ArpNotForUs = "arp_not_for_us",
    /// ARP answered or learned: it has done its work.
    ArpConsumed = "arp_consumed",
    /// More ARP than the main thread can take or send.
    ArpQueueFull = "arp_queue_full",
    /// Shorter than the IPv4 header (RFC 791), or than its IHL or total length says.
    Ipv4Truncated = "ipv4_truncated",
    /// IP version is not 4, or IHL is below 5.
    Ipv4BadHeader = "ipv4_bad_header",
    /// Total length is shorter than the header.
    Ipv4BadLength = "ipv4_bad_length",
    /// IPv4 header checksum is wrong (RFC 1812, 5.2.2).
    Ipv4BadChecksum = "ipv4_bad_checksum",
    /// Carries IP options.
    Ipv4Options = "ipv4_options",
    /// A fragment: its L4 ports cannot be read from every piece.
    Fragment = "fragment",
    /// Source address that cannot be (RFC 1812, 5.3.7): 0/8, 127/8, multicast, 240/4, or one of ours.
    MartianSource = "martian_source",
    /// Source is a connected network's own address or its broadcast address (RFC 1122, 3.2.1.3).
    BroadcastSource = "broadcast_source",
    /// Source address belongs behind another port: it is in that port's network, or a conn's other
    /// side is reached by it (RFC 3704).
    WrongPort = "wrong_port",
    /// Source and destination address and port are the same.
    LandAttack = "land_attack",
    /// TTL ran out (RFC 1812, 5.3.1); the sender was told by ICMP within the rate limit.
    TtlExceeded = "ttl_exceeded",
    /// IP protocol that no service takes.
    UnknownProtocol = "unknown_protocol",
    /// Shorter than its TCP or UDP header.
    L4Truncated = "l4_truncated",
    /// TCP data offset below 5 or past the end, or UDP length below 8 or past the end.
    L4BadLength = "l4_bad_length",
    /// TCP or UDP checksum is wrong.
    L4BadChecksum = "l4_bad_checksum",
    /// TCP flags that no stack sends: none, SYN with FIN, SYN with RST.
    TcpBadFlags = "tcp_bad_flags",
    /// L4 port 0.
    L4PortZero = "l4_port_zero",
    /// ICMP packet that is truncated or has a wrong checksum.
    IcmpInvalid = "icmp_invalid",
    /// ICMP to one of our addresses that we neither answer nor hand to the kernel.
    IcmpIgnored = "icmp_ignored",
    /// ICMP error that quotes a packet of no conn of ours.
    IcmpNoConn = "icmp_no_conn",
    /// ICMP error whose quote is too short, a later fragment, or not from the address it was sent to.
    IcmpBadQuote = "icmp_bad_quote",
    /// ICMP error that quotes a TCP sequence number that is not under way (RFC 5927, 4.1).
    IcmpBadSequence = "icmp_bad_sequence",
    /// "Fragmentation needed" with an MTU below 576 or not below the quoted packet's length.
    IcmpBadMtu = "icmp_bad_mtu",
    /// ICMP redirect to a VIP or local address: routes are the operator's.
    IcmpRedirect = "icmp_redirect",
    /// ICMP source quench, which nobody heeds any more (RFC 6633).
    IcmpSourceQuench = "icmp_source_quench",
    /// More ICMP errors about one conn, or about all of a worker, than are sent on.
    IcmpRateLimit = "icmp_rate_limit",
    /// Destination address is not ours.
    NotForUs = "not_for_us",
    /// A VIP, but no service on this L4 port and protocol.
    NoService = "no_service",
    /// TCP without a conn, other than a client's SYN; the sender was reset where the service says so.
    NoConn = "no_conn",
    /// TCP SYN to a local address: nobody connects to one.
    SynToLocal = "syn_to_local",
    /// UDP to a local address without a conn: a backend's answer that came late.
    UdpNoConn = "udp_no_conn",
    /// The service has no backend that takes new conns.
    NoBackend = "no_backend",
    /// The service has as many conns as its `max_conns` allows.
    ServiceLimit = "service_limit",
    /// All backends that take new conns have as many as their `max_conns` allows.
    BackendLimit = "backend_limit",
    /// The conn table is full.
    ConnTableFull = "conn_table_full",
    /// All local ports towards the chosen backend are in use.
    LocalPortsExhausted = "local_ports_exhausted",
    /// What its conn wants done to its packets is unknown to this version.
    NoTreatment = "no_treatment",
    /// No route to the next hop.
    NoRoute = "no_route",
    /// The next hop's MAC address is being resolved and the waiting room is full.
    NeighbourPending = "neighbour_pending",
    /// The next hop did not answer ARP.
    NeighbourUnreachable = "neighbour_unreachable",
    /// The neighbour table is full.
    NeighbourTableFull = "neighbour_table_full",
    /// Larger than the egress port's MTU.
    MtuExceeded = "mtu_exceeded",
    /// Larger than the egress port's MTU, without DF: a router would fragment it, Sluice does not.
    WouldFragment = "would_fragment",
    /// The ring to the worker that owns the conn is full.
    HandoverRingFull = "handover_ring_full",
    /// The way to or from the kernel's exception port is full.
    ExceptionRingFull = "exception_ring_full",
    /// More multicasts and broadcasts for the host than the kernel is given per second.
    GroupRateLimit = "group_rate_limit",
    /// For the host itself, not asked for, and more of that than it takes.
    ExceptionUnsolicited = "exception_unsolicited",
    /// For the host's own address, and the port has no exception port to the kernel.
    NoExceptionPort = "no_exception_port",
    /// The port's transmit queue did not take it.
    TxQueueFull = "tx_queue_full",
    /// No memory for a packet of our own or for growing this one.
    NoMbuf = "no_mbuf",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_index_counters() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.meaning().ends_with('.'), "{reason:?}: {}", reason.meaning());
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("{:?}", reason.name()));
        }
    }
}
