"""What somebody who does not see a conn's packets can send: it changes nothing (RFC 5961)."""

from __future__ import annotations

import time

import frames
from cases import add, case
from conn import Conn, opened
from frames import ether, tcp
from play import Play
from world import B1, CLIENT, DR, LAN, PORT_IPS, WAN, WEB, Host, Service

ITEM = "item 9"
# As far from the right sequence number as one can be.
FAR = 2**31


def syn_stays_in_its_conn(conn: Conn) -> None:
    """A SYN on a live conn is its backend's to judge: it goes there, and makes no new conn."""
    conn.passes(conn.segment("S", seq=77))


def goes_on(conn: Conn) -> None:
    """Both ends go on as if nothing had been."""
    conn.sends("PA", b"still here")
    if conn.is_nat:
        conn.answers("PA", b"so am I")


def add_forged(name: str, flags: str, back: bool, service: Service) -> None:
    """Put a case into the table: segments far off the window change nothing."""

    def play(p: Play) -> None:
        conn = opened(p, service)
        right = conn.backend_seq if back else conn.client_seq
        for off in (FAR, FAR // 2, 1_000_000_000):
            forged = conn.segment(flags, back=back, seq=right + off)
            came, leaves = (LAN, WAN) if back else (WAN, LAN)
            p.send(came, forged)
            # Whether it passes is open: its receiver knows what to do with it.
            p.settle()
            if p.arrived[leaves]:
                p.sees(leaves, conn.forwarded(forged, back))
                p.forwards(service.name, conn.name, forged, back)
        syn_stays_in_its_conn(conn)
        goes_on(conn)

    add(f"off_path_{name}_{service.name}", play, ITEM)


for flags, name in (("R", "rst"), ("RA", "rst_ack"), ("FA", "fin")):
    add_forged(f"{name}_of_the_client", flags, False, WEB)
    add_forged(f"{name}_of_the_backend", flags, True, WEB)
    add_forged(f"{name}_of_the_client", flags, False, DR)


@case(expected_from=ITEM)
def off_path_syn_changes_nothing(p: Play) -> None:
    conn = opened(p, WEB)
    syn_stays_in_its_conn(conn)
    # The backend answers it with an ACK of what it has (RFC 5961, 4), and the conn goes on.
    conn.answers("A")
    goes_on(conn)


@case(expected_from=ITEM)
def off_path_late_copy_of_the_syn_on_a_half_closed_conn(p: Play) -> None:
    conn = Conn(p, WEB)
    syn = conn.segment("S")
    conn.passes(syn)
    conn.is_made()
    conn.answers("SA")
    conn.sends("A")
    conn.answers("FA")
    conn.sends("A")
    conn.passes(syn)
    conn.sends("PA", b"the other half is open")
    conn.answers("A")


@case(expected_from=ITEM)
def rst_in_the_window_ends_the_conn(p: Play) -> None:
    """The right one does end it: once nothing came for 0.9 s, a new SYN makes a new conn."""
    for back in (False, True):
        conn = opened(p, WEB)
        if back:
            conn.answers("R")
        else:
            conn.sends("R")
        time.sleep(1)
        again = Conn(p, WEB, port=conn.client_end[1])
        again.client_seq = conn.client_seq + 500_000
        again.sends("S")
        p.conns(WEB.name, conn.name, made=1, ended=1)


def add_wrong_port(name: str, port: str, station: Host, packet: frames.Packet) -> None:
    """Put a case into the table: a source that belongs behind the other port."""

    def play(p: Play) -> None:
        p.send(port, ether(station, packet))
        p.dropped("wrong_port")

    add(f"wrong_port_{name}", play, "item 12")


add_wrong_port("syn_from_a_backends_address", WAN, CLIENT, tcp((B1.ip, 4_000), (WEB.vip, 80)))


@case(expected_from="item 12")
def wrong_port_backends_packets_from_the_clients_side(p: Play) -> None:
    """A backend's address, from the clients' wire: neither data nor a RST reaches the client."""
    conn = opened(p, WEB)
    for flags in ("PA", "R", "RA", "FA"):
        packet = tcp(conn.backend_end, conn.local or ("", 0), flags, seq=conn.backend_seq,
                     ack=conn.client_seq, data=b"forged" if flags == "PA" else b"")  # fmt: skip
        p.send(WAN, ether(CLIENT, packet))
        p.dropped("wrong_port")
    syn_stays_in_its_conn(conn)
    goes_on(conn)


@case(expected_from="item 12")
def wrong_port_clients_packets_from_the_backends_side(p: Play) -> None:
    conn = opened(p, WEB)
    for flags in ("PA", "R", "FA"):
        packet = tcp(conn.client_end, conn.vip, flags, seq=conn.client_seq, ack=conn.backend_seq,
                     data=b"forged" if flags == "PA" else b"")  # fmt: skip
        p.send(LAN, ether(B1, packet))
        p.dropped("wrong_port")
    goes_on(conn)


# What Sluice drops itself.


@case(expected_from="item 10")
def dropped_syn_makes_no_conn(p: Play) -> None:
    """Of a TTL that runs out, or larger than the next wire takes."""
    for more in ({"ttl": 1}, {"data": bytes(1_400)}):
        syn = ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), (WEB.vip, WEB.port), **more))
        p.send(WAN, syn)
        if "ttl" in more:
            p.sees(WAN, frames.icmp_about(syn, PORT_IPS[WAN], 11, 0))
            p.dropped("ttl_exceeded")
        else:
            p.sees(WAN, frames.icmp_about(syn, PORT_IPS[WAN], 3, 4, 1_400))
            p.dropped("mtu_exceeded")


@case(expected_from="item 10")
def dropped_rst_and_fin_change_nothing(p: Play) -> None:
    """Right in every bit, but their TTL runs out here."""
    for flags in ("R", "FA"):
        conn = opened(p, WEB)
        dying = conn.segment(flags, seq=conn.client_seq, ttl=1)
        p.send(WAN, dying)
        p.sees(WAN, frames.icmp_about(dying, PORT_IPS[WAN], 11, 0))
        p.dropped("ttl_exceeded")
        syn_stays_in_its_conn(conn)
        goes_on(conn)
