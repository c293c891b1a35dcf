"""ARP (RFC 826, RFC 5227): what is answered, learned, refused, and what Sluice announces."""

from __future__ import annotations

import socket
import struct
import time

import frames
from cases import add, case
from conn import opened
from frames import arp
from play import Play, Wrong
from world import (
    B1, BROADCAST, CLIENT, CLIENT2, LAN, LOCAL, PORT_IPS, PORT_MACS, PORTS, SERVICES, WAN, WEB,
)  # fmt: skip

NOBODY = "00:00:00:00:00:00"
STRANGER_MAC = "02:99:00:00:00:99"
ASKER = {WAN: CLIENT, LAN: B1}
VIPS = sorted({service.vip for service in SERVICES})


def request(port: str, target: str, dst: str = BROADCAST) -> bytes:
    """A host of a wire asks for an address."""
    asker = ASKER[port]
    return arp(1, (asker.ip, asker.mac), (target, NOBODY), dst)


def answers(p: Play, port: str, target: str, dst: str = BROADCAST) -> None:
    """Sluice answers a request with the port's MAC address."""
    asker = ASKER[port]
    p.send(port, request(port, target, dst))
    p.sees(port, arp(2, (target, PORT_MACS[port]), (asker.ip, asker.mac), asker.mac))


@case()
def arp_requests_for_vips_are_answered_on_every_wire(p: Play) -> None:
    for port in PORTS:
        for vip in VIPS:
            answers(p, port, vip)


@case()
def arp_requests_for_local_addresses_are_answered_on_every_wire(p: Play) -> None:
    answers(p, LAN, LOCAL)
    answers(p, WAN, LOCAL)


@case()
def arp_requests_for_a_port_are_answered_on_its_wire_only(p: Play) -> None:
    for port, other in ((WAN, LAN), (LAN, WAN)):
        answers(p, port, PORT_IPS[port])
        p.send(port, request(port, PORT_IPS[other]))
        p.dropped("arp_not_for_us")


@case()
def arp_requests_by_unicast_are_answered(p: Play) -> None:
    answers(p, WAN, WEB.vip, PORT_MACS[WAN])
    answers(p, WAN, PORT_IPS[WAN], PORT_MACS[WAN])


@case()
def arp_requests_for_others_are_not_answered(p: Play) -> None:
    for target in ("10.1.0.77", CLIENT2.ip, "10.1.0.255", "10.1.0.0", "0.0.0.0", "192.0.2.1"):
        p.send(WAN, request(WAN, target))
        p.dropped("arp_not_for_us")


@case()
def arp_probes_for_our_addresses_are_answered(p: Play) -> None:
    """RFC 5227, 2.1.1: whoever wants to take our address is told that it is taken."""
    for target in (WEB.vip, PORT_IPS[WAN], LOCAL):
        p.send(WAN, arp(1, ("0.0.0.0", STRANGER_MAC), (target, NOBODY)))
        p.sees(WAN, arp(2, (target, PORT_MACS[WAN]), ("0.0.0.0", STRANGER_MAC), STRANGER_MAC))


@case()
def arp_probes_for_others_are_not_answered(p: Play) -> None:
    p.send(WAN, arp(1, ("0.0.0.0", STRANGER_MAC), ("10.1.0.77", NOBODY)))
    p.dropped("arp_not_for_us")


@case()
def arp_requests_of_unusual_bytes_are_answered_cleanly(p: Play) -> None:
    """A target MAC address that is not zero, padding that is not, 28 bytes without padding."""
    asker = (CLIENT.ip, CLIENT.mac)
    reply = arp(2, (WEB.vip, PORT_MACS[WAN]), asker, CLIENT.mac)
    whole = arp(1, asker, (WEB.vip, STRANGER_MAC))
    for sent in (whole, whole[:42], whole[:42] + b"\xa5" * 18, whole[:42] + b"\xa5" * 400):
        p.send(WAN, sent)
        p.sees(WAN, reply)


@case()
def arp_cut_at_each_length(p: Play) -> None:
    whole = request(WAN, WEB.vip)
    for length in range(14, 42):
        p.send(WAN, whole[:length])
        p.dropped("arp_truncated")


def refuses(name: str, at: int, new: bytes, reason: str = "arp_invalid") -> None:
    """Put a case into the table: a request with these bytes ends for this reason."""

    def play(p: Play) -> None:
        whole = request(WAN, WEB.vip)
        p.send(WAN, whole[:at] + new + whole[at + len(new) :])
        p.dropped(reason)

    add(f"arp_{name}", play)


refuses("hardware_type_6", 14, b"\0\6")
refuses("protocol_type_ipv6", 16, b"\x86\xdd")
refuses("hardware_length_8", 18, b"\x08")
refuses("protocol_length_16", 19, b"\x10")
for operation in (0, 3, 4, 8, 9, 25, 256, 0xFFFF):
    refuses(f"operation_{operation}", 20, struct.pack(">H", operation))
refuses("sender_group", 22, bytes.fromhex("03c10000000a"), "arp_bad_sender")
refuses("sender_broadcast", 22, b"\xff" * 6, "arp_bad_sender")
refuses("sender_zero", 22, b"\0" * 6, "arp_bad_sender")
for mac in PORT_MACS.values():
    refuses(f"sender_is_our_mac_{mac[-2:]}", 22, bytes.fromhex(mac.replace(":", "")), "own_mac")
for nobody in ("10.1.0.255", "10.1.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"):
    refuses(f"sender_{nobody}", 28, socket.inet_aton(nobody), "arp_bad_sender")


