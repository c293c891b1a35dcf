//! Frames that came in: what they are, whether they are whole, and how a server answers them.

use sluice_wire::checksum::Delta;
use sluice_wire::ether::ethertype;
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::ipv4::{self, PROTO_TCP, PROTO_UDP};
use sluice_wire::tcp::{TcpFlags, TcpHeader};
use sluice_wire::{tcp, udp};
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::template::{REPLY, REPLY_PROBE, REQUEST, REQUEST_PROBE, SERVER_ISN};

/// TTL of what a server sends.
const TTL: u8 = 64;

/// The mark at the beginning of a payload that begins at `at`; 0 beyond the frame's end.
#[inline(always)]
pub fn mark(frame: &[u8], at: usize) -> u16 {
    match frame.get(at..at + 2) {
        Some(&[a, b]) => u16::from_be_bytes([a, b]),
        _ => 0,
    }
}

/// The number behind the mark; 0 beyond the frame's end.
#[inline]
pub fn number(frame: &[u8], at: usize) -> u32 {
    match frame.get(at + 2..at + 6) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// Whether it is TCP or UDP over IPv4 with lengths that agree and checksums that are right.
pub fn is_intact(frame: &[u8]) -> bool {
    let Ok(view) = Ipv4Frame::parse(frame) else { return false };
    let ip = &view.ip;
    if !view.is_plain_ipv4()
        || ipv4::check(ip, frame.len() - L3_OFFSET).is_err()
        || !ip.checksum_is_valid()
    {
        return false;
    }
    let l4 = &frame[L4_OFFSET..L3_OFFSET + usize::from(ip.total_len())];
    match ip.protocol {
        PROTO_TCP => tcp::parse(l4).is_ok() && tcp::checksum_is_valid(ip.src(), ip.dst(), l4),
        PROTO_UDP => udp::parse(l4)
            .is_ok_and(|(_, len)| udp::checksum_is_valid(ip.src(), ip.dst(), &l4[..len])),
        _ => false,
    }
}

/// Both ends of a frame, and its TCP part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Source address, in host order.
    pub src: u32,
    /// Destination address, in host order.
    pub dst: u32,
    /// Source L4 port.
    pub src_port: u16,
    /// Destination L4 port.
    pub dst_port: u16,
    /// TCP's own fields; none for UDP.
    pub tcp: Option<Segment>,
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its flags.
    pub flags: TcpFlags,
    /// Number of its first byte.
    pub seq: u32,
    /// The byte that it expects next.
    pub ack: u32,
    /// Bytes of data in it.
    pub data_bytes: u32,
}

impl Segment {
    /// The sequence number behind it: SYN and FIN count as one byte each (RFC 9293, 3.4).
    pub fn end(&self) -> u32 {
        let syn = u32::from(self.flags.contains(TcpFlags::SYN));
        let fin = u32::from(self.flags.contains(TcpFlags::FIN));
        self.seq.wrapping_add(self.data_bytes + syn + fin)
    }
}

/// A TCP or UDP packet over IPv4 without options, not a fragment.
pub fn parse(frame: &[u8]) -> Option<Parsed> {
    let view = Ipv4Frame::parse(frame).ok()?;
    let ip = &view.ip;
    if !view.is_plain_ipv4()
        || ip.is_fragment()
        || ipv4::check(ip, frame.len() - L3_OFFSET).is_err()
    {
        return None;
    }
    let l4 = &frame[L4_OFFSET..L3_OFFSET + usize::from(ip.total_len())];
    let tcp = match ip.protocol {
        PROTO_TCP => {
            let (header, len) = tcp::parse(l4).ok()?;
            Some(Segment {
                flags: header.flags,
                seq: header.seq.get(),
                ack: header.ack.get(),
                data_bytes: (l4.len() - len) as u32,
            })
        }
        PROTO_UDP => udp::parse(l4).ok().map(|_| None)?,
        _ => return None,
    };
    Some(Parsed {
        src: ip.src_u32(),
        dst: ip.dst_u32(),
        src_port: view.src_port(),
        dst_port: view.dst_port(),
        tcp,
    })
}

/// Whether a frame is ARP.
pub fn is_arp(frame: &[u8]) -> bool {
    frame.len() >= 14 && frame[12..14] == ethertype::ARP.to_be_bytes()
}

