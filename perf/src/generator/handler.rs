//! What becomes of a frame that came in: counted, answered, or looked at more closely.
//!
//! The usual case, a packet of the load that came back, is one comparison. Everything else (probes,
//! requests for our servers, handshakes, ARP) takes the longer way.

use sluice_path::frame::Frame;
use sluice_wire::arp;
use sluice_wire::ether::{HEADER_BYTES, MacAddr};
use sluice_wire::tcp::TcpFlags;

use super::connections::Connections;
use super::counts::Counts;
use super::flows::{Client, FlowSpace};
use super::opener::Opener;
use super::packet::{self, Parsed, Segment};
use super::plan::{Plan, ServerData, ServerPlan, Traffic};
use super::probe::Probes;
use super::template::{REPLY, REQUEST, REQUEST_PROBE};

/// No mark: it fits into no 16 bits.
const NEVER: u32 = u32::MAX;

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing more.
    Done,
    /// It has become an answer: send it back out of the port by which it came.
    Answer,
}

/// What is expected at a port.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Its MAC address.
    own: MacAddr,
    /// The mark of the load when it comes back here, or [`NEVER`] when each is to be looked at.
    usual: u32,
    /// The load comes back here.
    returns: bool,
    /// Servers are behind it.
    serves: bool,
}

/// What clients do with segments of TCP's own.
pub enum ClientTcp {
    /// Complete handshakes; nothing else.
    Passive,
    /// Count SYN-ACKs as what came back of a SYN flood, and leave them unanswered.
    Flood,
    /// Open all connections.
    Opening(Opener),
    /// Open, use and close connections.
    Connections(Box<Connections>),
}

/// Takes the frames of one run.
pub struct Handler {
    /// Where the mark stands.
    mark_at: usize,
    looks_at_each: bool,
    /// The mark of what comes back, which is one less than that of a probe.
    returns: u16,
    /// Whether servers answer data.
    answers: bool,
    verify_all: bool,
    flows: FlowSpace,
    server: Option<ServerPlan>,
    gateway: u32,
    /// The next hop's MAC address, once it is known.
    pub next_hop: Option<MacAddr>,
    /// What was counted.
    pub counts: Counts,
    /// The probes.
    pub probes: Probes,
    /// What clients do.
    pub tcp: ClientTcp,
}

impl Handler {
    /// For a plan, on a cycle counter of `hz`.
    pub fn new(plan: &Plan, hz: u64) -> Self {
        let answers = plan.server.as_ref().is_some_and(|s| s.data == ServerData::Answer);
        let returns = if answers { REPLY } else { REQUEST };
        let looks_at_each = plan.verify_all || plan.traffic.is_connections();
        Handler {
            mark_at: plan.traffic.kind().payload_offset(),
            looks_at_each,
            returns,
            answers,
            verify_all: plan.verify_all,
            flows: plan.flows,
            server: plan.server.clone(),
            gateway: plan.gateway.to_bits(),
            next_hop: plan.gateway_mac,
            counts: Counts::default(),
            probes: Probes::new(plan.flows.len(), hz),
            tcp: match plan.traffic {
                Traffic::SynFlood => ClientTcp::Flood,
                _ => ClientTcp::Passive,
            },
        }
    }

    /// What is to be expected at a port with this MAC address, behind which are clients, servers, or
    /// both.
    pub fn side(&self, own: MacAddr, clients: bool, servers: bool) -> Side {
        // Servers that only count are where the load ends.
        let at_servers = self.server.is_some() && !self.answers;
        let returns = if at_servers { servers } else { clients };
        let usual = if returns && !self.looks_at_each { u32::from(self.returns) } else { NEVER };
        Side { own, usual, returns, serves: servers && self.server.is_some() }
    }

    /// Take a frame that came in at a time, in cycles.
    #[inline(always)]
    pub fn handle(&mut self, frame: &mut impl Frame, side: &Side, cycles: u64) -> Fate {
        let mark = packet::mark(frame.bytes(), self.mark_at);
        if u32::from(mark) == side.usual {
            self.counts.received += 1;
            return Fate::Done;
        }
        self.unusual(frame.bytes_mut(), mark, side, cycles)
    }

    /// A frame of the load was built and never sent: if it is a probe, it was none.
    pub fn forget_if_probe(&mut self, frame: &[u8]) {
        if packet::mark(frame, self.mark_at) == REQUEST_PROBE {
            self.probes.unsend(packet::number(frame, self.mark_at));
        }
    }

