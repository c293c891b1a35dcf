"""Who is answered though nobody serves it (RFC 9293, 3.10.7.1; RFC 1122, 3.2.2.1)."""

from __future__ import annotations

import time

import frames
from cases import add, case
from conn import Conn, opened
from frames import Endpoint, ether, tcp, udp
from play import Play
from world import (
    B1, B2, CLIENT, DNS, DR, EMPTY, EMPTY_DNS, LAN, LOCAL, PORT_MACS, WAN, WEB, Host, Service,
    backend,
)  # fmt: skip

ITEM = "item 20"


def reset(to: Host, src: Endpoint, dst: Endpoint, **fields: object) -> bytes:
    """The RST that Sluice makes, from `src` to the station that sent to it."""
    usual: dict[str, object] = {"id": 0, "window": 0, "ttl": 64}
    packet = tcp(src, dst, **(usual | fields))  # type: ignore[arg-type]
    return frames.pad(ether(PORT_MACS[to.port], packet, dst=to.mac))


def answer_to(host: Host, segment: frames.Packet) -> bytes:
    """RFC 9293, 3.10.7.1: with ACK, a RST from there; else RST and ACK of all that it takes up."""
    sent = segment["TCP"]
    src, dst = (segment.dst, sent.dport), (segment.src, sent.sport)
    if "A" in sent.flags:
        return reset(host, src, dst, flags="R", seq=sent.ack)
    length = len(sent.payload) + ("S" in sent.flags) + ("F" in sent.flags)
    return reset(host, src, dst, flags="RA", seq=0, ack=sent.seq + length)


def add_reset(name: str, reason: str, to: Endpoint, flags: str, **more: object) -> None:
    """Put a case into the table: a client's segment is answered with this RST."""

    def play(p: Play) -> None:
        source = (CLIENT.ip, p.fresh_port())
        fields: dict[str, object] = {"seq": 0xFFFF_FFF0, "ack": 0x1234_5678} | more
        segment = tcp(source, to, flags, **fields)  # type: ignore[arg-type]
        p.send(WAN, ether(CLIENT, segment))
        p.sees(WAN, answer_to(CLIENT, segment))
        p.dropped(reason)
        p.count(workers__resets_sent=1)

    add(f"reset_{name}", play, ITEM)


WEB_END, EMPTY_END, NO_SERVICE = (WEB.vip, WEB.port), (EMPTY.vip, EMPTY.port), (WEB.vip, 81)
for flags in ("A", "PA", "FA", "SA", "PAU"):
    data = b"data" if "P" in flags else b""
    add_reset(f"without_conn_{flags}", "no_conn", WEB_END, flags, data=data)
add_reset("without_conn_F", "no_conn", WEB_END, "F")
add_reset("syn_without_backend", "no_backend", EMPTY_END, "S")
add_reset("syn_with_data_without_backend", "no_backend", EMPTY_END, "S", data=b"x" * 33)
add_reset("syn_without_service", "no_service", NO_SERVICE, "S")
add_reset("ack_without_service", "no_service", NO_SERVICE, "A")


@case(expected_from=ITEM)
def reset_is_never_answered(p: Play) -> None:
    """RFC 9293, 3.10.7.1: an incoming segment containing a RST is discarded."""
    for to, reason in ((WEB_END, "no_conn"), (NO_SERVICE, "no_service"), (EMPTY_END, "no_conn")):
        for flags in ("R", "RA"):
            p.send(WAN, ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), to, flags, ack=7)))
            p.dropped(reason)


@case(expected_from=ITEM)
def reset_of_a_backend_without_conn(p: Play) -> None:
    segment = tcp((B1.ip, 8080), (LOCAL, 1_023), "PA", seq=5, ack=99, data=b"late")
    p.send(LAN, ether(B1, segment))
    p.sees(LAN, answer_to(B1, segment))
    p.dropped("no_conn")
    p.count(workers__resets_sent=1)


@case(expected_from="items 20 and 28")
def syn_to_a_local_address_is_refused(p: Play) -> None:
    segment = tcp((B1.ip, 4_000), (LOCAL, 22), "S", seq=5)
    p.send(LAN, ether(B1, segment))
    p.sees(LAN, answer_to(B1, segment))
    p.dropped("syn_to_local")
    p.count(workers__resets_sent=1)


@case(expected_from="item 28")
def udp_stray_to_a_local_address(p: Play) -> None:
    p.send(LAN, ether(B1, udp((B1.ip, 5353), (LOCAL, 1_023))))
    p.dropped("udp_no_conn")


@case(expected_from=ITEM)
def dr_segment_without_conn_is_dropped(p: Play) -> None:
    """In DR the backend could answer itself, and another node may know the conn."""
    for flags in ("A", "PA", "FA", "R"):
        segment = tcp((CLIENT.ip, p.fresh_port()), (DR.vip, DR.port), flags, ack=7)
        p.send(WAN, ether(CLIENT, segment))
        p.dropped("no_conn")


@case(expected_from=ITEM)
def unreachable_for_udp_without_service_or_backend(p: Play) -> None:
    for to, reason in (((DNS.vip, 54), "no_service"), ((EMPTY_DNS.vip, 53), "no_backend")):
        frame = ether(CLIENT, udp((CLIENT.ip, p.fresh_port()), to))
        p.send(WAN, frame)
        p.sees(WAN, frames.icmp_about(frame, to[0], 3, 3))
        p.dropped(reason)
        p.count(workers__unreachables_sent=1)


@case(expected_from=ITEM)
def nothing_where_the_service_says_drop(p: Play) -> None:
    silent = Service("silent", "10.1.0.170", 80, more={"no_conn": "drop", "no_backend": "drop"})
    p.apply([silent])
    end = (silent.vip, silent.port)
    p.send(WAN, ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), end, "A", ack=7)))
    p.dropped("no_conn")
    p.send(WAN, ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), end, "S")))
    p.dropped("no_backend")
    p.apply()


@case(expected_from=ITEM)
def icmp_host_unreachable_where_the_service_says_so(p: Play) -> None:
    told = Service("told", "10.1.0.171", 80, more={"no_backend": "unreachable"})
    p.apply([told])
    frame = ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), (told.vip, told.port), "S"))
    p.send(WAN, frame)
    p.sees(WAN, frames.icmp_about(frame, told.vip, 3, 1))
    p.dropped("no_backend")
    p.count(workers__unreachables_sent=1)
    p.apply()


@case(expected_from="item 17")
def established_conn_whose_backend_went_is_planned_anew(p: Play) -> None:
    """Its client's SYN, once the conn was silent for 0.9 s, goes to a backend that is there."""
    service = Service("leaves", "10.1.0.172", 80, backends=((B1, 80, 100),))
    p.apply([service])
    conn = opened(p, service)
    changed = service.snapshot()
    changed["backends"] = [backend(B2, 80)]
    p.apply([changed])
    time.sleep(1)
    again = Conn(p, Service("leaves", service.vip, 80, backends=((B2, 80, 100),)),
                 port=conn.client_end[1])  # fmt: skip
    again.client_seq = conn.client_seq + 500_000
    again.sends("S")
    again.is_made()
    p.count(-1, workers__conns=1, tables__conns=1, services__leaves__conns=1)
    p.count(workers__conns_expired=1)
    again.answers("SA")
    p.apply()
