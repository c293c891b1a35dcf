"""What is for the host itself: ping is answered, the rest goes to the kernel and comes from it."""

from __future__ import annotations

import frames
from cases import add, case
from frames import ETHER, ether, parse, ping, tcp, udp, with_checksums
from play import Play
from world import (
    B1, CLIENT, LAN, LOCAL, PORT_IPS, PORT_MACS, PORTS, REMOTE, WAN, WEB, Host,
)  # fmt: skip

HOSTS = {WAN: CLIENT, LAN: B1}


def pong(frame: bytes) -> bytes:
    """The echo reply to a frame with an echo request: back to its station, with a fresh TTL."""
    packet = parse(frame)
    mac = (packet.dst, packet.src)
    ip = packet["IP"]
    ip.src, ip.dst, ip.ttl, ip.chksum = ip.dst, ip.src, 64, None
    ip["ICMP"].type, ip["ICMP"].chksum = 0, None
    packet.src, packet.dst = mac
    return bytes(packet)


def answers(p: Play, host: Host, target: str, **more: object) -> None:
    """A ping is answered."""
    frame = ether(host, ping(host.ip, target, **more))  # type: ignore[arg-type]
    p.send(host.port, frame)
    p.sees(host.port, pong(frame))


@case()
def ping_of_vips_local_and_port_addresses(p: Play) -> None:
    for port in PORTS:
        for target in (WEB.vip, LOCAL, PORT_IPS[WAN], PORT_IPS[LAN]):
            answers(p, HOSTS[port], target)


@case()
def ping_from_afar_goes_back_the_way_it_came(p: Play) -> None:
    answers(p, REMOTE, WEB.vip)


@case()
def ping_of_every_small_size_and_the_largest(p: Play) -> None:
    for size in (*range(20), 56, 1_471, 1_472):
        answers(p, CLIENT, WEB.vip, data=bytes(i % 251 for i in range(size)))


@case()
def ping_keeps_identifier_sequence_and_ip_fields(p: Play) -> None:
    for ident, seq in ((0, 0), (0xFFFF, 0xFFFF), (1, 0x8000)):
        answers(p, CLIENT, WEB.vip, ident=ident, seq=seq)
    for ttl in (1, 2, 255):
        answers(p, CLIENT, PORT_IPS[WAN], ttl=ttl)
    answers(p, CLIENT, WEB.vip, tos=0xB8, flags="DF")


@case()
def ping_whose_reply_has_checksum_zero(p: Play) -> None:
    """An all-zero reply has the checksum 0xffff (RFC 792, ones' complement)."""
    answers(p, CLIENT, WEB.vip, ident=0, seq=0, data=b"")


@case()
def ping_from_our_own_addresses_is_martian(p: Play) -> None:
    for source in (WEB.vip, LOCAL, PORT_IPS[WAN], PORT_IPS[LAN]):
        p.send(WAN, ether(CLIENT, ping(source, WEB.vip)))
        p.dropped("martian_source")


@case()
def icmp_cut_or_damaged_is_invalid(p: Play) -> None:
    whole = ether(CLIENT, ping(CLIENT.ip, WEB.vip))
    for length in range(8):
        cut = whole[: ETHER + 20 + length]
        packet = cut[ETHER : ETHER + 2] + (20 + length).to_bytes(2, "big") + cut[ETHER + 4 :]
        p.send(WAN, frames.pad(cut[:ETHER] + with_checksums(packet)))
        p.dropped("icmp_invalid")
    for at in range(ETHER + 20, len(whole)):
        p.send(WAN, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        p.dropped("icmp_invalid")


def icmp(kind: int, code: int, dst: str) -> bytes:
    """Some other ICMP message."""
    packet = ping(CLIENT.ip, dst)
    packet["ICMP"].type, packet["ICMP"].code = kind, code
    return ether(CLIENT, packet)


@case()
def icmp_other_than_ping_to_a_vip_is_ignored(p: Play) -> None:
    for kind, code in ((0, 0), (8, 1), (13, 0), (15, 0), (17, 0), (9, 0), (10, 0), (42, 0)):
        p.send(WAN, icmp(kind, code, WEB.vip))
        p.dropped("icmp_ignored")


@case()
def icmp_other_than_ping_to_a_port_goes_to_the_kernel(p: Play) -> None:
    for kind, code in ((0, 0), (8, 1), (13, 0), (3, 1), (11, 0)):
        frame = icmp(kind, code, PORT_IPS[WAN])
        p.send(WAN, frame)
        p.kernel_sees(WAN, frame)


def goes_to_kernel(name: str, frame: bytes) -> None:
    """Put a case into the table: the frame reaches the host as it came."""

    def play(p: Play) -> None:
        p.send(WAN, frame)
        p.kernel_sees(WAN, frame)

    add(f"host_takes_{name}", play)


FROM, TO = (CLIENT.ip, 4_000), PORT_IPS[WAN]
GRE = ether(CLIENT, udp((CLIENT.ip, 1), (TO, 2), proto=47))
FRAGMENT = ether(CLIENT, udp((CLIENT.ip, 1), (TO, 2), ip_flags="MF", frag=7))
goes_to_kernel("ssh", ether(CLIENT, tcp(FROM, (TO, 22))))
goes_to_kernel("bgp", ether(CLIENT, tcp(FROM, (TO, 179), "PA", data=b"x")))
goes_to_kernel("udp", ether(CLIENT, udp(FROM, (TO, 161))))
goes_to_kernel("gre", GRE)
goes_to_kernel("a_fragment", FRAGMENT)
goes_to_kernel("another_ports_address", ether(CLIENT, tcp(FROM, (PORT_IPS[LAN], 22))))
goes_to_kernel("a_services_port", ether(CLIENT, tcp(FROM, (TO, WEB.port))))


@case()
def host_sends_by_its_ports(p: Play) -> None:
    """What the kernel sends leaves as it is, by the port that it was sent to."""
    for port in PORTS:
        host = HOSTS[port]
        for packet in (
            tcp((PORT_IPS[port], 22), (host.ip, 4_000), "SA"),
            udp((PORT_IPS[port], 161), (host.ip, 4_000), bytes(1_000)),
        ):
            frame = ether(PORT_MACS[port], packet, dst=host.mac)
            p.send_from_kernel(port, frame)
            p.sees(port, frame)
    request = frames.arp(1, (PORT_IPS[LAN], PORT_MACS[LAN]), ("10.2.0.99", "00:00:00:00:00:00"))
    p.send_from_kernel(LAN, request)
    p.sees(LAN, request)


@case()
def host_is_not_reached_by_damaged_packets(p: Play) -> None:
    whole = ether(CLIENT, tcp(FROM, (TO, 22)))
    p.send(WAN, whole[:-1] + bytes([whole[-1] ^ 1]))
    p.dropped("l4_bad_checksum")
    p.send(WAN, whole[:-1])
    p.dropped("ipv4_truncated")
