"""What ends a conn, by its timeout afterwards: right FINs and RSTs of every kind do, forged ones do
not (the other states have long timeouts here)."""

from __future__ import annotations

import time

from cases import add, case
from cases_config import ends, with_timeout
from conn import Conn, opened
from play import Play
from world import B2, DR, WEB, Service

SHORT_MS = 200
ITEM = "items 9 and 16"
CLOSED = {"tcp_closed": SHORT_MS, "tcp_time_wait": SHORT_MS}
DIRECT = Service("dr", "", 80, mode="dr", backends=((B2, 80, 1),))


def half_open(p: Play, service: Service) -> Conn:
    """A conn whose SYN was sent."""
    conn = Conn(p, service)
    conn.sends("S")
    conn.is_made()
    return conn


def add_end(name: str, service: Service, play: object, opens: object = opened) -> None:
    """Put a case into the table: after this the conn is closed, and soon gone."""

    def body(p: Play) -> None:
        timed = with_timeout(service, **CLOSED)
        p.apply([timed])
        conn = opens(p, timed)  # type: ignore[operator]
        play(conn)  # type: ignore[operator]
        ends(p, conn, SHORT_MS)
        p.apply()

    add(f"ends_{name}", body, ITEM)


def refused(conn: Conn) -> None:
    """A closed port of the backend: RST of sequence number 0 that acknowledges the SYN."""
    conn.passes(conn.segment("RA", back=True, seq=0), back=True)


def reset_at_the_wrap(conn: Conn) -> None:
    """Data up to 2^32 and beyond, then a RST where it has come to."""
    conn.client_seq = 2**32 - 3
    for at in (2**32 - 60_000, 2**32 - 30_000, 2**32 - 3):
        conn.sends("PA", b"seven b", seq=at)
    conn.client_seq = 4
    conn.sends("R")


def closes_after_a_loss(conn: Conn) -> None:
    """Some 300 kB were lost in front of Sluice: the next segment's acknowledgment bears witness."""
    conn.client_seq += 300_000
    conn.sends("PA", b"behind the gap")
    conn.sends("FA")
    conn.answers("FA")
    conn.sends("A")
    conn.answers("A")


def closes(conn: Conn) -> None:
    """The client closes, then the backend."""
    conn.sends("FA")
    conn.answers("A")
    conn.answers("FA")
    conn.sends("A")


def closes_with_data(conn: Conn) -> None:
    """FINs that carry data, one of them sent again."""
    conn.sends("FPA", b"last words")
    again = conn.client_seq
    conn.passes(conn.segment("FPA", b"last words", seq=again - 11))
    conn.answers("FPA", b"and mine")
    conn.sends("A")
    conn.answers("A")


def closes_without_ack_flag(conn: Conn) -> None:
    """Some stacks reset by the bare number, as RFC 9293, 3.10.7.1 says of segments with ACK."""
    conn.answers("PA", b"data that nobody wants")
    conn.sends("R")


add_end("by_close", WEB, closes)
add_end("by_fins_with_data", WEB, closes_with_data)
add_end("by_close_after_a_loss", WEB, closes_after_a_loss)
add_end("by_rst_of_the_client", WEB, lambda conn: conn.sends("R"))
add_end("by_rst_ack_of_the_client", WEB, lambda conn: conn.sends("RA"))
add_end("by_rst_of_the_backend", WEB, lambda conn: conn.answers("R"))
add_end("by_rst_ack_of_the_backend", WEB, lambda conn: conn.answers("RA"))
add_end("by_rst_after_data", WEB, closes_without_ack_flag)
add_end("by_rst_at_the_wrap", WEB, reset_at_the_wrap)
add_end("by_refusal", WEB, refused, half_open)
add_end("by_rst_of_a_half_open_client", WEB, lambda conn: conn.sends("R"), half_open)
add_end("in_dr_by_rst", DR, lambda conn: conn.sends("R"))
add_end("in_dr_by_rst_ack", DR, lambda conn: conn.sends("RA"))
add_end("in_dr_by_rst_of_a_half_open_client", DR, lambda conn: conn.sends("R"), half_open)


@case(expected_from=ITEM)
def ends_not_by_half_a_close(p: Play) -> None:
    """One FIN, acknowledged: the other half may be used for as long as `tcp_fin_wait` allows."""
    timed = with_timeout(WEB, **CLOSED, tcp_last_ack=SHORT_MS)
    p.apply([timed])
    conn = opened(p, timed)
    conn.sends("FA")
    conn.answers("A")
    for _ in range(3):
        time.sleep(0.3)
        conn.answers("PA", b"a long answer")
        conn.sends("A")
    conn.answers("R")
    ends(p, conn, SHORT_MS)
    p.apply()


@case(expected_from=ITEM)
def ends_not_by_forged_fins(p: Play) -> None:
    """FINs of both sides and their ACKs, all far off: the conn is as it was."""
    far = 2**30
    timed = with_timeout(WEB, **CLOSED, tcp_fin_wait=SHORT_MS, tcp_last_ack=SHORT_MS)
    p.apply([timed])
    conn = opened(p, timed)
    conn.passes(conn.segment("FA", seq=conn.client_seq + far, ack=conn.backend_seq + far))
    forged = conn.segment("FA", back=True, seq=conn.backend_seq + far, ack=conn.client_seq + far)
    conn.passes(forged, back=True)
    conn.passes(conn.segment("A", seq=conn.client_seq + far, ack=conn.backend_seq + far))
    time.sleep(0.6)
    conn.sends("PA", b"still here")
    conn.answers("PA", b"so am I")
    conn.answers("R")
    ends(p, conn, SHORT_MS)
    p.apply()
