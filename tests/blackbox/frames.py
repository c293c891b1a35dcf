"""Frames: built by scapy, and what must become of them, computed anew and not by Sluice's ways."""

from __future__ import annotations

import logging
import struct
from typing import Any

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402
from scapy.utils import checksum, hexdump  # noqa: E402

from world import BROADCAST, PORT_MACS, Host  # noqa: E402

ETHER, L4 = 14, 34
# Where the checksum stands behind the IP header.
CHECKSUM_AT = {6: 16, 17: 6}
Endpoint = tuple[str, int]


def ether(src: Host | str, payload: Packet, dst: str | None = None, **more: Any) -> bytes:
    """A frame from a host to Sluice's port on its wire, or to another MAC address."""
    mac = src.mac if isinstance(src, Host) else src
    if dst is None:
        assert isinstance(src, Host)
        dst = PORT_MACS[src.port]
    return bytes(Ether(src=mac, dst=dst, **more) / payload)


def tcp(
    src: Endpoint,
    dst: Endpoint,
    flags: str = "S",
    seq: int = 1_000,
    ack: int = 0,
    data: bytes = b"",
    options: Any = (),
    window: int = 64_240,
    **ip: Any,
) -> Packet:
    """A TCP segment in IPv4, with right lengths and checksums unless told otherwise."""
    segment = TCP(
        sport=src[1],
        dport=dst[1],
        flags=flags,
        seq=seq % 2**32,
        ack=ack % 2**32,
        window=window,
        options=list(options),
    )
    packet = _ip(src, dst, ip) / segment
    return packet / Raw(data) if data else packet


def udp(src: Endpoint, dst: Endpoint, data: bytes = b"query", **ip: Any) -> Packet:
    """A UDP datagram in IPv4; `checksum=0` for none."""
    fields = {"chksum": ip.pop("checksum")} if "checksum" in ip else {}
    return _ip(src, dst, ip) / UDP(sport=src[1], dport=dst[1], **fields) / Raw(data)


def ping(src: str, dst: str, data: bytes = b"ping of the black box", **more: Any) -> Packet:
    """An echo request."""
    icmp = {"id": more.pop("ident", 7), "seq": more.pop("seq", 1)}
    return IP(src=src, dst=dst, id=0x3333, **more) / ICMP(type=8, **icmp) / Raw(data)


def arp(
    op: int, sender: tuple[str, str], target: tuple[str, str], dst: str | None = None, **more: Any
) -> bytes:
    """An ARP frame; sender and target are IP and MAC address."""
    packet = ARP(op=op, psrc=sender[0], hwsrc=sender[1], pdst=target[0], hwdst=target[1], **more)
    frame = Ether(src=sender[1], dst=dst or BROADCAST) / packet
    return pad(bytes(frame))


def pad(frame: bytes) -> bytes:
    """To the shortest length of an Ethernet frame (IEEE 802.3)."""
    return frame.ljust(60, b"\0")


def _ip(src: Endpoint, dst: Endpoint, fields: dict[str, Any]) -> IP:
    usual = {"id": 0x1234, "ttl": 64, "flags": fields.pop("ip_flags", "DF")}
    return IP(src=src[0], dst=dst[0], **(usual | fields))


def hop(
    frame: bytes,
    macs: tuple[str, str],
    src: Endpoint | None = None,
    dst: Endpoint | None = None,
    **ip: int,
) -> bytes:
    """A frame of TCP or UDP as it must leave: MAC addresses (destination, source), TTL one less,
    another source or destination, all checksums computed anew over the bytes as they are."""
    frame = without_trailer(frame)
    packet = bytearray(frame[ETHER : ETHER + ip_len(frame)])
    packet[8] = ip.get("ttl", packet[8] - 1)
    for at, end in ((0, src), (1, dst)):
        if end is not None:
            packet[12 + 4 * at : 16 + 4 * at] = bytes(map(int, end[0].split(".")))
            packet[20 + 2 * at : 22 + 2 * at] = struct.pack(">H", end[1])
    head = mac_bytes(macs[0]) + mac_bytes(macs[1]) + frame[12:14]
    return head + with_checksums(bytes(packet)) + frame[ETHER + len(packet) :]


def without_trailer(frame: bytes) -> bytes:
    """A frame without what follows its IP packet, but for padding to 60 bytes."""
    end = ETHER + ip_len(frame)
    return frame if len(frame) <= 60 else pad(frame[:end])


def with_checksums(packet: bytes) -> bytes:
    """An IPv4 packet with right checksums; a UDP checksum that is absent stays absent."""
    out = bytearray(packet)
    header = (out[0] & 15) * 4
    out[10:12] = b"\0\0"
    out[10:12] = struct.pack(">H", checksum(bytes(out[:header])))
    protocol = out[9]
    at = header + CHECKSUM_AT.get(protocol, len(out))
    if at + 2 <= len(out) and (protocol == 6 or out[at : at + 2] != b"\0\0"):
        out[at : at + 2] = b"\0\0"
        l4 = bytes(out[header:])
        if protocol == 17:
            # UDP ends by its own length, which may be before the packet's end.
            l4 = l4[: max(8, struct.unpack(">H", l4[4:6])[0])]
        pseudo = bytes(out[12:20]) + struct.pack(">BBH", 0, protocol, len(l4))
        total = checksum(pseudo + l4)
        out[at : at + 2] = struct.pack(">H", total or (0xFFFF if protocol == 17 else 0))
    return bytes(out)


def icmp_about(frame: bytes, src: str, kind: int, code: int, rest: int = 0) -> bytes:
    """The ICMP error that Sluice sends from `src` about a frame, back to its sender: as much of
    the packet as makes 576 bytes (RFC 1812, 4.3.2)."""
    original = frame[ETHER : ETHER + ip_len(frame)]
    quoted = original[: 576 - 28]
    body = struct.pack(">BBHI", kind, code, 0, rest) + quoted
    body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
    sender = ".".join(map(str, original[12:16]))
    packet = bytes(IP(src=src, dst=sender, tos=0xC0, id=0, ttl=64, proto=1) / Raw(body))
    return pad(frame[6:12] + frame[:6] + frame[12:14] + packet)


def ip_len(frame: bytes) -> int:
    """Total length of the IPv4 packet in a frame."""
    length: int = struct.unpack(">H", frame[16:18])[0]
    return length


def parse(frame: bytes) -> Packet:
    """A frame to look at."""
    return Ether(frame)


def describe(frame: bytes) -> str:
    """For people: one line, and the bytes."""
    try:
        summary = Ether(frame).summary()
    except Exception as error:  # whatever scapy does not understand is shown as bytes
        summary = f"unreadable: {error}"
    return f"{len(frame)} bytes: {summary}\n{hexdump(frame, dump=True)}"


def difference(expected: bytes, seen: bytes) -> str:
    """Where two frames part, and both of them."""
    pairs = enumerate(zip(expected, seen))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(seen)))
    return (
        f"differ from byte {at} on\n  expected {describe(expected)}\n  seen {describe(seen)}"
    )


def mac_bytes(text: str) -> bytes:
    """A MAC address as it lies in a frame."""
    return bytes.fromhex(text.replace(":", ""))
