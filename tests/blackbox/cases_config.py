"""Changes of the configuration and of health, and time: what they do to conns, old and new."""

from __future__ import annotations

import time

import counters
from cases import case
from conn import Conn, opened
from frames import ether, tcp
from play import Play, Wrong
from world import B1, B2, B3, CLIENT, DNS, LONG, WAN, WEB, Service, backend, snapshot


@case()
def config_a_drained_backend_keeps_its_conns(p: Play) -> None:
    conn = opened(p, WEB)
    changed = WEB.snapshot()
    changed["backends"] = [backend(B1, 8080, state="drain"), backend(B2, 8080)]
    p.apply([changed])
    conn.sends("PA", b"still with the first")
    conn.answers("PA", b"yes")
    new = Service("web", WEB.vip, WEB.port, backends=((B2, 8080, 100),))
    opened(p, new).sends("PA", b"with the second")
    p.apply()


@case()
def config_a_weight_of_zero_takes_no_new_conns(p: Play) -> None:
    changed = WEB.snapshot()
    changed["backends"] = [backend(B1, 8080, weight=0), backend(B3, 8080)]
    p.apply([changed])
    new = Service("web", WEB.vip, WEB.port, backends=((B3, 8080, 100),))
    for _ in range(20):
        opened(p, new)
    p.apply()


@case()
def config_a_new_vip_and_a_removed_one(p: Play) -> None:
    other = Service("other", "10.1.0.140", 81, backends=((B2, 81, 1),))
    p.apply([WEB, other])
    conn = opened(p, other)
    p.apply([WEB])
    # It takes nobody new, and goes on with those that it has.
    p.send(WAN, ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), (other.vip, 81))))
    p.dropped("not_for_us")
    p.apply([WEB, other])
    conn.sends("PA", b"here again")
    conn.answers("PA", b"as if nothing had been")
    p.apply()


@case()
def config_changes_lose_nothing(p: Play) -> None:
    """A change between any two packets of conns that it does not concern."""
    tcp_conn, udp_conn = opened(p, WEB), opened(p, DNS)
    for n in range(40):
        more = Service(f"more-{n}", "10.1.0.141", 1_000 + n, backends=((B3, 80, 1 + n),))
        web = WEB.snapshot()
        web["backends"] = [backend(B1, 8080, weight=1 + n), backend(B2, 8080, weight=n)]
        p.apply([web, DNS, more])
        tcp_conn.sends("PA", b"before the next change")
        tcp_conn.answers("PA", b"after the last one")
        udp_conn.says(b"over")
        udp_conn.says(b"and out", back=True)
    p.apply()


@case()
def config_an_old_generation_is_refused(p: Play) -> None:
    for generation in (0, 1, p.generation - 1):
        try:
            p.lab.control.ask("apply", snapshot=snapshot([]) | {"generation": generation})
        except RuntimeError as refused:
            assert "generation" in str(refused), refused
        else:
            raise Wrong(f"generation {generation} was taken after {p.generation}")
    opened(p, WEB)


def with_timeout(service: Service, **ms: int) -> Service:
    """The service under another name and VIP, with short timeouts."""
    timeouts = dict(LONG) | {f"{state}_ms": value for state, value in ms.items()}
    more = {"timeouts": timeouts}
    return Service("timed", "10.1.0.142", service.port, service.protocol, service.mode,
                   service.backends, more)  # fmt: skip


def ends(p: Play, conn: Conn, within_ms: int) -> None:
    """The conn is there, and gone after its timeout, or somewhat later."""
    started = time.monotonic()
    name = f"services.{conn.service.name}.conns"
    left = p.before[name] + p.expected[name] - 1
    while counters.flatten(p.lab.control.ask("stats"))[name] > left:
        if time.monotonic() - started > 3 + within_ms / 1_000:
            raise Wrong("the conn does not end")
        time.sleep(0.005)
    took_ms = (time.monotonic() - started) * 1_000
    if took_ms < within_ms * 0.5:
        raise Wrong(f"the conn ended after {took_ms:.0f} ms, its timeout is {within_ms} ms")
    p.conns(conn.service.name, conn.name, made=0, ended=1)


@case()
def timeout_of_a_syn_without_answer(p: Play) -> None:
    service = with_timeout(WEB, tcp_syn_sent=300)
    p.apply([service])
    conn = Conn(p, service)
    conn.sends("S")
    conn.is_made()
    ends(p, conn, 300)
    p.apply()


@case()
def timeout_of_an_idle_conn(p: Play) -> None:
    service = with_timeout(WEB, tcp_established=300)
    p.apply([service])
    conn = opened(p, service)
    for _ in range(4):
        # Each packet, of either side, starts it anew.
        time.sleep(0.1)
        conn.sends("PA", b"busy")
        time.sleep(0.1)
        conn.answers("PA", b"busy too")
    ends(p, conn, 300)
    p.apply()


@case()
def timeout_after_both_have_closed(p: Play) -> None:
    service = with_timeout(WEB, tcp_time_wait=200)
    p.apply([service])
    conn = opened(p, service)
    conn.sends("FA")
    conn.answers("FA")
    conn.sends("A")
    ends(p, conn, 200)
    p.apply()


@case()
def timeout_after_a_reset(p: Play) -> None:
    service = with_timeout(WEB, tcp_closed=200)
    p.apply([service])
    conn = opened(p, service)
    conn.answers("R")
    ends(p, conn, 200)
    p.apply()


@case()
def timeout_of_udp_one_way_and_two_way(p: Play) -> None:
    service = with_timeout(DNS, udp_one_way=200, udp_two_way=500)
    p.apply([service])
    conn = Conn(p, service)
    conn.says(b"anybody there")
    conn.is_made()
    ends(p, conn, 200)
    ends(p, opened(p, service), 500)
    p.apply()


@case()
def timeout_in_dr(p: Play) -> None:
    service = with_timeout(Service("dr", "", 80, mode="dr", backends=((B2, 80, 1),)),
                           tcp_syn_received=250)  # fmt: skip
    p.apply([service])
    conn = Conn(p, service)
    conn.sends("S")
    conn.is_made()
    ends(p, conn, 250)
    p.apply()
