"""Each header check, from Ethernet to the L4 ports: a frame with one fault ends under its name."""

from __future__ import annotations

import struct

import frames
from cases import add, case
from conn import opened
from frames import ETHER, L4, ether, tcp, udp, with_checksums
from play import Play
from world import (
    BROADCAST, CLIENT, DNS, LAN, LOCAL, PORT_IPS, PORT_MACS, WAN, WEB,
)  # fmt: skip

FROM = (CLIENT.ip, 4_000)
TO, TO_DNS = (WEB.vip, WEB.port), (DNS.vip, DNS.port)
SYN = ether(CLIENT, tcp(FROM, TO, options=[("MSS", 1460)]))
QUERY = ether(CLIENT, udp(FROM, TO_DNS, b"a question"))
OURS = bytes.fromhex(PORT_MACS[WAN].replace(":", ""))


def refuses(name: str, frame: bytes, reason: str) -> None:
    """Put a case into the table: the frame ends for this reason."""

    def play(p: Play) -> None:
        p.send(WAN, frame)
        p.dropped(reason)

    add(name, play)


def edited(frame: bytes, at: int, new: bytes, checksums: bool = True) -> bytes:
    """The frame with other bytes, and right checksums again."""
    out = frame[:at] + new + frame[at + len(new) :]
    return out[:ETHER] + with_checksums(out[ETHER:]) if checksums else out


def shortened(frame: bytes, ip_len: int) -> bytes:
    """The frame cut to an IP packet of so many bytes, its header right."""
    cut = frame[: ETHER + ip_len]
    cut = cut[:16] + struct.pack(">H", ip_len) + cut[18:]
    header = with_checksums(cut[ETHER : ETHER + 20])
    return cut[:ETHER] + header + cut[ETHER + 20 :]


# Ethernet (IEEE 802.3).

# (`ether_truncated` cannot be shown: no wire of Linux takes less than 14 bytes.)
refuses("ether_to_another_station", edited(SYN, 5, b"\x77"), "not_our_mac")
refuses(
    "ether_to_the_other_port",
    ether(CLIENT, tcp(FROM, TO), dst=PORT_MACS[LAN]),
    "not_our_mac",
)
for kind, mac in (
    ("group", "03:00:00:00:00:01"),
    ("broadcast", BROADCAST),
    ("no", "00:00:00:00:00:00"),
):
    frame = ether(mac, tcp(FROM, TO), dst=PORT_MACS[WAN])
    refuses(f"ether_from_{kind}_station", frame, "bad_source_mac")
for kind, tag in (("vlan", b"\x81\0\0\5"), ("qinq", b"\x88\xa8\0\7\x81\0\0\5")):
    refuses(f"ether_with_{kind}_tag", SYN[:12] + tag + SYN[12:], "vlan_tagged")
for kind, ethertype in (("ipv6", b"\x86\xdd"), ("lldp", b"\x88\xcc"), ("llc", b"\0\x26")):
    refuses(f"ether_type_{kind}", SYN[:12] + ethertype + SYN[14:], "unknown_ethertype")
refuses("ether_type_at_the_end", SYN[:12] + b"\x86\xdd", "unknown_ethertype")
# RFC 1122, 3.3.6: a unicast packet in a frame to all is not to be taken.
refuses("ip_in_broadcast_frame", ether(CLIENT, tcp(FROM, TO), dst=BROADCAST), "not_for_us")

# IPv4 (RFC 791; RFC 1812, 5.2.2 and 5.3).


@case()
def ipv4_cut_at_each_length(p: Play) -> None:
    for length in range(ETHER, len(SYN)):
        p.send(WAN, SYN[:length])
        p.dropped("ipv4_truncated")


@case()
def ipv4_header_with_any_byte_damaged(p: Play) -> None:
    """Version and lengths have names of their own, another destination is not ours whatever its
    checksum; all else is the checksum's."""
    named = {14: "ipv4_bad_header", 16: "ipv4_truncated", 17: "ipv4_truncated"}
    named |= {at: "not_for_us" for at in range(30, 34)}
    for at in range(ETHER, L4):
        damaged = edited(SYN, at, bytes([SYN[at] ^ 0x10]), checksums=False)
        p.send(WAN, damaged)
        p.dropped(named.get(at, "ipv4_bad_checksum"))


for version in (0, 5, 6, 15):
    frame = edited(SYN, 14, bytes([version << 4 | 5]))
    refuses(f"ipv4_version_{version}", frame, "ipv4_bad_header")
for words in range(5):
    refuses(f"ipv4_header_of_{words}_words", edited(SYN, 14, bytes([0x40 | words])),
            "ipv4_bad_header")  # fmt: skip
