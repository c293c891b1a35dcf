"""ICMP errors about conns: turned back into what their receivers would get without Sluice, or
dropped under a name when they cannot be true (RFC 1122, 3.2.2; RFC 5508; RFC 5927)."""

from __future__ import annotations

import struct

import frames
from cases import add, case
from conn import Conn, opened
from frames import ETHER, Ether, Raw, ether, ip_len, ping, with_checksums
from play import Play
from world import (
    B2, CLIENT, DNS, DR, DR_DNS, GATEWAY, LAN, LOCAL, PORT_IPS, PORT_MACS, ROUTER, WAN, WEB, Host,
    Service,
)  # fmt: skip

ITEM = "item 5"
# Type, code, rest of the header.
KINDS = {
    "net_unreachable": (3, 0, 0),
    "host_unreachable": (3, 1, 0),
    "port_unreachable": (3, 3, 0),
    "fragmentation_needed": (3, 4, 600),
    "prohibited": (3, 13, 0),
    "ttl_exceeded": (11, 0, 0),
    "reassembly_exceeded": (11, 1, 0),
    "parameter_problem": (12, 0, 9 << 24),
}
Kind = tuple[int, int, int]
PORT_UNREACHABLE = KINDS["port_unreachable"]
DATA = bytes(range(200)) * 4


def error(src: Host | str, dst: str, kind: Kind, about: bytes, quoted: int = 548) -> bytes:
    """An IPv4 packet with an ICMP error about a packet, of which so many bytes are quoted."""
    source = src.ip if isinstance(src, Host) else src
    body = struct.pack(">BBHI", kind[0], kind[1], 0, kind[2]) + about[:quoted]
    body = body[:2] + struct.pack(">H", frames.checksum(body)) + body[4:]
    packet = frames.IP(src=source, dst=dst, id=0x77, ttl=60, proto=1) / Raw(body)
    return bytes(packet)


def aged(frame: bytes, ttl: int = 61) -> bytes:
    """The packet of a frame after some more hops: its TTL is lower."""
    packet = frame[ETHER : ETHER + ip_len(frame)]
    header = with_checksums(packet[:8] + bytes([ttl]) + packet[9:20])
    return header + packet[20:]


def sends(p: Play, conn: Conn, back: bool) -> tuple[bytes, bytes]:
    """A packet of one end passes: as it was sent, and as it arrives, some hops later."""
    if conn.service.protocol == frames.IP(proto=17).proto:
        sent = conn.datagram(DATA, back)
    else:
        sent = conn.segment("PA", DATA, back)
    conn.passes(sent, back)
    return aged(sent), aged(conn.forwarded(sent, back))


def reaches_the_sender(p: Play, conn: Conn, kind: Kind, back: bool, quoted: int) -> None:
    """Some router on the receiver's side tells of a packet of one end; that end hears of what it
    has sent, from the address that it knows. `back`: the packet was the backend's."""
    sent, arrived = sends(p, conn, back)
    port, router = (WAN, ROUTER) if back else (LAN, GATEWAY)
    told = error(router, conn.vip[0] if back else LOCAL, kind, arrived, quoted)
    p.send(port, ether(router, frames.IP(told)))
    end = conn.backend if back else conn.client
    known = (LOCAL, conn.backend_end[0]) if back else (conn.vip[0], conn.client_end[0])
    expected = error(known[0], known[1], kind, sent, quoted)
    expected = with_checksums(expected[:8] + bytes([59]) + expected[9:])
    leaves = LAN if back else WAN
    macs = {"dst": end.mac, "src": PORT_MACS[leaves]}
    p.sees(leaves, bytes(Ether(**macs) / frames.IP(expected)))


def add_kind(name: str, kind: Kind, service: Service) -> None:
    """Put a case into the table: errors of this kind about packets of both ends."""

    def play(p: Play) -> None:
        conn = opened(p, service)
        for back in (False, True):
            # 8 bytes of L4 only, with TCP's checksum, and as much as makes 576 bytes.
            for quoted in (28, 40, 548):
                reaches_the_sender(p, conn, kind, back, quoted)

    add(f"icmp_{name}_about_{service.name}", play, ITEM)


for name, kind in KINDS.items():
    for service in (WEB, DNS):
        add_kind(name, kind, service)


@case(expected_from=ITEM)
def icmp_to_a_dr_vip_goes_to_the_backend(p: Play) -> None:
    """The backend answers past Sluice, by the VIP: errors about that come to the VIP, and go to the
    backend that has the flow, as they are."""
    for service in (DR, DR_DNS):
        conn = opened(p, service)
        about = frames.tcp(conn.vip, conn.client_end, "A", seq=900_001, data=DATA)
        if service is DR_DNS:
            about = frames.udp(conn.vip, conn.client_end, DATA)
        for kind in KINDS.values():
            told = error(ROUTER, service.vip, kind, bytes(about))
            frame = ether(ROUTER, frames.IP(told))
            p.send(WAN, frame)
            p.sees(LAN, frames.hop(frame, (B2.mac, PORT_MACS[LAN])))