/// Send a frame back to where it came from: MAC addresses, addresses and L4 ports change sides,
/// which leaves all sums as they are, and the TTL is a fresh one.
pub fn turn_around(frame: &mut [u8]) -> Option<()> {
    let view = Ipv4Frame::parse_mut(frame).ok()?;
    std::mem::swap(&mut view.ether.dst, &mut view.ether.src);
    std::mem::swap(&mut view.ip.src, &mut view.ip.dst);
    std::mem::swap(&mut view.src_port, &mut view.dst_port);
    let word = |ttl: u8| u16::from_be_bytes([ttl, view.ip.protocol]);
    let delta = Delta::between_u16(word(view.ip.ttl), word(TTL));
    view.ip.ttl = TTL;
    view.ip.checksum = U16::new(delta.apply(view.ip.checksum()));
    Some(())
}

/// Turn a request into the server's answer, in place. `false`, and the frame is to be dropped, when
/// there is nothing to say: for a bare ACK, a RST, and what cannot be read.
///
/// UDP is echoed. A SYN gets a SYN-ACK, data gets an ACK with the same data, FIN gets FIN-ACK.
pub fn answer(frame: &mut [u8]) -> bool {
    let Some(parsed) = parse(frame) else { return false };
    match parsed.tcp {
        None => turn_around(frame).is_some() && answer_mark(frame, 42, 40, true),
        Some(segment) => answer_segment(frame, &segment),
    }
}

fn answer_segment(frame: &mut [u8], segment: &Segment) -> bool {
    let old = segment.flags;
    let closes = old.contains(TcpFlags::FIN);
    let (flags, seq) = if old.is_open() {
        (TcpFlags::SYN.with(TcpFlags::ACK), SERVER_ISN)
    } else if old.intersects(TcpFlags::RST.with(TcpFlags::SYN)) {
        return false;
    } else if closes {
        (TcpFlags::FIN.with(TcpFlags::ACK), segment.ack)
    } else if segment.data_bytes > 0 {
        (TcpFlags::ACK.with(TcpFlags::PSH), segment.ack)
    } else {
        return false;
    };
    if turn_around(frame).is_none() {
        return false;
    }
    rewrite_segment(frame, flags, seq, segment.end());
    segment.data_bytes == 0 || answer_mark(frame, 54, 50, false)
}

/// Give a TCP frame other numbers, and mend its checksum.
pub fn renumber_segment(frame: &mut [u8], seq: u32, ack: u32) {
    let flags = frame.get(47).copied().map_or(TcpFlags::NONE, TcpFlags);
    rewrite_segment(frame, flags, seq, ack);
}

/// Give a TCP frame other flags and numbers, and mend its checksum.
pub fn rewrite_segment(frame: &mut [u8], flags: TcpFlags, seq: u32, ack: u32) {
    let Some(l4) = frame.get_mut(L4_OFFSET..) else { return };
    let Ok((header, _)) = TcpHeader::mut_from_prefix(l4) else { return };
    let word = |flags: TcpFlags| u16::from_be_bytes([header.data_offset, flags.0]);
    let delta = Delta::between_u16(word(header.flags), word(flags))
        .and(Delta::between_u32(header.seq.get(), seq))
        .and(Delta::between_u32(header.ack.get(), ack));
    header.flags = flags;
    header.seq = U32::new(seq);
    header.ack = U32::new(ack);
    header.set_checksum(delta.apply(header.checksum()));
}

