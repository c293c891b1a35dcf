//! Headers and checksums.

use std::hint::black_box;
use std::net::Ipv4Addr;

use sluice_api::Protocol;
use sluice_path::testkit::{self, PORT_MACS, VIP};
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET};
use sluice_wire::tcp::TcpFlags;
use sluice_wire::{checksum, ipv4, tcp, udp};

use super::Piece;

const TIMES: u32 = 1_024;

fn sum_of(len: usize) -> Piece {
    let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
    Piece::new("sum", TIMES, move || {
        for _ in 0..TIMES {
            black_box(checksum::compute(black_box(&bytes)));
        }
    })
}

/// The Internet checksum of an IPv4 header.
pub fn checksum_20() -> Piece {
    sum_of(20)
}

/// Of the shortest frame.
pub fn checksum_60() -> Piece {
    sum_of(60)
}

/// Of a full-size packet.
pub fn checksum_1500() -> Piece {
    sum_of(1_500)
}

fn frame(protocol: Protocol) -> Vec<u8> {
    let client = (Ipv4Addr::new(198, 51, 100, 7), 40_000);
    let key = testkit::flow(protocol, client, (VIP, 80));
    testkit::packet(PORT_MACS[0], &key, TcpFlags::ACK, b"")
}

/// The checks of all headers of a TCP frame, checksums with them, as the parse stage makes them.
pub fn parse_tcp() -> Piece {
    let frame = frame(Protocol::Tcp);
    Piece::new("frame", TIMES, move || {
        for _ in 0..TIMES {
            let frame: &[u8] = black_box(&frame);
            let view = Ipv4Frame::parse(frame).expect("long enough");
            let header_len =
                ipv4::check(&view.ip, frame.len() - L3_OFFSET).expect("a valid header");
            let packet = &frame[L3_OFFSET..][..usize::from(view.ip.total_len())];
            let l4 = &packet[header_len..];
            let (header, _) = tcp::parse(l4).expect("a valid segment");
            black_box(view.ip.checksum_is_valid());
            black_box(tcp::checksum_is_valid(view.ip.src(), view.ip.dst(), l4));
            black_box((view.src_port(), view.dst_port(), header.flags.is_plausible()));
        }
    })
}

/// The same of a UDP frame.
pub fn parse_udp() -> Piece {
    let frame = frame(Protocol::Udp);
    Piece::new("frame", TIMES, move || {
        for _ in 0..TIMES {
            let frame: &[u8] = black_box(&frame);
            let view = Ipv4Frame::parse(frame).expect("long enough");
            let header_len =
                ipv4::check(&view.ip, frame.len() - L3_OFFSET).expect("a valid header");
            let packet = &frame[L3_OFFSET..][..usize::from(view.ip.total_len())];
            let l4 = &packet[header_len..];
            let (_, len) = udp::parse(l4).expect("a valid datagram");
            black_box(view.ip.checksum_is_valid());
            black_box(udp::checksum_is_valid(view.ip.src(), view.ip.dst(), &l4[..len]));
            black_box((view.src_port(), view.dst_port()));
        }
    })
}