    #[inline(never)]
    fn unusual(&mut self, frame: &mut [u8], mark: u16, side: &Side, cycles: u64) -> Fate {
        if side.returns && (mark == self.returns || mark == self.returns + 1) {
            return self.returned(frame, mark, cycles);
        }
        if side.serves && self.answers && (mark == REQUEST || mark == REQUEST_PROBE) {
            return self.serve(frame);
        }
        if packet::is_arp(frame) {
            return self.arp(frame, side.own);
        }
        let Some(parsed) = packet::parse(frame) else {
            self.counts.other += 1;
            return Fate::Done;
        };
        let is_whole = packet::is_intact(frame);
        self.counts.checksum_errors += u64::from(!is_whole);
        let for_server = side.serves
            && self.server.as_ref().is_some_and(|server| server.has_address(parsed.dst));
        if is_whole && for_server {
            return self.serve_other(frame, &parsed);
        }
        let client = Client { address: parsed.dst, port: parsed.dst_port };
        match (self.flows.index(client), parsed.tcp) {
            (Some(flow), Some(segment)) if is_whole => self.client(frame, flow, &segment, cycles),
            _ => self.stranger(&parsed),
        }
    }

    /// A packet of the load came back.
    fn returned(&mut self, frame: &mut [u8], mark: u16, cycles: u64) -> Fate {
        self.counts.received += 1;
        let is_probe = mark != self.returns;
        if (is_probe || self.verify_all) && !packet::is_intact(frame) {
            // What a damaged number says is not to be believed.
            self.counts.checksum_errors += 1;
            return Fate::Done;
        }
        if is_probe {
            self.probes.receive(packet::number(frame, self.mark_at), cycles);
        }
        if !matches!(self.tcp, ClientTcp::Connections(_)) {
            return Fate::Done;
        }
        let Some(parsed) = packet::parse(frame) else { return Fate::Done };
        let client = Client { address: parsed.dst, port: parsed.dst_port };
        match (self.flows.index(client), parsed.tcp) {
            (Some(flow), Some(segment)) => self.client(frame, flow, &segment, cycles),
            _ => Fate::Done,
        }
    }

    /// A request for one of our servers.
    fn serve(&mut self, frame: &mut [u8]) -> Fate {
        let damaged = self.verify_all && !packet::is_intact(frame);
        self.counts.checksum_errors += u64::from(damaged);
        if !damaged && packet::answer(frame) {
            self.counts.answered += 1;
            return Fate::Answer;
        }
        Fate::Done
    }

    /// What comes to our servers without a mark: SYN, FIN, ACK, RST.
    fn serve_other(&mut self, frame: &mut [u8], parsed: &Parsed) -> Fate {
        let opens = parsed.tcp.is_some_and(|segment| segment.flags.is_open());
        if opens && !self.answers && matches!(self.tcp, ClientTcp::Flood) {
            self.counts.received += 1;
            return Fate::Done;
        }
        self.serve(frame)
    }

    /// A TCP segment for one of our clients.
    fn client(&mut self, frame: &mut [u8], flow: u32, segment: &Segment, cycles: u64) -> Fate {
        let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
        let is_syn_ack = segment.flags.contains(syn_ack);
        self.counts.resets += u64::from(segment.flags.contains(TcpFlags::RST));
        match &mut self.tcp {
            ClientTcp::Connections(connections) => {
                connections.received(flow, segment, cycles);
                Fate::Done
            }
            ClientTcp::Flood => {
                self.counts.received += u64::from(is_syn_ack);
                Fate::Done
            }
            ClientTcp::Opening(opener) if is_syn_ack => {
                opener.opened(flow);
                acknowledge(frame, segment)
            }
            ClientTcp::Passive if is_syn_ack => acknowledge(frame, segment),
            _ => Fate::Done,
        }
    }

    /// A packet that is neither for our servers nor an answer to our clients. A SYN flood that is
    /// reflected, by testpmd for one, looks so.
    fn stranger(&mut self, parsed: &Parsed) -> Fate {
        let is_syn = parsed.tcp.is_some_and(|segment| segment.flags.is_open());
        if is_syn && self.server.is_none() && matches!(self.tcp, ClientTcp::Flood) {
            self.counts.received += 1;
        } else {
            self.counts.other += 1;
        }
        Fate::Done
    }

