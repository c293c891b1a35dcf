"""Frames as switches and NICs really send them: tags, trailers, groups; and forged senders."""

from __future__ import annotations

import frames
from cases import add, case
from cases_host import pong
from conn import opened
from frames import arp, ether, ping, tcp, udp
from play import Play
from world import (
    BROADCAST, CLIENT, DNS, DR, LAN, LOCAL, PORT_IPS, PORT_MACS, WAN, WEB,
)  # fmt: skip

NOBODY = "00:00:00:00:00:00"


@case(expected_from="item 25")
def trailers_do_not_travel_on(p: Play) -> None:
    """What is behind the IP packet belongs to the wire that it came by (RFC 894), but for what
    pads a frame to 60 bytes."""
    for service in (WEB, DR):
        conn = opened(p, service)
        for trailer in (b"\0", b"\xa5" * 6, b"\xa5" * 100, b"secret" * 40):
            conn.passes(conn.segment("A") + trailer)
            if conn.is_nat:
                conn.passes(conn.segment("PA", b"x", back=True) + trailer, back=True)
    conn = opened(p, DNS)
    conn.passes(conn.datagram(b"q") + b"\xa5" * 17)


@case(expected_from="item 25")
def trailer_beyond_the_next_wires_mtu(p: Play) -> None:
    """An IP packet of 1,400 bytes in a frame of 1,500: it fits once it is trimmed."""
    conn = opened(p, WEB)
    conn.passes(conn.segment("A", bytes(1_360)) + bytes(100))
    conn.passes(conn.segment("A", bytes(100)) + bytes(1_300))


@case(expected_from="item 25")
def ping_with_a_trailer_is_answered_without(p: Play) -> None:
    for data in (b"abc", bytes(100)):
        frame = ether(CLIENT, ping(CLIENT.ip, WEB.vip, data))
        p.send(WAN, frame + b"\xa5" * 30)
        p.sees(WAN, pong(frames.pad(frame)))


def tagged(frame: bytes, tci: int) -> bytes:
    """The frame with a tag of IEEE 802.1Q."""
    return frame[:12] + b"\x81\0" + tci.to_bytes(2, "big") + frame[12:]


@case(expected_from="item 28")
def priority_tags_are_no_vlans(p: Play) -> None:
    """VLAN id 0 says the priority and nothing else (IEEE 802.1Q, 6.9): untagged on."""
    for priority in (0x0000, 0x2000, 0xA000, 0xF000):
        conn = opened(p, WEB)
        frame = conn.segment("PA", b"with priority")
        p.send(WAN, tagged(frame, priority))
        p.sees(LAN, conn.forwarded(frame))
        p.forwards(WEB.name, conn.name, frame)
    request = arp(1, (CLIENT.ip, CLIENT.mac), (WEB.vip, NOBODY))
    p.send(WAN, tagged(request, 0xE000))
    p.sees(WAN, arp(2, (WEB.vip, PORT_MACS[WAN]), (CLIENT.ip, CLIENT.mac), CLIENT.mac))


@case()
def vlan_tags_are_refused(p: Play) -> None:
    frame = ether(CLIENT, tcp((CLIENT.ip, p.fresh_port()), (WEB.vip, WEB.port)))
    for tci in (1, 5, 0x2001, 0xFFFE):
        p.send(WAN, tagged(frame, tci))
        p.dropped("vlan_tagged")


def to_group(name: str, mac: str, packet: frames.Packet) -> None:
    """Put a case into the table: the kernel gets it as it came."""

    def play(p: Play) -> None:
        frame = ether(CLIENT, packet, dst=mac)
        p.send(WAN, frame)
        p.kernel_sees(WAN, frame)

    add(f"group_{name}", play, "item 23")


