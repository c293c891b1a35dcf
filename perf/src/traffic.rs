//! Clients, and the frames that they and the backends send.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_api::Protocol;
use sluice_path::flow::{FlowKey, WideTuple};
use sluice_path::ids::{BackendSlot, InterfaceId, L4Port, ServiceSlot};
use sluice_path::table::conn::NewWideConn;
use sluice_path::table::conn::state::ConnState;
use sluice_path::testkit::{self, CLIENT_PORT, PORT_MACS, Random, VIP};
use sluice_wire::checksum::Delta;
use sluice_wire::headers::Ipv4Frame;
use sluice_wire::ipv4::PROTO_TCP;
use sluice_wire::tcp::TcpFlags;

use crate::setup::SERVICE_PORT;

/// The number of a random flow.
pub fn below(random: &mut Random, flows: u32) -> u32 {
    random.below(flows as usize) as u32
}

/// Client number `i`: 4 million addresses of 100.64.0.0/10, with as many L4 ports as it takes.
#[inline]
pub fn client(i: u32) -> FlowKey {
    let address = Ipv4Addr::from_bits(0x6440_0000 + (i & 0x003f_ffff));
    let port = 1_024 + (i >> 22) as u16;
    testkit::flow(Protocol::Tcp, (address, port), (VIP, SERVICE_PORT))
}

/// A frame whose flow and checksums can be changed quickly.
pub struct Template {
    bytes: Vec<u8>,
    key: FlowKey,
}

impl Template {
    /// A frame of a flow to one of our ports, of 60 bytes. That of a connection that is there carries
    /// data: by that, conns in DR are known to be answered.
    pub fn new(port: InterfaceId, key: FlowKey, flags: TcpFlags) -> Self {
        let data: &[u8] = if flags.is_quiet() { b"data" } else { b"" };
        Template { bytes: testkit::packet(PORT_MACS[port.index()], &key, flags, data), key }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frame for another flow.
    pub fn with(&mut self, key: FlowKey) -> Vec<u8> {
        let old = self.key;
        if let Ok(view) = Ipv4Frame::parse_mut(&mut self.bytes) {
            let ip = Delta::between_u32(old.src, key.src).and(Delta::between_u32(old.dst, key.dst));
            let l4 = ip
                .and(Delta::between_u16(old.src_port.0, key.src_port.0))
                .and(Delta::between_u16(old.dst_port.0, key.dst_port.0));
            view.ip.src.set(key.src);
            view.ip.dst.set(key.dst);
            view.ip.checksum.set(ip.apply(view.ip.checksum()));
            view.src_port.set(key.src_port.0);
            view.dst_port.set(key.dst_port.0);
            let sum = l4.apply(u16::from_be_bytes([self.bytes[50], self.bytes[51]]));
            self.bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        }
        self.key = key;
        self.bytes.clone()
    }
}

/// Wide conn number `i`: IPv6 on both sides, of four backends.
pub fn wide_conn(i: u32) -> NewWideConn {
    let of = |net: u16, low: u32, port: u16| {
        let [high, low] = [(low >> 16) as u16, low as u16];
        (Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, high, low).into(), L4Port(port))
    };
    let backend = of(2, 1 + i % 4, 80);
    NewWideConn {
        from_client: WideTuple::between(of(1, i, 40_000), of(9, 1, 80), PROTO_TCP),
        from_backend: Some(WideTuple::between(
            backend,
            of(3, i / 32_768, 1_024 + (i % 32_768) as u16),
            PROTO_TCP,
        )),
        backend_address: backend.0,
        treatment: 0,
        service_slot: ServiceSlot(0),
        backend_slot: BackendSlot(i % 4),
        state: ConnState::Established,
        interface: CLIENT_PORT,
        seq: 0,
    }
}
