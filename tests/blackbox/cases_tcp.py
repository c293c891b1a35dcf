"""TCP conns in full-NAT: handshake, data both ways, ends, and what is no conn."""

from __future__ import annotations

import frames
from cases import case
from conn import Conn, opened
from frames import ether, tcp
from play import Play, Wrong
from world import (
    B1, CLIENT, CLIENT2, FAR, LAN, LIMITED, LOCAL, PORT_IPS, PORT_MACS, REMOTE, ROUTED, STRANGER,
    WAN, WEB, Service,
)  # fmt: skip


@case()
def tcp_handshake_data_and_close_by_the_client(p: Play) -> None:
    conn = opened(p, WEB)
    conn.sends("PA", b"GET / HTTP/1.1\r\n\r\n")
    conn.answers("A")
    conn.answers("PA", b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(256)))
    conn.sends("A")
    conn.sends("FA")
    conn.answers("A")
    conn.answers("FA")
    conn.sends("A")


@case()
def tcp_close_by_the_backend(p: Play) -> None:
    conn = opened(p, WEB)
    conn.answers("FA")
    conn.sends("A")
    conn.sends("PA", b"half open is open")
    conn.answers("A")
    conn.sends("FA")
    conn.answers("A")
    p.rests(WEB.name, conn.name)


@case()
def tcp_simultaneous_close(p: Play) -> None:
    conn = opened(p, WEB)
    conn.sends("FA")
    conn.answers("FA", ack=conn.client_seq - 1)
    conn.sends("A")
    conn.answers("A")


@case()
def tcp_reset_by_either_side_passes(p: Play) -> None:
    conn = opened(p, WEB)
    conn.sends("R")
    conn = opened(p, WEB)
    conn.sends("RA")
    conn = opened(p, WEB)
    conn.answers("R")
    conn = opened(p, WEB)
    conn.answers("RA")


@case()
def tcp_refused_by_the_backend(p: Play) -> None:
    conn = Conn(p, WEB)
    conn.sends("S")
    conn.is_made()
    conn.passes(conn.segment("RA", back=True, seq=0), back=True)


@case()
def tcp_syn_sent_again_stays_the_same_conn(p: Play) -> None:
    conn = Conn(p, WEB)
    syn = conn.segment("S", options=[("MSS", 1460)])
    conn.passes(syn)
    conn.is_made()
    for _ in range(3):
        conn.passes(syn)
    conn.answers("SA")
    conn.answers("SA", seq=900_000)
    conn.sends("A")


@case()
def tcp_syn_with_data_and_ecn_passes(p: Play) -> None:
    conn = Conn(p, WEB)
    conn.sends("SEC", b"early data", options=[("MSS", 1460)])
    conn.is_made()
    conn.answers("SAE")


@case()
def tcp_sequence_numbers_wrap(p: Play) -> None:
    conn = Conn(p, WEB)
    conn.client_seq, conn.backend_seq = 2**32 - 5, 2**32 - 3
    conn.sends("S")
    conn.is_made()
    conn.answers("SA")
    conn.sends("A")
    for _ in range(3):
        conn.sends("PA", b"wrap")
        conn.answers("PA", b"around")


@case()
def tcp_reopened_by_the_client_after_it_closed(p: Play) -> None:
    """RFC 9293, 3.6.1: a SYN above the last sequence number starts a new conn."""
    conn = opened(p, WEB)
    conn.sends("FA")
    conn.answers("FA")
    conn.sends("A")
    conn.answers("A")
    again = Conn(p, WEB, port=conn.client_end[1])
    again.client_seq = conn.client_seq + 5_000_000
    again.sends("S")
    p.conns(WEB.name, conn.name, made=1, ended=1)
    again.answers("SA")
    again.sends("A")


@case()
def tcp_reopened_near_its_last_sequence_number(p: Play) -> None:
    """It could be a late copy of the first SYN: the backend judges, by the same local port, and its
    word makes it a new connection."""
    conn = opened(p, WEB)
    conn.sends("FA")
    conn.answers("FA")
    conn.sends("A")
    conn.client_seq += 3_000
    conn.backend_seq += 900_000_000
    conn.sends("S")
    conn.answers("SA")
    conn.sends("A")
    conn.sends("PA", b"new")
    conn.answers("PA", b"and well")
    conn.passes(conn.segment("S", seq=77))


@case()
def tcp_from_afar_by_the_router(p: Play) -> None:
    conn = opened(p, WEB, REMOTE)
    conn.sends("PA", b"from another network")
    conn.answers("PA", b"by the router")


