"""Random frames, compared with a model of two pages: the same reason for each, the same answers."""

from __future__ import annotations

import os
import random
from collections import Counter

import counters
import frames
from cases import case
from cases_host import pong
from conn import Conn, opened
from frames import ETHER, L4, ether, parse, ping, tcp, udp
from model import Addresses, fate
from play import Play, Wrong
from world import CLIENT, LAN, LOCAL, PORT_IPS, SERVICES, WAN, WEB

FRAMES, AT_ONCE = 1_500, 50
# What a sound flow may end by; `cases_refusals` and others tell these apart.
OF_FLOWS = {"no_conn", "no_service", "no_backend", "martian_source", "land_attack", "l4_port_zero"}
OF_FLOWS |= {"tcp_bad_flags", "broadcast_source", "syn_to_local", "udp_no_conn", "wrong_port"}
OF_FLOWS |= {"own_mac"}
OURS = Addresses(
    frozenset(PORT_IPS.values()),
    frozenset(service.vip for service in SERVICES),
    frozenset([LOCAL]),
)


def seed() -> int:
    """`SLUICE_SEED`, or the usual one."""
    return int(os.environ.get("SLUICE_SEED", "1"))


class Source:
    """Random frames, from sound ones that are damaged, cut, mended and grown."""

    def __init__(self, conn: Conn) -> None:
        self.random = random.Random(seed())
        end = (CLIENT.ip, 999)
        to_port = PORT_IPS[WAN]
        self.sound = [
            conn.segment("A", b"of a conn", seq=1_001),
            ether(CLIENT, tcp(end, (WEB.vip, 81), "A", ack=5)),
            ether(CLIENT, tcp(end, (to_port, 22), "S", options=[("MSS", 1460)])),
            ether(CLIENT, udp(end, (WEB.vip, 99), b"")),
            ether(CLIENT, udp(end, (to_port, 99), b"to the host")),
            ether(CLIENT, ping(CLIENT.ip, WEB.vip)),
            ether(CLIENT, ping(CLIENT.ip, to_port)),
            frames.arp(1, (CLIENT.ip, CLIENT.mac), (WEB.vip, "00:00:00:00:00:00")),
        ]

    def next(self) -> bytes:
        """One frame."""
        pick = self.random
        frame = bytearray(pick.choice(self.sound))
        for _ in range(pick.choice((0, 1, 1, 1, 2, 3))):
            at = pick.randrange(len(frame))
            flipped, other = frame[at] ^ 1 << pick.randrange(8), pick.randrange(256)
            frame[at] = pick.choice((0, 1, 0xFF, flipped, other))
        if pick.random() < 0.6 and len(frame) > L4 and frame[12:14] == b"\x08\0":
            frame[ETHER:] = mended(bytes(frame[ETHER:]))
        if pick.random() < 0.2:
            del frame[max(14, len(frame) - pick.randrange(1, 40)) :]
        if pick.random() < 0.2:
            frame += pick.randbytes(pick.randrange(1, 40))
        return bytes(frame)


def mended(packet: bytes) -> bytes:
    """With right checksums, also of ICMP, when its lengths allow."""
    total = int.from_bytes(packet[2:4], "big")
    if packet[0] != 0x45 or not 28 <= total <= len(packet):
        return packet
    whole, rest = packet[:total], packet[total:]
    if whole[9] == 1:
        body = whole[20:22] + b"\0\0" + whole[24:]
        body = body[:2] + frames.checksum(body).to_bytes(2, "big") + body[4:]
        return frames.with_checksums(whole[:20]) + body + rest
    return frames.with_checksums(whole) + rest


