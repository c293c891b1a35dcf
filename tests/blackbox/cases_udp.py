"""UDP flows in full-NAT: both ways, checksums of zero, changes of backends."""

from __future__ import annotations

import struct

import frames
from cases import case
from conn import Conn, opened
from frames import ETHER, L4, ether, udp
from play import Play
from world import B2, CLIENT, CLIENT2, DNS, LAN, PORT_IPS, REMOTE, WAN, backend


@case()
def udp_question_and_answer(p: Play) -> None:
    conn = opened(p, DNS)
    for _ in range(3):
        conn.says(b"another question")
        conn.says(b"another answer" * 20, back=True)


@case()
def udp_without_checksum_stays_without(p: Play) -> None:
    """RFC 768: zero says that there is none."""
    conn = Conn(p, DNS)
    conn.says(b"no checksum", checksum=0)
    conn.is_made()
    conn.says(b"none back either", back=True, checksum=0)
    conn.says(b"one now")


@case()
def udp_checksum_at_its_edges(p: Play) -> None:
    """A sum of zero is written as 0xffff (RFC 768), before and behind."""
    conn = opened(p, DNS)
    for back in (False, True):
        for want in (0xFFFF, 0x0001, 0xFFFE):
            frame = conn.datagram(b"\0\0", back)
            for edge in (frame, conn.forwarded(frame, back)):
                (have,) = struct.unpack(">H", edge[L4 + 6 : L4 + 8])
                conn.says(struct.pack(">H", (have - want) % 0xFFFF), back)


@case()
def udp_of_every_small_length_and_the_largest(p: Play) -> None:
    conn = opened(p, DNS)
    for length in (*range(20), 1_371, 1_372):
        conn.says(bytes(i % 253 for i in range(length)))
        conn.says(bytes(i % 251 for i in range(length)), back=True)


@case()
def udp_shorter_than_its_packet(p: Play) -> None:
    """UDP's length ends the data before the IP packet does; what is behind it belongs to nobody."""
    conn = opened(p, DNS)
    for back in (False, True):
        whole = conn.datagram(b"data and more", back)
        packet = whole[ETHER : L4 + 4] + struct.pack(">H", 8 + 4) + whole[L4 + 6 :]
        conn.passes(whole[:ETHER] + frames.with_checksums(packet), back)


@case()
def udp_flows_are_apart(p: Play) -> None:
    conns = [opened(p, DNS, client) for client in (CLIENT, CLIENT2, REMOTE) for _ in range(10)]
    assert len({conn.local for conn in conns}) == len(conns)
    for conn in reversed(conns):
        conn.says(b"mine", back=True)


@case()
def udp_ttl_runs_out(p: Play) -> None:
    conn = opened(p, DNS)
    for back, port in ((False, WAN), (True, LAN)):
        frame = conn.datagram(b"too far", back, ttl=1)
        p.send(port, frame)
        p.sees(port, frames.icmp_about(frame, PORT_IPS[port], 11, 0))
        p.dropped("ttl_exceeded")


@case()
def udp_larger_than_the_next_wire(p: Play) -> None:
    conn = opened(p, DNS)
    for size in (1_373, 1_472):
        frame = conn.datagram(bytes(size))
        p.send(WAN, frame)
        p.sees(WAN, frames.icmp_about(frame, PORT_IPS[WAN], 3, 4, 1_400))
        p.dropped("mtu_exceeded")


@case()
def udp_leaves_a_backend_that_is_unhealthy(p: Play) -> None:
    """A UDP flow has no end to wait for: it goes to another backend with the next datagram."""
    conn = opened(p, DNS)
    moved = DNS.snapshot()
    moved["backends"][0]["healthy"] = False
    moved["backends"].append(backend(B2, 5353))
    p.apply([moved])
    frame = conn.datagram(b"anybody there")
    new = Conn(p, DNS, port=conn.client_end[1])
    new.backend, new.backend_end = B2, (B2.ip, 5353)
    new.passes(frame)
    p.conns(DNS.name, new.name, made=1)
    p.conns(DNS.name, conn.name, made=0, ended=1)
    new.says(b"here", back=True)
    p.apply()


@case()
def udp_from_a_client_without_a_flow_back(p: Play) -> None:
    """A stray from the backend that belongs to no flow of it."""
    conn = opened(p, DNS)
    stray = ether(B2, udp((B2.ip, 5353), conn.local or ("", 0)))
    p.send(LAN, stray)
    p.dropped("udp_no_conn")