    /// Answer ARP for our addresses, and learn where the next hop is (RFC 826).
    fn arp(&mut self, frame: &mut [u8], own: MacAddr) -> Fate {
        self.counts.arp += 1;
        let Some(Ok(packet)) = frame.get(HEADER_BYTES..).map(arp::parse) else { return Fate::Done };
        // A ring port's own address is zero, so zero will do; a group's never (RFC 1812, 3.3.2).
        if packet.sender_ip.get() == self.gateway && !packet.sender_mac.is_multicast() {
            self.next_hop = Some(packet.sender_mac);
        }
        let target = packet.target_ip.get();
        let is_ours = self.flows.has_address(target)
            || self.server.as_ref().is_some_and(|server| server.has_address(target));
        if packet.op() != arp::OP_REQUEST || !is_ours || frame.len() < 60 {
            return Fate::Done;
        }
        let (asker, asker_ip, asked) = (packet.sender_mac, packet.sender_ip(), packet.target_ip());
        let reply = arp::build_arp(arp::OP_REPLY, own, asked, asker, asker_ip, asker);
        frame[..reply.len()].copy_from_slice(&reply);
        Fate::Answer
    }
}

/// Turn a SYN-ACK into the ACK that completes the handshake.
fn acknowledge(frame: &mut [u8], segment: &Segment) -> Fate {
    if packet::turn_around(frame).is_none() {
        return Fate::Done;
    }
    packet::rewrite_segment(frame, TcpFlags::ACK, segment.ack, segment.end());
    Fate::Answer
}

#[cfg(test)]
mod tests {
    use super::super::order::Slot;
    use super::super::scenario::Scenario;
    use super::super::template::{Kind, Target, Template};
    use super::*;
    use sluice_path::frame::MemFrame;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn handler(more: &str) -> Handler {
        let text = format!("client.device = \"net_null0\"\ntraffic.flows = 100\n{more}");
        let scenario: Scenario = toml::from_str(&text).unwrap();
        Handler::new(&Plan::new(&scenario).unwrap(), 1_000_000_000)
    }

    fn frame(kind: Kind, probe: Option<u32>) -> MemFrame {
        let (address, port) = ([10, 0, 0, 100].into(), 80);
        let target = Target { next_hop: OWN, own: PEER, address, port };
        let template = Template::new(kind, &target, 64);
        let mut bytes = vec![0; template.len()];
        let slot = Slot { address: 0x0a00_000a, port: 1_024, template: 0 };
        match probe {
            Some(number) => template.write_probe(slot, &mut bytes, number),
            None => template.write(slot, &mut bytes),
        }
        MemFrame::new(&bytes)
    }

    fn side(handler: &Handler) -> Side {
        handler.side(OWN, true, true)
    }

    const SERVER: &str = "server.device = \"client\"\nserver.address = \"10.0.0.100\"\n";

    #[test]
    fn what_is_reflected_counts() {
        let mut handler = handler("");
        for _ in 0..3 {
            assert_eq!(handler.handle(&mut frame(Kind::Udp, None), &side(&handler), 5), Fate::Done);
        }
        let number = handler.probes.send(0, 100);
        handler.handle(&mut frame(Kind::Udp, Some(number)), &side(&handler), 150);
        assert_eq!((handler.counts.received, handler.counts.checksum_errors), (4, 0));
        assert_eq!(handler.probes.latency().max(), 50);
        let mut other = MemFrame::new(&[0; 60]);
        handler.handle(&mut other, &side(&handler), 5);
        assert_eq!((handler.counts.received, handler.counts.other), (4, 1));
    }

    #[test]
    fn damage_is_counted_and_a_damaged_number_is_not_believed() {
        for (more, expected) in [("", 1), ("run.verify = \"all\"\n", 2)] {
            let mut handler = handler(more);
            let number = handler.probes.send(0, 100);
            for probe in [None, Some(number)] {
                let mut frame = frame(Kind::Udp, probe);
                frame.bytes_mut()[59] ^= 1;
                handler.handle(&mut frame, &side(&handler), 5);
            }
            assert_eq!((handler.counts.received, handler.counts.checksum_errors), (2, expected));
            assert_eq!(handler.probes.counts().received, 0);
        }
    }

    #[test]
    fn servers_answer_and_clients_count_the_answer() {
        let mut handler = handler(SERVER);
        let number = handler.probes.send(0, 0);
        for probe in [None, Some(number)] {
            let mut frame = frame(Kind::Udp, probe);
            assert_eq!(handler.handle(&mut frame, &side(&handler), 5), Fate::Answer);
            assert_eq!(handler.handle(&mut frame, &side(&handler), 5), Fate::Done);
        }
        assert_eq!((handler.counts.answered, handler.counts.received), (2, 2));
        assert_eq!(handler.probes.counts().received, 1);
    }