@case()
def arp_to_another_station_is_not_ours(p: Play) -> None:
    p.send(WAN, request(WAN, WEB.vip, "02:00:00:00:00:77"))
    p.dropped("not_our_mac")


@case()
def arp_announcements_make_no_entries(p: Play) -> None:
    """Entries are made by what Sluice sends to, never by what it hears."""
    for n in range(20):
        who = (f"10.1.0.{150 + n}", f"02:99:00:00:00:{n:02x}")
        p.send(WAN, arp(1, who, (who[0], NOBODY)), arp(2, who, (who[0], BROADCAST)))
        p.dropped("arp_consumed", 2)


@case()
def arp_replies_nobody_asked_for_make_no_entries(p: Play) -> None:
    """To a VIP: they end here. To the port's own address: the kernel may have asked."""
    who = ("10.1.0.188", STRANGER_MAC)
    p.send(WAN, arp(2, who, (WEB.vip, PORT_MACS[WAN]), PORT_MACS[WAN]))
    p.dropped("arp_consumed")
    to_port = arp(2, who, (PORT_IPS[WAN], PORT_MACS[WAN]), PORT_MACS[WAN])
    p.send(WAN, to_port)
    p.kernel_sees(WAN, to_port)


@case()
def arp_a_client_that_moves_is_followed(p: Play) -> None:
    """RFC 826: who is known is believed when it says where it is now, and the kernel hears of it."""
    conn = opened(p, WEB, CLIENT2)
    for mac in ("02:c1:00:00:00:7b", CLIENT2.mac):
        # Its claim is verified when it is used: whoever has the address answers.
        p.macs[WAN, CLIENT2.ip] = mac
        p.send(WAN, arp(1, (CLIENT2.ip, mac), (CLIENT2.ip, NOBODY)))
        p.dropped("arp_consumed")
        p.kernel_sees(WAN, arp(1, (CLIENT2.ip, mac), (CLIENT2.ip, NOBODY)))
        p.count(workers__to_kernel=-1)
        p.knows(CLIENT2.ip, mac)
        answer = conn.segment("PA", b"where are you", back=True)
        p.send(LAN, answer)
        p.sees(WAN, frames.hop(answer, (mac, PORT_MACS[WAN]), conn.vip, conn.client_end))
        p.forwards(WEB.name, conn.name, answer, back=True)


def probe(port: str, address: str) -> bytes:
    """Sluice asks whether an address is anybody's before it announces it (RFC 5227, 2.1.1)."""
    return arp(1, ("0.0.0.0", PORT_MACS[port]), (address, NOBODY))


@case()
def arp_claims_of_our_addresses_are_answered_by_an_announcement(p: Play) -> None:
    """RFC 5227, 2.4: at once, and at most every 10 s for each address."""
    for address, port in ((PORT_IPS[WAN], WAN), (PORT_IPS[LAN], LAN)):
        claim = arp(1, (address, STRANGER_MAC), (address, NOBODY))
        p.send(port, claim, claim, claim)
        p.dropped("arp_conflict", 3)
        p.sees(port, arp(1, (address, PORT_MACS[port]), (address, NOBODY)))


@case()
def arp_announces_addresses_where_their_network_is(p: Play) -> None:
    """A VIP or local address by the port whose network has it (RFC 5227, 3)."""
    for address, port in ((WEB.vip, WAN), (LOCAL, LAN)):
        told = p.lab.control.ask("announce", addresses=[address])
        assert told["addresses"] == [address], told
        p.sees(port, probe(port, address))
        announcement = arp(1, (address, PORT_MACS[port]), (address, NOBODY))
        began = time.monotonic()
        p.sees(port, announcement, announcement)
        assert address not in announced(p), "it has not left three times"
        p.sees(port, announcement)
        took = time.monotonic() - began
        assert 1.9 < took < 2.5, f"three announcements in {took:.1f} s"
        wait_announced(p, address)


def announced(p: Play) -> list[str]:
    """What has left, as the data plane says."""
    addresses: list[str] = p.lab.control.ask("status")["announced"]
    return addresses


def wait_announced(p: Play, address: str) -> None:
    """An address is said to be announced, once it is."""
    deadline = time.monotonic() + 2
    while address not in announced(p):
        assert time.monotonic() < deadline, f"{address} is not announced"
        time.sleep(0.01)


@case()
def arp_announces_addresses_of_no_network_everywhere(p: Play) -> None:
    outside = WEB.snapshot() | {"vip": "192.0.2.80"}
    p.apply([outside])
    told = p.lab.control.ask("announce", addresses=["192.0.2.80", "192.0.2.81"])
    assert told["addresses"] == ["192.0.2.80"], told
    for port in PORTS:
        p.sees(port, probe(port, "192.0.2.80"))
    for _ in range(3):
        for port in PORTS:
            p.sees(port, arp(1, ("192.0.2.80", PORT_MACS[port]), ("192.0.2.80", NOBODY)))
    wait_announced(p, "192.0.2.80")
    for port in PORTS:
        answers(p, port, "192.0.2.80")
    p.apply()
    released(p, "192.0.2.80")
    for port in PORTS:
        p.send(port, request(port, "192.0.2.80"))
        p.dropped("arp_not_for_us")


def released(p: Play, address: str) -> None:
    """Wait until an address that left the configuration is let go of: it is looked for conns."""
    deadline = time.monotonic() + 10
    while any(a["address"] == address for a in p.lab.control.ask("stats")["leaving"]):
        if time.monotonic() > deadline:
            raise Wrong(f"{address} is still answered for")
        time.sleep(0.02)
    time.sleep(0.03)