to_group("vrrp", "01:00:5e:00:00:12", udp((CLIENT.ip, 1), ("224.0.0.18", 2), proto=112, ttl=255))
to_group("ospf", "01:00:5e:00:00:05", udp((CLIENT.ip, 1), ("224.0.0.5", 2), proto=89, ttl=1))
to_group("mdns", "01:00:5e:00:00:fb", udp((CLIENT.ip, 5353), ("224.0.0.251", 5353)))
to_group("directed_broadcast", BROADCAST, udp((CLIENT.ip, 137), ("10.1.0.255", 137)))
to_group("limited_broadcast", BROADCAST, udp((CLIENT.ip, 68), ("255.255.255.255", 67)))


@case(expected_from="item 28")
def martian_sources_to_a_port(p: Play) -> None:
    """Our own addresses are nobody else's, whomever they write to."""
    for source in (WEB.vip, LOCAL, PORT_IPS[LAN], PORT_IPS[WAN]):
        for packet in (tcp((source, 4_000), (PORT_IPS[WAN], 22)),
                       udp((source, 4_000), (PORT_IPS[WAN], 53))):  # fmt: skip
            p.send(WAN, ether(CLIENT, packet))
            p.dropped("martian_source")


@case(expected_from="item 12")
def source_that_is_a_network_or_its_broadcast(p: Play) -> None:
    for source in ("10.1.0.0", "10.1.0.255", "10.2.0.0", "10.2.0.255"):
        p.send(WAN, ether(CLIENT, tcp((source, 4_000), (WEB.vip, WEB.port))))
        p.send(WAN, ether(CLIENT, udp((source, 4_000), (DNS.vip, DNS.port))))
        p.dropped("broadcast_source", 2)


@case(expected_from="item 12")
def own_mac_as_source(p: Play) -> None:
    for mac in PORT_MACS.values():
        frame = tcp((CLIENT.ip, 4_000), (WEB.vip, WEB.port))
        p.send(WAN, ether(mac, frame, dst=PORT_MACS[WAN]))
        p.dropped("own_mac")
        p.send(WAN, arp(1, (CLIENT.ip, mac), (WEB.vip, NOBODY)))
        p.dropped("own_mac")


@case(expected_from="item 12")
def own_mac_as_arp_sender(p: Play) -> None:
    for mac in PORT_MACS.values():
        forged = arp(1, (CLIENT.ip, mac), (WEB.vip, NOBODY))
        p.send(WAN, forged[:6] + bytes.fromhex("02c10000000a") + forged[12:])
        p.dropped("own_mac")


@case(expected_from="item 12")
def arp_sender_that_no_host_can_be(p: Play) -> None:
    senders = ("127.0.0.1", "224.0.0.5", "239.1.1.1", "240.0.0.1", "255.255.255.255", "0.1.2.3",
               "10.1.0.0", "10.1.0.255")  # fmt: skip
    for sender in senders:
        p.send(WAN, arp(1, (sender, CLIENT.mac), (WEB.vip, NOBODY)))
        p.dropped("arp_bad_sender")


@case(expected_from="item 12")
def arp_spoofed_for_a_known_client_by_a_group(p: Play) -> None:
    conn = opened(p, WEB)
    forged = arp(1, (CLIENT.ip, "03:00:00:00:00:66"), (WEB.vip, NOBODY))
    p.send(WAN, forged[:6] + bytes.fromhex("02c10000000a") + forged[12:])
    p.dropped("arp_bad_sender")
    conn.answers("PA", b"where you were")


@case(expected_from="item 13")
def claim_of_a_vip_is_defended(p: Play) -> None:
    """RFC 5227, 2.4: who has the address says so at once, at most every 10 s."""
    for port, address in ((WAN, "10.1.0.105"), (LAN, LOCAL)):
        if address != LOCAL:
            p.apply([WEB.snapshot() | {"name": "claimed", "vip": address}])
        who = (address, "02:99:00:00:00:66")
        p.send(port, arp(1, who, (address, NOBODY)))
        p.sees(port, arp(1, (address, PORT_MACS[port]), (address, NOBODY)))
        p.send(port, arp(2, who, (address, BROADCAST)))
        p.dropped("arp_conflict", 2)
        p.settle()
    p.apply()
