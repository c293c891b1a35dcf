"""Next hops: asked for, waited for, given up; and that no packet goes to another's MAC address."""

from __future__ import annotations

import time

from cases import case
from conn import Conn, opened
from play import Play, arp_request
from world import B1, DEAD, LAN, WAN, Host, Service

# Hosts that nobody has sent to yet, one for each case.
LATE = [Host(f"late{n}", LAN, f"10.2.0.{30 + n}", f"02:b0:00:00:01:{n:02x}") for n in range(4)]


def with_backends(number: int, *hosts: Host) -> Service:
    """A service over these hosts, at a VIP of its own."""
    backends = tuple((host, 80, 100) for host in hosts)
    vip = f"10.1.0.{160 + number}"
    return Service(f"late-{number}", vip, 80, backends=backends, more={"scheduler": "wrr"})


def unknown(p: Play, host: Host) -> None:
    """The host answers once it is asked."""
    p.macs[LAN, host.ip] = host.mac


@case(expected_from="item 1")
def next_hop_unknown_waits_for_its_own_mac(p: Play) -> None:
    """Nothing leaves before it has answered; then what waited does, in order, to its own MAC."""
    host = LATE[0]
    service = with_backends(0, host)
    p.apply([service])
    p.sees(LAN, arp_request(LAN, host.ip))
    unknown(p, host)
    conn = Conn(p, service)
    syn = conn.segment("S")
    for _ in range(3):
        p.send(WAN, syn)
    p.settle()
    assert not p.arrived[LAN], "something left before the next hop was known"
    p.answer(LAN, host.ip)
    conn.learn_local(p.take(LAN), syn)
    p.sees(LAN, *[conn.forwarded(syn)] * 2)
    for _ in range(3):
        p.forwards(service.name, conn.name, syn)
    conn.is_made()
    conn.answers("SA")
    conn.sends("A")
    p.apply()


@case(expected_from="item 1", workers=(1,))
def next_hop_unknown_beside_a_known_one(p: Play) -> None:
    """Conns in turn to a backend that is known and to one that is not: each by its own MAC."""
    host = LATE[1]
    service = with_backends(1, B1, host)
    p.apply([service])
    p.sees(LAN, arp_request(LAN, host.ip))
    unknown(p, host)
    waiting: list[tuple[Conn, bytes]] = []
    for n in range(8):
        conn = Conn(p, service, backend=n % 2)
        syn = conn.segment("S")
        if n % 2 == 0:
            conn.passes(syn)
        else:
            p.send(WAN, syn)
            waiting.append((conn, syn))
            p.forwards(service.name, conn.name, syn)
        conn.is_made()
    p.answer(LAN, host.ip)
    for conn, syn in waiting:
        conn.learn_local(p.take(LAN), syn)
    p.apply()


@case(expected_from="items 1, 10 and 28")
def next_hop_that_does_not_answer(p: Play) -> None:
    """Asked for each second, whether or not anybody sends to it; after three times 64 packets, which
    waited, end, and control is told. What never left counts as nobody's, and other conns go on."""
    service = with_backends(2, DEAD)
    changes = p.lab.control.ask("status")["unreachable_changes"]
    assert unreachable(p) == []
    started = time.monotonic()
    p.apply([service, with_backends(3, B1)])
    p.sees(LAN, arp_request(LAN, DEAD.ip))
    other = opened(p, with_backends(3, B1))
    conn = Conn(p, service)
    syn = conn.segment("S")
    p.send(WAN, *[syn] * 70)
    for _ in range(2):
        p.sees(LAN, arp_request(LAN, DEAD.ip))
        other.sends("PA", b"not concerned")
    asked = time.monotonic() - started
    assert 1.8 < asked < 2.6, f"three requests in {asked:.1f} s"
    p.dropped("neighbour_pending", 6)
    deadline = time.monotonic() + 2
    while not unreachable(p):
        assert time.monotonic() < deadline, "the next hop is not given up"
        time.sleep(0.01)
    assert unreachable(p) == [{"address": DEAD.ip, "next_hop": DEAD.ip}]
    assert p.lab.control.ask("status")["unreachable_changes"] == changes + 1
    p.dropped("neighbour_unreachable", 64)
    p.sees(LAN, *[arp_request(LAN, DEAD.ip)] * 2)
    # It comes back, without anybody who sends to it.
    p.macs[LAN, DEAD.ip] = DEAD.mac
    p.resolves(LAN, DEAD.ip)
    p.knows(DEAD.ip, DEAD.mac)
    assert unreachable(p) == []
    assert p.lab.control.ask("status")["unreachable_changes"] == changes + 2
    p.send(WAN, syn)
    conn.learn_local(p.take(LAN), syn)
    p.forwards(service.name, conn.name, syn)
    # A conn that waits for its next hop may be one or none.
    of = (f"services.{service.name}", f"services.{service.name}.{conn.name}", "workers")
    p.ignore(*(f"{what}.{count}" for what in of for count in ("conns", "conns_created")))
    p.ignore("tables.conns", "workers.conns_expired")
    p.apply()


def unreachable(p: Play) -> list[dict[str, str]]:
    """Backends that cannot be sent to, as control is told."""
    backends: list[dict[str, str]] = p.lab.control.ask("unreachable-backends")["backends"]
    return backends
