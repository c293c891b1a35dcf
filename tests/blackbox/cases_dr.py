"""Direct routing: only MAC addresses and TTL change, and Sluice sees the client's half."""

from __future__ import annotations

import frames
from cases import case
from conn import Conn, opened
from play import Play
from world import CLIENT2, DR, DR_DNS, PORT_IPS, REMOTE, WAN


@case()
def dr_handshake_data_and_close(p: Play) -> None:
    conn = opened(p, DR)
    conn.sends("PA", b"GET / HTTP/1.1\r\n\r\n")
    conn.sends("A", window=7, options=[("NOP", None)] * 4)
    conn.sends("FA")
    conn.sends("A")


@case()
def dr_reset_passes(p: Play) -> None:
    conn = opened(p, DR)
    conn.sends("RA")


@case()
def dr_from_afar_and_side_by_side(p: Play) -> None:
    conns = [opened(p, DR, client) for client in (REMOTE, CLIENT2, REMOTE)]
    for conn in conns:
        conn.sends("PA", b"one of several")


@case()
def dr_syn_sent_again_stays_the_same_conn(p: Play) -> None:
    conn = Conn(p, DR)
    syn = conn.segment("S")
    conn.passes(syn)
    conn.is_made()
    conn.passes(syn)
    conn.passes(syn)


@case()
def dr_every_ttl_and_field_unchanged_but_one_hop(p: Play) -> None:
    conn = opened(p, DR)
    for ttl in (2, 3, 64, 128, 255):
        conn.sends("PA", b"x", ttl=ttl, tos=0x2E, id=ttl)


@case()
def dr_ttl_runs_out(p: Play) -> None:
    conn = opened(p, DR)
    for ttl in (0, 1):
        frame = conn.segment("PA", b"too far", seq=5, ttl=ttl)
        p.send(WAN, frame)
        p.sees(WAN, frames.icmp_about(frame, PORT_IPS[WAN], 11, 0))
        p.dropped("ttl_exceeded")


@case()
def dr_larger_than_the_next_wire(p: Play) -> None:
    conn = opened(p, DR)
    frame = conn.segment("A", bytes(1_361), seq=5)
    p.send(WAN, frame)
    p.sees(WAN, frames.icmp_about(frame, PORT_IPS[WAN], 3, 4, 1_400))
    p.dropped("mtu_exceeded")
    conn.sends("A", bytes(1_360))


@case()
def dr_udp(p: Play) -> None:
    conn = opened(p, DR_DNS)
    for data in (b"", b"x", b"question" * 100):
        conn.says(data)
    conn.says(b"no checksum", checksum=0)


@case()
def dr_damaged_packets_do_not_pass(p: Play) -> None:
    conn = opened(p, DR)
    good = conn.segment("PA", b"good")
    conn.is_dropped(good[:-1] + b"x", "l4_bad_checksum")
    conn.is_dropped(good[:-1], "ipv4_truncated")
    conn.passes(good)