@case(expected_from=ITEM)
def icmp_with_a_damaged_quote_stays_as_damaged(p: Play) -> None:
    """A checksum that was wrong in the quote is not made right."""
    conn = opened(p, DNS)
    sent, arrived = sends(p, conn, False)
    told = error(GATEWAY, LOCAL, PORT_UNREACHABLE, damaged(arrived))
    p.send(LAN, ether(GATEWAY, frames.IP(told)))
    seen = p.take(WAN)[ETHER:]
    quoted = seen[28:]
    assert quoted[12:24] == sent[12:24], "addresses and ports are turned back"
    assert quoted != sent[:548] and quoted[28:] == sent[28:548], "the sum is not mended"


def damaged(packet: bytes) -> bytes:
    """The packet with another UDP checksum."""
    return packet[:26] + bytes([packet[26] ^ 0x55]) + packet[27:]


def refuses(name: str, reason: str, kind: Kind = PORT_UNREACHABLE, quoted: int = 548,
            **changed: object) -> None:  # fmt: skip
    """Put a case into the table: an error with one thing wrong ends for this reason."""

    def play(p: Play) -> None:
        conn = opened(p, WEB)
        _, arrived = sends(p, conn, True)
        about = frames.IP(arrived)
        for field, value in changed.items():
            layer, _, key = field.partition("_")
            setattr(about[layer], key, value)
            del about.chksum
        told = error(ROUTER, WEB.vip, kind, bytes(about), quoted)
        p.send(WAN, ether(ROUTER, frames.IP(told)))
        p.dropped(reason)
        # And nothing has changed.
        conn.sends("PA", b"still here")
        conn.answers("PA", b"yes")

    add(f"icmp_refused_{name}", play, ITEM)


refuses("other_client", "icmp_no_conn", IP_dst="10.1.0.99")
refuses("other_client_port", "icmp_no_conn", TCP_dport=9)
refuses("other_vip_port", "icmp_no_conn", TCP_sport=81)
refuses("quotes_another_source", "icmp_bad_quote", IP_src="10.1.0.101")
refuses("quotes_a_later_fragment", "icmp_bad_quote", IP_frag=4)
refuses("quotes_27_bytes", "icmp_bad_quote", quoted=27)
refuses("quotes_nothing", "icmp_bad_quote", quoted=0)
refuses("mtu_575", "icmp_bad_mtu", (3, 4, 575))
refuses("mtu_0", "icmp_bad_mtu", (3, 4, 0))
refuses("mtu_above_the_packet", "icmp_bad_mtu", (3, 4, 1_500))
refuses("redirect", "icmp_redirect", (5, 1, 0x0A010063))
refuses("source_quench", "icmp_source_quench", (4, 0, 0))
refuses("unknown_code", "icmp_ignored", (3, 16, 0))
refuses("quotes_icmp", "icmp_ignored", IP_proto=1)
refuses("sequence_far_off", "icmp_bad_sequence", TCP_seq=0x7000_0000)


@case(expected_from=ITEM)
def icmp_errors_have_a_rate_by_conn(p: Play) -> None:
    """20 at once, 20 a second: a flood of them is no flood behind Sluice."""
    conn = opened(p, DNS)
    _, arrived = sends(p, conn, False)
    frame = ether(GATEWAY, frames.IP(error(GATEWAY, LOCAL, PORT_UNREACHABLE, arrived)))
    p.send(LAN, *[frame] * 100)
    p.settle()
    passed = len(p.arrived[WAN])
    assert 20 <= passed <= 30, passed
    p.arrived[WAN].clear()
    p.dropped("icmp_rate_limit", 100 - passed)


@case(expected_from="item 26")
def icmp_ttl_errors_do_not_silence_fragmentation_needed(p: Play) -> None:
    conn = opened(p, WEB)
    dying = conn.segment("A", b"x", seq=5, ttl=1)
    p.send(WAN, *[dying] * 120)
    p.settle()
    told = len(p.arrived[WAN])
    # 10 at once, 10 a second to one address; earlier cases have used some of them.
    assert told <= 30, told
    p.arrived[WAN].clear()
    p.dropped("ttl_exceeded", 120)
    large = conn.segment("A", bytes(1_400), seq=7)
    p.send(WAN, large)
    p.sees(WAN, frames.icmp_about(large, PORT_IPS[WAN], 3, 4, 1_400))
    p.dropped("mtu_exceeded")


@case(expected_from=ITEM)
def icmp_errors_to_a_port_are_the_kernels(p: Play) -> None:
    about = bytes(ping(PORT_IPS[WAN], CLIENT.ip))
    for kind in KINDS.values():
        frame = ether(ROUTER, frames.IP(error(ROUTER, PORT_IPS[WAN], kind, about)))
        p.send(WAN, frame)
        p.kernel_sees(WAN, frame)