refuses("ipv4_longer_header_than_packet", edited(SYN, 14, b"\x4f"), "ipv4_truncated")
for total in (0, 1, 19):
    refuses(f"ipv4_total_length_{total}", edited(SYN, 16, struct.pack(">H", total)),
            "ipv4_bad_length")  # fmt: skip
for more in (1, 1_000):
    total = len(SYN) - ETHER + more
    refuses(f"ipv4_total_length_{more}_too_long", edited(SYN, 16, struct.pack(">H", total)),
            "ipv4_truncated")  # fmt: skip
for wrong in (b"\0\0", b"\xff\xff"):
    refuses(f"ipv4_checksum_{wrong.hex()}", edited(SYN, 24, wrong, checksums=False),
            "ipv4_bad_checksum")  # fmt: skip

OPTIONS = ether(CLIENT, tcp(FROM, TO, options=[]))
OPTIONS = OPTIONS[:14] + b"\x46" + OPTIONS[15:34] + b"\x01\x01\x01\x00" + OPTIONS[34:]
OPTIONS = edited(OPTIONS, 16, struct.pack(">H", 44))
refuses("ipv4_with_options", OPTIONS, "ipv4_options")
for kind, field in (("first", 0x2000), ("middle", 0x2010), ("last", 0x0010)):
    refuses(f"ipv4_{kind}_fragment", edited(SYN, 20, struct.pack(">H", field)), "fragment")
for number, kind in ((47, "gre"), (132, "sctp"), (50, "esp"), (0, "hop_by_hop"), (255, "reserved")):
    refuses(f"ip_protocol_{kind}", edited(SYN, 23, bytes([number])), "unknown_protocol")

for source in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.9", "224.0.0.5", "239.1.1.1",
               "240.0.0.1", "255.255.255.255"):  # fmt: skip
    frame = ether(CLIENT, tcp((source, 4_000), TO))
    refuses(f"source_{source}", frame, "martian_source")
for kind, source in (
    ("another_vip", "10.1.0.101"),
    ("local_address", LOCAL),
    ("port_address", PORT_IPS[WAN]),
    ("other_port_address", PORT_IPS[LAN]),
):
    refuses(f"source_is_{kind}", ether(CLIENT, tcp((source, 4_000), TO)), "martian_source")
refuses("source_is_its_vip_other_port", ether(CLIENT, tcp((WEB.vip, 99), TO)), "martian_source")
refuses("land_tcp", ether(CLIENT, tcp(TO, TO)), "land_attack")
refuses("land_udp", ether(CLIENT, udp(TO_DNS, TO_DNS)), "land_attack")
for kind, packet in (
    ("tcp", tcp(FROM, ("10.1.0.77", 80))),
    ("udp", udp(FROM, ("10.1.0.77", 53))),
    ("ping", frames.ping(CLIENT.ip, "10.1.0.77")),
    ("remote", tcp(FROM, ("192.0.2.1", 80))),
    ("backend", tcp(FROM, ("10.2.0.11", 8080))),
):
    refuses(f"not_for_us_{kind}", ether(CLIENT, packet), "not_for_us")

# TCP (RFC 9293) and UDP (RFC 768).


@case()
def tcp_shorter_than_its_header(p: Play) -> None:
    for length in range(20, 40):
        p.send(WAN, shortened(SYN, length))
        p.dropped("l4_truncated")


@case()
def tcp_shorter_than_its_header_padded_to_60_bytes(p: Play) -> None:
    for length in range(20, 40):
        p.send(WAN, frames.pad(shortened(SYN, length)))
        p.dropped("l4_truncated")


@case()
def tcp_data_offset_out_of_range(p: Play) -> None:
    for words in (*range(5), *range(7, 16)):
        p.send(WAN, edited(SYN, L4 + 12, bytes([words << 4])))
        p.dropped("l4_bad_length")


@case()
def tcp_with_any_byte_damaged(p: Play) -> None:
    """What is not the data offset's is the checksum's."""
    frame = ether(CLIENT, tcp(FROM, TO, options=[("MSS", 1460)], data=b"damaged"))
    for at in range(L4, len(frame)):
        if at != L4 + 12:
            p.send(WAN, edited(frame, at, bytes([frame[at] ^ 0x81]), checksums=False))
            p.dropped("l4_bad_checksum")


FLAGS = ("", "P", "U", "PU", "E", "C", "SF", "SR", "SFA", "SRA", "SFRPAU", "SFRPAUEC")
for flags in FLAGS:
    refuses(f"tcp_flags_{flags or 'none'}", ether(CLIENT, tcp(FROM, TO, flags)), "tcp_bad_flags")
