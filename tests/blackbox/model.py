"""What becomes of any frame on the clients' wire, in two pages: the drop reason, or who takes it.
Written from RFC 791, 768, 9293, 826 and 792 and from `docs/operations.md`, not from the code."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from frames import checksum
from world import PORT_MACS, WAN

OURS = bytes.fromhex(PORT_MACS[WAN].replace(":", ""))
OWN = {bytes.fromhex(mac.replace(":", "")) for mac in PORT_MACS.values()}


@dataclass(frozen=True)
class Addresses:
    """What is whose, as the snapshot and the file say."""

    ports: frozenset[str]
    vips: frozenset[str]
    local: frozenset[str]

    def ours(self, address: str) -> bool:
        """Whether it is ours in any way."""
        return address in self.ports | self.vips | self.local


def fate(frame: bytes, ours: Addresses) -> str:
    """A drop reason; or `arp`, `ping`, `kernel`, for what is answered or the host's; or `flow`, for
    sound TCP or UDP to a VIP or local address, whose fate depends on services and conns."""
    if len(frame) < 14:
        return "ether_truncated"
    if frame[12:14] == b"\x81\0" and len(frame) >= 16 and frame[14] & 15 == frame[15] == 0:
        # A priority and no VLAN (IEEE 802.1Q, 6.9).
        return fate(frame[:12] + frame[16:], ours)
    dst, src, ethertype = frame[:6], frame[6:12], frame[12:14]
    group = bool(dst[0] & 1)
    if len(frame) >= 38:
        if dst != OURS and not group:
            return "not_our_mac"
        if src[0] & 1 or src == bytes(6):
            return "bad_source_mac"
    if ethertype in (b"\x81\0", b"\x88\xa8"):
        return "vlan_tagged"
    if ethertype == b"\x08\x06" and len(frame) < 14 + 28:
        return "arp_truncated"
    if ethertype in (b"\x08\x06", b"\x08\0") and src in OWN:
        return "own_mac"
    if ethertype == b"\x08\x06":
        return arp_fate(frame[14:], ours)
    if ethertype != b"\x08\0":
        return "unknown_ethertype"
    return ipv4_fate(frame[14:], ours, group and len(frame) >= 38)


def arp_fate(arp: bytes, ours: Addresses) -> str:
    """RFC 826, packet reception."""
    if arp[:6] != b"\0\1\x08\0\6\4" or arp[6:8] not in (b"\0\1", b"\0\2"):
        return "arp_invalid"
    sender = arp[14:18]
    nobody = sender != bytes(4) and (sender[0] in (0, 127) or sender[0] >= 224)
    if arp[8] & 1 or arp[8:14] == bytes(6) or nobody or is_broadcast(sender):
        return "arp_bad_sender"
    return "own_mac" if arp[8:14] in OWN else "arp"


def is_broadcast(address: bytes) -> bool:
    """A connected network's own address, or its broadcast address."""
    return address[:3] in (b"\x0a\1\0", b"\x0a\2\0") and address[3] in (0, 255)


def ipv4_fate(ip: bytes, ours: Addresses, group: bool) -> str:
    """RFC 1812, 5.2.2 and 5.3."""
    if group and ip[16:19] != b"\xe0\0\0" and ip[16:20] not in (b"\x0a\1\0\xff", b"\xff" * 4):
        return "not_for_us"
    if len(ip) < 20:
        return "ipv4_truncated"
    header, total = (ip[0] & 15) * 4, struct.unpack(">H", ip[2:4])[0]
    if ip[0] >> 4 != 4 or header < 20:
        return "ipv4_bad_header"
    if header > len(ip):
        return "ipv4_truncated"
    if total < header:
        return "ipv4_bad_length"
    if total > len(ip):
        return "ipv4_truncated"
    src, dst = (".".join(map(str, ip[at : at + 4])) for at in (12, 16))
    plain = header == 20 and not struct.unpack(">H", ip[6:8])[0] & 0x3FFF
    if checksum(ip[:header]) != 0:
        return "ipv4_bad_checksum"
    if (ip[12] in (0, 127) or ip[12] >= 224) and not (group and ip[12:16] == bytes(4)):
        return "martian_source"
    l4 = ip[header:total]
    is_flow = plain and not group and ip[9] in (6, 17)
    damage = (tcp_fate(ip, l4) if ip[9] == 6 else udp_fate(ip, l4)) if is_flow else None
    if damage:
        return damage
    if is_broadcast(ip[12:16]):
        return "broadcast_source"
    if ours.ours(src) and (group or ours.ours(dst)):
        return "martian_source"
    if group:
        return "kernel"
    if not plain:
        reason = "ipv4_options" if header > 20 else "fragment"
        return "kernel" if dst in ours.ports else reason
    if is_flow:
        return flow_fate(dst, ours, l4)
    if ip[9] != 1:
        return "kernel" if dst in ours.ports else "unknown_protocol"
    if not ours.ours(dst):
        return "not_for_us"
    if len(l4) < 8 or checksum(l4) != 0:
        return "icmp_invalid"
    if l4[:2] == b"\x08\0":
        return "ping"
    return "kernel" if dst in ours.ports else "icmp_ignored"


def tcp_fate(ip: bytes, l4: bytes) -> str | None:
    """RFC 9293, 3.1; nothing when it is sound."""
    if len(l4) < 20:
        return "l4_truncated"
    offset = (l4[12] >> 4) * 4
    if not 20 <= offset <= len(l4):
        return "l4_bad_length"
    if l4_sum(ip, l4) != 0:
        return "l4_bad_checksum"
    syn, fin_or_rst, any_flag = l4[13] & 2, l4[13] & 5, l4[13] & 0x17
    return "tcp_bad_flags" if not any_flag or syn and fin_or_rst else None


def udp_fate(ip: bytes, l4: bytes) -> str | None:
    """RFC 768; nothing when it is sound."""
    if len(l4) < 8:
        return "l4_truncated"
    length = struct.unpack(">H", l4[4:6])[0]
    if not 8 <= length <= len(l4):
        return "l4_bad_length"
    if l4[6:8] != b"\0\0" and l4_sum(ip, l4[:length]) != 0:
        return "l4_bad_checksum"
    return None


def flow_fate(dst: str, ours: Addresses, l4: bytes) -> str:
    """A sound TCP segment or UDP datagram; the host gets what a stack may send."""
    if dst in ours.ports and b"\0\0" in (l4[:2], l4[2:4]):
        return "l4_port_zero"
    if dst in ours.ports:
        return "kernel"
    return "flow" if ours.ours(dst) else "not_for_us"


def l4_sum(ip: bytes, l4: bytes) -> int:
    """Zero when the checksum is right."""
    pseudo = ip[12:20] + struct.pack(">BBH", 0, ip[9], len(l4))
    total: int = checksum(pseudo + l4)
    return total
