"""How long conns live and who may hold a place: half-open ones, short timeouts, many at once."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from cases import case
from cases_arp import NOBODY, answers, released, request
from cases_config import ends, with_timeout
from cases_host import answers as ping_answers
from cases_random import seed
from conn import Conn, opened
from frames import arp, ether, tcp
from play import Play
from world import B3, CLIENT, CLIENT2, LAN, REMOTE, WAN, WEB, Service


@case(expected_from="item 19")
def timeout_that_is_shortened_concerns_running_conns(p: Play) -> None:
    long, short = (
        replace(with_timeout(WEB, tcp_established=ms), name="shortened", vip="10.1.0.182")
        for ms in (3_600_000, 300)
    )
    p.apply([long])
    conn = opened(p, long)
    p.apply([short])
    ends(p, conn, 0)
    p.apply()


@case(expected_from="item 16", workers=(1,))
def half_open_conns_do_not_use_a_limit_up(p: Play) -> None:
    """With as many spoofed SYNs as the limit allows, honest clients come in: the oldest half-open
    conn that was silent for a second goes."""
    service = Service("bounded", "10.1.0.180", 80, backends=((B3, 82, 1),), more={"max_conns": 3})
    p.apply([service])
    spoofed = [Conn(p, service, REMOTE) for _ in range(3)]
    for conn in spoofed:
        conn.sends("S")
        conn.is_made()
    refused = Conn(p, service)
    refused.is_dropped(refused.segment("S", seq=1), "service_limit")
    time.sleep(1.1)
    for _ in range(3):
        opened(p, service)
        p.conns(service.name, spoofed[0].name, made=0, ended=1)
    # These are established: nobody has to go for another.
    time.sleep(1.1)
    refused = Conn(p, service)
    refused.is_dropped(refused.segment("S"), "service_limit")
    p.apply()


@case(expected_from="item 16")
def dr_conn_is_young_until_it_has_carried_data(p: Play) -> None:
    """A spoofed SYN and ACK hold an entry for the handshake's timeout, not for 15 minutes."""
    service = with_timeout(Service("dr", "", 80, mode="dr", backends=((B3, 80, 1),)),
                           tcp_syn_received=300)  # fmt: skip
    p.apply([service])
    conn = Conn(p, service)
    conn.sends("S")
    conn.is_made()
    conn.passes(ether(CLIENT, tcp(conn.client_end, conn.vip, "A", seq=1_001, ack=4_711)))
    ends(p, conn, 300)
    carries = Conn(p, service)
    carries.sends("S")
    carries.is_made()
    carries.backend_seq += 1
    carries.sends("A")
    carries.sends("PA", b"data")
    time.sleep(0.7)
    carries.sends("PA", b"and it is there")
    p.apply()


@case(expected_from="item 9")
def rst_after_which_its_sender_goes_on_was_none(p: Play) -> None:
    """Even one that is right: its sender still talks, so it was somebody else's."""
    service = with_timeout(WEB, tcp_closed=400)
    p.apply([service])
    conn = opened(p, service)
    conn.passes(conn.segment("R", seq=conn.client_seq))
    conn.sends("PA", b"that was not me")
    conn.answers("A")
    time.sleep(0.8)
    conn.sends("PA", b"still here")
    conn.answers("PA", b"so am I")
    p.apply()


@case(expected_from="item 18")
def address_that_leaves_is_answered_until_its_last_conn_is_gone(p: Play) -> None:
    leaves = replace(with_timeout(WEB, tcp_closed=100), name="leaves", vip="10.1.0.181")
    p.apply([leaves, WEB])
    conn = opened(p, leaves)
    p.apply([WEB])
    answers(p, WAN, leaves.vip)
    ping_answers(p, CLIENT, leaves.vip)
    # Whoever wants to take it may (RFC 5227, 2.1.1).
    p.send(WAN, arp(1, ("0.0.0.0", CLIENT2.mac), (leaves.vip, NOBODY)))
    p.dropped("arp_not_for_us")
    for back, port, out in ((False, WAN, LAN), (True, LAN, WAN)):
        frame = conn.segment("PA", b"it goes on", back)
        p.send(port, frame)
        p.sees(out, conn.forwarded(frame, back))
    ends_here = conn.segment("R")
    p.send(WAN, ends_here)
    p.sees(LAN, conn.forwarded(ends_here))
    p.count(-1, workers__conns=1, tables__conns=1)
    p.count(workers__conns_expired=1)
    released(p, leaves.vip)
    p.send(WAN, request(WAN, leaves.vip))
    p.dropped("arp_not_for_us")
    p.apply()


STEPS, CONNS, AT_ONCE = 400, 24, 20


@case(expected_from="items 9 and 10")
def random_segments_of_many_conns_pass(p: Play) -> None:
    """Data both ways, pure ACKs, segments sent again, and forged RST and FIN far off: all of it
    passes by the conn's own local port, and no conn is made or ends."""
    pick = random.Random(seed())
    conns = [opened(p, WEB, (CLIENT, CLIENT2, REMOTE)[n % 3]) for n in range(CONNS)]
    for _ in range(STEPS // AT_ONCE):
        expected: dict[str, list[bytes]] = {WAN: [], LAN: []}
        for _ in range(AT_ONCE):
            conn, back = pick.choice(conns), pick.random() < 0.5
            frame = step(conn, back, pick)
            p.send(LAN if back else WAN, frame)
            expected[WAN if back else LAN].append(conn.forwarded(frame, back))
            p.forwards(WEB.name, conn.name, frame, back)
        for port, left in expected.items():
            p.sees_all(port, left)


def step(conn: Conn, back: bool, pick: random.Random) -> bytes:
    """What one end, or somebody in its name, sends next."""
    right = conn.backend_seq if back else conn.client_seq
    what = pick.random()
    if what < 0.5:
        return conn.segment("PA", pick.randbytes(pick.randrange(1, 200)), back)
    if what < 0.65:
        return conn.segment("A", back=back)
    if what < 0.75:
        return conn.segment("PA", b"once more", back, seq=right - pick.randrange(1, 2_000))
    far = right + pick.randrange(2**20, 2**32 - 2**20)
    return conn.segment(pick.choice(("R", "RA", "FA", "F")), back=back, seq=far)