refuses("tcp_from_port_0", ether(CLIENT, tcp((CLIENT.ip, 0), TO)), "l4_port_zero")
refuses("tcp_to_port_0", ether(CLIENT, tcp(FROM, (WEB.vip, 0))), "l4_port_zero")


@case()
def udp_shorter_than_its_header(p: Play) -> None:
    for length in range(20, 28):
        p.send(WAN, shortened(QUERY, length))
        p.dropped("l4_truncated")


@case()
def udp_length_out_of_range(p: Play) -> None:
    whole = len(QUERY) - L4
    for length in (*range(8), whole + 1, whole + 100, 0xFFFF):
        p.send(WAN, edited(QUERY, L4 + 4, struct.pack(">H", length)))
        p.dropped("l4_bad_length")


@case()
def udp_with_any_byte_damaged(p: Play) -> None:
    for at in range(L4, len(QUERY)):
        if at not in (L4 + 4, L4 + 5):
            p.send(WAN, edited(QUERY, at, bytes([QUERY[at] ^ 0x81]), checksums=False))
            p.dropped("l4_bad_checksum")


refuses("udp_from_port_0", ether(CLIENT, udp((CLIENT.ip, 0), TO_DNS)), "l4_port_zero")
refuses("udp_to_port_0", ether(CLIENT, udp(FROM, (DNS.vip, 0))), "l4_port_zero")

# What is unusual and right.


@case()
def any_dscp_and_ecn_pass_unchanged(p: Play) -> None:
    conn = opened(p, WEB)
    for tos in (0x01, 0x02, 0x03, 0x28, 0xB8, 0xFF):
        conn.sends("PA", b"x", tos=tos)
        conn.answers("PA", b"y", tos=tos)


@case()
def any_id_and_no_df_pass_unchanged(p: Play) -> None:
    conn = opened(p, WEB)
    for ident in (0, 1, 0x8000, 0xFFFF):
        for flags in (0, "DF", "evil"):
            conn.sends("PA", b"x", id=ident, ip_flags=flags)


@case()
def every_ttl_from_2_on_is_one_less_behind(p: Play) -> None:
    conn = opened(p, WEB)
    for ttl in (2, 3, 63, 64, 65, 128, 254, 255):
        conn.sends("PA", b"x", ttl=ttl)
        conn.answers("PA", b"y", ttl=ttl)


@case()
def checksums_at_their_edges(p: Play) -> None:
    """Data that makes the TCP checksum 0x0000, 0xffff and their neighbours on either side."""
    conn = opened(p, WEB)
    for back in (False, True):
        for want in (0x0000, 0xFFFE, 0x0001, 0x8000):
            frame = conn.segment("A", b"\0\0", back=back, seq=77)
            leaves = conn.forwarded(frame, back)
            for edge in (frame, leaves):
                (have,) = struct.unpack(">H", edge[L4 + 16 : L4 + 18])
                # The two bytes of data take the difference (ones' complement).
                data = (have - want) % 0xFFFF
                conn.passes(conn.segment("A", struct.pack(">H", data), back=back, seq=77), back)


@case()
def tcp_options_and_urgent_data_pass_unchanged(p: Play) -> None:
    conn = opened(p, WEB)
    sack = [("NOP", None), ("NOP", None), ("SAck", (1_000, 1_100))]
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (0x12345678, 0x9ABCDEF0))]
    for options in (sack, stamps, [*stamps, *sack], [("NOP", None)] * 40):
        conn.sends("A", options=options)
        conn.answers("A", options=options)
    for flags in ("PAU", "PAE", "PAC", "PAEC"):
        conn.sends(flags, b"u")
        conn.answers(flags, b"v")


@case()
def data_of_every_small_length_and_the_largest(p: Play) -> None:
    conn = opened(p, WEB)
    for length in (*range(1, 18), 63, 64, 65, 536, 1_359, 1_360):
        data = bytes((length + i) % 256 for i in range(length))
        conn.sends("PA", data)
        conn.answers("PA", data)


@case()
def a_conn_goes_on_after_damaged_frames_of_its_own(p: Play) -> None:
    conn = opened(p, WEB)
    good = conn.segment("PA", b"good")
    conn.is_dropped(good[:-1] + b"x", "l4_bad_checksum")
    conn.is_dropped(good[:-1], "ipv4_truncated")
    conn.is_dropped(edited(good, 20, b"\x20\0"), "fragment")
    conn.is_dropped(edited(good, L4 + 13, b"\0"), "tcp_bad_flags")
    conn.passes(good)