/// The mark of a request becomes that of its reply; a payload of others stays as it is.
fn answer_mark(frame: &mut [u8], payload: usize, checksum: usize, is_udp: bool) -> bool {
    let old = mark(frame, payload);
    let new = match old {
        REQUEST => REPLY,
        REQUEST_PROBE => REPLY_PROBE,
        _ => return true,
    };
    let sum = mark(frame, checksum);
    let delta = Delta::between_u16(old, new);
    let sum = if is_udp { delta.apply_udp(sum) } else { delta.apply(sum) };
    frame[payload..payload + 2].copy_from_slice(&new.to_be_bytes());
    frame[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::super::order::Slot;
    use super::super::template::{CLIENT_ISN, Kind, Target, Template};
    use super::*;
    use sluice_wire::ether::MacAddr;

    const TARGET: Target = Target {
        next_hop: MacAddr([2, 0, 0, 0, 0, 1]),
        own: MacAddr([2, 0, 0, 0, 0, 2]),
        address: std::net::Ipv4Addr::new(192, 0, 2, 100),
        port: 443,
    };

    fn request(kind: Kind, wire_bytes: u16) -> Vec<u8> {
        let template = Template::new(kind, &TARGET, wire_bytes);
        let mut frame = vec![0; template.len()];
        template.write(Slot { address: 0x0a00_0001, port: 5_000, template: 0 }, &mut frame);
        frame
    }

    fn answered(kind: Kind, wire_bytes: u16) -> (Vec<u8>, Parsed) {
        let mut frame = request(kind, wire_bytes);
        frame[22] = 9;
        let ttl = Delta::between_u16(0x4000, 0x0900);
        let sum = ttl.apply(mark(&frame, 24));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(is_intact(&frame), "as if it had come a long way");
        assert!(answer(&mut frame), "{kind:?}");
        assert!(is_intact(&frame), "{kind:?} of {wire_bytes}");
        assert_eq!(frame[22], 64);
        let parsed = parse(&frame).unwrap();
        assert_eq!((parsed.src, parsed.src_port), (TARGET.address.to_bits(), 443));
        assert_eq!((parsed.dst, parsed.dst_port), (0x0a00_0001, 5_000));
        assert_eq!((&frame[..6], &frame[6..12]), (&TARGET.own.0[..], &TARGET.next_hop.0[..]));
        (frame, parsed)
    }

    #[test]
    fn datagrams_are_echoed() {
        for wire_bytes in [64, 1518] {
            let (frame, parsed) = answered(Kind::Udp, wire_bytes);
            assert_eq!(mark(&frame, 42), REPLY);
            assert_eq!(parsed.tcp, None);
        }
        let template = Template::new(Kind::Udp, &TARGET, 64);
        for number in 0..70_000 {
            let mut frame = [0; 60];
            template.write_probe(Slot { address: 7, port: 8, template: 0 }, &mut frame, number);
            assert!(answer(&mut frame) && is_intact(&frame), "{number}");
            assert_eq!((mark(&frame, 42), super::number(&frame, 42)), (REPLY_PROBE, number));
        }
    }

    #[test]
    fn segments_are_answered_by_the_book() {
        let (_, syn_ack) = answered(Kind::TcpSyn, 64);
        let segment = syn_ack.tcp.unwrap();
        assert_eq!(segment.flags, TcpFlags::SYN.with(TcpFlags::ACK));
        assert_eq!((segment.seq, segment.ack), (SERVER_ISN, CLIENT_ISN + 1));
        for (wire_bytes, data) in [(64, 6), (1518, 1460)] {
            let (frame, reply) = answered(Kind::TcpData, wire_bytes);
            let segment = reply.tcp.unwrap();
            assert_eq!(segment.flags, TcpFlags::ACK.with(TcpFlags::PSH));
            assert_eq!((segment.seq, segment.ack), (SERVER_ISN + 1, CLIENT_ISN + 1 + data));
            assert_eq!((segment.data_bytes, mark(&frame, 54)), (data, REPLY));
        }
        let (_, fin) = answered(Kind::TcpFin, 64);
        let segment = fin.tcp.unwrap();
        assert_eq!(segment.flags, TcpFlags::FIN.with(TcpFlags::ACK));
        assert_eq!((segment.seq, segment.ack), (SERVER_ISN + 1, CLIENT_ISN + 2));
    }

    #[test]
    fn silence_is_an_answer() {
        for flags in [TcpFlags::ACK, TcpFlags::RST, TcpFlags::RST.with(TcpFlags::ACK)] {
            let mut frame = request(Kind::TcpAck, 64);
            rewrite_segment(&mut frame, flags, CLIENT_ISN + 1, SERVER_ISN + 1);
            let before = frame.clone();
            assert!(is_intact(&frame) && !answer(&mut frame), "{flags}");
            assert_eq!(frame, before);
        }
        let mut syn_ack = request(Kind::TcpSyn, 64);
        assert!(answer(&mut syn_ack));
        assert!(!answer(&mut syn_ack), "two servers do not talk to each other for ever");
        for len in 0..60 {
            let mut short = request(Kind::TcpData, 64);
            short.truncate(len);
            assert!(!answer(&mut short) && !is_intact(&short), "{len} bytes");
        }
    }

    #[test]
    fn damage_is_seen() {
        let frame = request(Kind::TcpData, 128);
        for at in (14..frame.len()).filter(|at| *at != 22 || frame[22] != 0) {
            let mut broken = frame.clone();
            broken[at] ^= 0x10;
            assert!(!is_intact(&broken), "byte {at}");
        }
        assert_eq!((mark(&[1, 2], 1), super::number(&[1, 2, 3], 0)), (0, 0));
    }
}