    #[test]
    fn with_two_ports_each_sees_its_own_half() {
        let mut answering = handler(SERVER);
        let clients = answering.side(OWN, true, false);
        let servers = answering.side(OWN, false, true);
        let mut request = frame(Kind::Udp, None);
        assert_eq!(answering.handle(&mut request, &clients, 5), Fate::Done, "it went astray");
        assert_eq!(answering.handle(&mut request, &servers, 5), Fate::Answer);
        answering.handle(&mut request, &servers, 5);
        assert_eq!((answering.counts.received, answering.counts.other), (0, 2));
        answering.handle(&mut request, &clients, 5);
        assert_eq!(answering.counts.received, 1);
        let mut counting = handler(&format!("{SERVER}server.data = \"count\"\n"));
        for (clients, servers) in [(true, false), (false, true)] {
            let side = counting.side(OWN, clients, servers);
            counting.handle(&mut frame(Kind::Udp, None), &side, 5);
        }
        assert_eq!(counting.counts.received, 1, "where the servers are");
    }

    #[test]
    fn servers_that_count_still_take_part_in_handshakes() {
        let more = format!("{SERVER}server.data = \"count\"\ntraffic.kind = \"tcp-established\"\n");
        let mut handler = handler(&more);
        handler.tcp = ClientTcp::Opening(Opener::new(100));
        let mut syn = frame(Kind::TcpSyn, None);
        assert_eq!(
            handler.handle(&mut syn, &side(&handler), 5),
            Fate::Answer,
            "the server's SYN-ACK"
        );
        assert_eq!(handler.handle(&mut syn, &side(&handler), 5), Fate::Answer, "the client's ACK");
        assert!(packet::is_intact(syn.bytes()));
        assert!(matches!(&handler.tcp, ClientTcp::Opening(opener) if opener.open() == 1));
        assert_eq!(
            handler.handle(&mut syn, &side(&handler), 5),
            Fate::Done,
            "an ACK is not answered"
        );
        assert_eq!(handler.handle(&mut frame(Kind::TcpData, None), &side(&handler), 5), Fate::Done);
        assert_eq!(handler.counts.received, 1);
    }

    #[test]
    fn a_flood_counts_syns_or_their_answers() {
        let flood = "traffic.kind = \"tcp-syn\"\n";
        let mut reflected = handler(flood);
        reflected.handle(&mut frame(Kind::TcpSyn, None), &side(&reflected), 5);
        assert_eq!(reflected.counts.received, 1);
        let mut answered = handler(&format!("{SERVER}{flood}"));
        let mut syn = frame(Kind::TcpSyn, None);
        assert_eq!(answered.handle(&mut syn, &side(&answered), 5), Fate::Answer);
        assert_eq!(
            answered.handle(&mut syn, &side(&answered), 5),
            Fate::Done,
            "a flood never goes on"
        );
        assert_eq!(answered.counts.received, 1);
        let mut counted = handler(&format!("{SERVER}server.data = \"count\"\n{flood}"));
        assert_eq!(counted.handle(&mut frame(Kind::TcpSyn, None), &side(&counted), 5), Fate::Done);
        assert_eq!(counted.counts.received, 1);
    }

    #[test]
    fn arp_is_answered_for_our_addresses_and_the_next_hop_is_learned() {
        let mut handler = handler(SERVER);
        let ask = |from: [u8; 4], of: [u8; 4]| {
            let (zero, all) = (MacAddr::ZERO, MacAddr::BROADCAST);
            let bytes = arp::build_arp(arp::OP_REQUEST, PEER, from.into(), zero, of.into(), all);
            MemFrame::new(&bytes)
        };
        let mut for_client = ask([10, 0, 0, 1], [10, 0, 0, 12]);
        assert_eq!(handler.handle(&mut for_client, &side(&handler), 5), Fate::Answer);
        let reply = arp::parse(&for_client.bytes()[14..]).unwrap();
        assert_eq!((reply.op(), reply.sender_mac), (arp::OP_REPLY, OWN));
        assert_eq!(reply.sender_ip().octets(), [10, 0, 0, 12]);
        assert_eq!(handler.next_hop, None, "10.0.0.1 is nobody of ours");
        let mut for_server = ask([10, 0, 0, 100], [10, 0, 0, 100]);
        assert_eq!(handler.handle(&mut for_server, &side(&handler), 5), Fate::Answer);
        assert_eq!(handler.next_hop, Some(PEER));
        let mut for_others = ask([10, 0, 0, 1], [10, 0, 9, 9]);
        assert_eq!(handler.handle(&mut for_others, &side(&handler), 5), Fate::Done);
        assert_eq!(handler.counts.arp, 3);
    }
}