@case()
def tcp_to_a_backend_behind_a_gateway(p: Play) -> None:
    conn = opened(p, ROUTED)
    conn.sends("PA", b"by the gateway")
    conn.answers("PA", b"and back")
    assert conn.backend is FAR


@case()
def tcp_conns_have_local_ports_of_their_own(p: Play) -> None:
    conns = [opened(p, WEB, client) for client in (CLIENT, CLIENT2, REMOTE) for _ in range(12)]
    ports = {conn.local for conn in conns}
    if len(ports) != len(conns):
        raise Wrong(f"{len(conns)} conns share {len(ports)} local ports")
    for conn in conns:
        conn.sends("PA", b"mine")
        conn.answers("PA", b"yours")


@case()
def tcp_two_clients_with_the_same_port_are_two_conns(p: Play) -> None:
    port = p.fresh_port()
    first, second = opened(p, WEB, CLIENT, port=port), opened(p, WEB, CLIENT2, port=port)
    first.sends("FA")
    first.answers("FA")
    second.sends("PA", b"still here")
    second.answers("PA", b"so am I")


@case(workers=(1,))
def tcp_at_its_service_limit(p: Play) -> None:
    """One worker uses a limit to the last conn; several have quotas that follow the load."""
    conns = [opened(p, LIMITED) for _ in range(2)]
    refused = Conn(p, LIMITED)
    refused.is_dropped(refused.segment("S"), "service_limit")
    for conn in conns:
        conn.sends("PA", b"runs on")
    p.apply()


@case(workers=(1,))
def tcp_at_its_backends_limits(p: Play) -> None:
    service = Service("two", "10.1.0.100", 8000, backends=((B1, 99, 100),))
    limited = service.snapshot()
    limited["backends"][0]["max_conns"] = 1
    p.apply([limited])
    opened(p, service)
    refused = Conn(p, service)
    refused.is_dropped(refused.segment("S"), "backend_limit")
    p.apply()


@case()
def tcp_reply_without_a_route(p: Play) -> None:
    conn = Conn(p, WEB, STRANGER)
    conn.sends("S")
    conn.is_made()
    conn.is_dropped(conn.segment("SA", back=True), "no_route", back=True)


@case()
def tcp_from_a_backends_wire_is_served_too(p: Play) -> None:
    """A client among the backends: the VIP is served to every wire."""
    source = (B1.ip, p.fresh_port())
    syn = tcp(source, (ROUTED.vip, ROUTED.port))
    p.send(LAN, ether(B1, syn))
    seen = p.take(LAN)
    local = (LOCAL, frames.parse(seen)["TCP"].sport)
    macs = (FAR.mac, PORT_MACS[LAN])
    expected = frames.hop(ether(B1, syn), macs, local, (FAR.ip, 8000))
    if seen != expected:
        raise Wrong(frames.difference(expected, seen))
    backend = f"{FAR.ip}:8000"
    p.forwards(ROUTED.name, backend, ether(B1, syn))
    p.conns(ROUTED.name, backend)
    answer = ether(FAR.mac, tcp((FAR.ip, 8000), local, "SA", ack=1_001), dst=PORT_MACS[LAN])
    p.send(LAN, answer)
    macs = (B1.mac, PORT_MACS[LAN])
    p.sees(LAN, frames.hop(answer, macs, (ROUTED.vip, ROUTED.port), source))
    p.forwards(ROUTED.name, backend, answer, back=True)


@case()
def tcp_ttl_runs_out(p: Play) -> None:
    """RFC 1812, 5.3.1: the sender is told, from the address of the port that it came in by."""
    conn = opened(p, WEB)
    for ttl in (0, 1):
        for back, port in ((False, WAN), (True, LAN)):
            frame = conn.segment("PA", b"too far", back=back, ttl=ttl, seq=5)
            p.send(port, frame)
            p.sees(port, frames.icmp_about(frame, PORT_IPS[port], 11, 0))
            p.dropped("ttl_exceeded")


@case()
def tcp_larger_than_the_next_wire(p: Play) -> None:
    """RFC 1191: the sender is told the MTU of the backends' wire, which is 1,400."""
    conn = opened(p, WEB)
    for size in (1_361, 1_400, 1_460):
        frame = conn.segment("A", bytes(size), seq=7)
        p.send(WAN, frame)
        p.sees(WAN, frames.icmp_about(frame, PORT_IPS[WAN], 3, 4, 1_400))
        p.dropped("mtu_exceeded")
    conn.sends("PA", bytes(1_360))