def is_left_out(frame: bytes, conn: Conn) -> bool:
    """What makes or ends conns, changes next hops, or has its TTL run out has cases of its own."""
    kind = fate(frame, OURS)
    if kind == "arp":
        packet = parse(frame)["ARP"]
        return bool(packet.op != 1 or packet.psrc != CLIENT.ip or packet.hwsrc != CLIENT.mac)
    if kind in ("ping", "kernel"):
        return frame[ETHER] != 0x45 or frame[6:12] != frames.mac_bytes(CLIENT.mac)
    if kind.endswith(("_checksum", "_source", "_flags")):
        # Damaged and for somebody else: it has two names.
        return not OURS.ours(".".join(map(str, frame[30:34])))
    if kind != "flow":
        # Errors about conns have cases of their own.
        return kind == "icmp_ignored"
    if frame[ETHER + 8] <= 1 or frame[ETHER] != 0x45:
        return True
    if frame[ETHER + 9] == 6:
        return bool(frame[L4 + 13] & 7)
    return frame[L4 + 2 : L4 + 4] == b"\0\x35"


@case(expected_from="the model")
def random_frames_end_as_the_model_says(p: Play) -> None:
    conn = opened(p, WEB)
    source = Source(conn)
    for _ in range(FRAMES // AT_ONCE):
        batch = []
        while len(batch) < AT_ONCE:
            frame = source.next()
            if not is_left_out(frame, conn):
                batch.append(frame)
        compare(p, conn, batch)


def compare(p: Play, conn: Conn, batch: list[bytes]) -> None:
    """Play a batch, and compare what became of all of it."""
    before = counters.flatten(p.stats)
    fates = [fate(frame, OURS) for frame in batch]
    p.send(WAN, *batch)
    p.settle()
    drops = Counter(
        {
            name.removeprefix("drops."): n
            for name, n in counters.changes(before, counters.flatten(p.stats)).items()
            if name.startswith("drops.")
        }
    )
    said = Counter(f for f in fates if f not in ("arp", "ping", "kernel", "flow"))
    for frame, kind in zip(batch, fates):
        if kind == "arp" and not OURS.ours(parse(frame)["ARP"].pdst):
            said["arp_not_for_us"] += 1
    wrong = {r for r in {*drops, *said} - OF_FLOWS if drops[r] != said[r]}
    wrong |= {r for r in OF_FLOWS if drops[r] < said[r]}
    if wrong:
        shown = [f"{f}: {b.hex()}" for f, b in zip(fates, batch) if f in wrong]
        raise Wrong(f"seed {seed()}: seen {drops}, the model {said}\n" + "\n".join(shown))
    p.expected.update({f"drops.{name}": n for name, n in drops.items()})
    answered(p, conn, batch, fates, sum(drops.values()) - sum(said.values()))


def answered(p: Play, conn: Conn, batch: list[bytes], fates: list[str], ended: int) -> None:
    """What left: pongs, the conn's own frames, the kernel's, each byte of it; and RSTs and
    unreachables of flows, which are counted."""
    ours = [f for f, kind in zip(batch, fates) if kind == "flow" and is_of(conn, f)]
    p.sees_all(LAN, [conn.forwarded(frame) for frame in ours])
    for frame in ours:
        p.forwards(WEB.name, conn.name, frame)
    flows = fates.count("flow") - len(ours)
    if flows != ended:
        raise Wrong(f"seed {seed()}: of {flows} flows without a conn {ended} ended")
    pings = [frames.without_trailer(f) for f, kind in zip(batch, fates) if kind == "ping"]
    pongs, left = Counter(map(pong, pings)), Counter(p.arrived[WAN])
    p.arrived[WAN].clear()
    if pongs - left:
        raise Wrong(f"seed {seed()}: no {frames.describe(next(iter(pongs - left)))}")
    others = [f for f in (left - pongs).elements() if f[12:14] == b"\x08\0"]
    resets = [f for f in others if f[23] == 6]
    p.count(len(resets), workers__resets_sent=1)
    p.count(len(others) - len(resets), workers__unreachables_sent=1)
    to_kernel = [f for f, kind in zip(batch, fates) if kind == "kernel"]
    p.kernel_sees_all(WAN, [frames.without_trailer(frame) for frame in to_kernel])


def is_of(conn: Conn, frame: bytes) -> bool:
    """Whether a sound frame is a plausible segment of the conn."""
    packet = parse(frame)["IP"]
    ends = (packet.src, packet.payload.sport), (packet.dst, packet.payload.dport)
    return packet.proto == 6 and ends == conn.ends() and bool(frame[L4 + 13] & 0x17)

