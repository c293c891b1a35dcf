"""A conn, played from both ends: every frame of it is compared on both wires and counted."""

from __future__ import annotations

import frames
from frames import Endpoint
from play import Play, Wrong
from world import CLIENT, LAN, LOCAL, PORT_MACS, TCP, WAN, Host, Service

FIRST_LOCAL_PORT = 1_024


class Conn:
    """A client's flow to a service with one backend, and that backend's answers."""

    def __init__(self, p: Play, service: Service, client: Host = CLIENT, **more: int) -> None:
        self.p, self.service, self.client = p, service, client
        backend, port, _ = service.backends[more.get("backend", 0)]
        self.backend, self.backend_end = backend, (backend.ip, port)
        self.client_end: Endpoint = (client.ip, more.get("port") or p.fresh_port())
        self.vip: Endpoint = (service.vip, service.port)
        # Chosen by Sluice, and then the same for good.
        self.local: Endpoint | None = None
        # Next sequence numbers.
        self.client_seq, self.backend_seq = 1_000, 900_000
        self.is_nat = service.mode == "full-nat"

    # Frames.

    def segment(self, flags: str, data: bytes = b"", back: bool = False, **more: object) -> bytes:
        """The next segment from the client, or back from the backend; sequence numbers move on by
        what it carries, but not when `seq` is given."""
        seq, ack = self.client_seq, self.backend_seq
        if back:
            seq, ack = ack, seq
        fields: dict[str, object] = {"seq": seq, "ack": ack if "A" in flags else 0} | more
        if "seq" not in more:
            length = len(data) + ("S" in flags) + ("F" in flags)
            if back:
                self.backend_seq += length
            else:
                self.client_seq += length
        src, dst = self.ends(back)
        packet = frames.tcp(src, dst, flags, data=data, **fields)  # type: ignore[arg-type]
        return frames.ether(self.backend if back else self.client, packet)

    def datagram(self, data: bytes, back: bool = False, **more: object) -> bytes:
        """A UDP datagram from the client, or back from the backend."""
        src, dst = self.ends(back)
        packet = frames.udp(src, dst, data, **more)  # type: ignore[arg-type]
        return frames.ether(self.backend if back else self.client, packet)

    def ends(self, back: bool = False) -> tuple[Endpoint, Endpoint]:
        """Source and destination as the sender writes them."""
        if not back:
            return self.client_end, self.vip
        assert self.local is not None, "Sluice has not chosen a local port yet"
        return self.backend_end, self.local

    def forwarded(self, frame: bytes, back: bool = False) -> bytes:
        """A frame of the conn as it must leave on the other wire."""
        if back:
            macs = (self.client.mac, PORT_MACS[WAN])
            return frames.hop(frame, macs, self.vip, self.client_end)
        macs = (self.backend.mac, PORT_MACS[LAN])
        if not self.is_nat:
            return frames.hop(frame, macs)
        return frames.hop(frame, macs, self.local, self.backend_end)

    # Acts.

    def passes(self, frame: bytes, back: bool = False, counted: bytes | None = None) -> None:
        """The frame is sent, leaves as it must, and is counted."""
        came, leaves = (LAN, WAN) if back else (WAN, LAN)
        self.p.send(came, frame)
        if self.is_nat and self.local is None:
            self.learn_local(self.p.take(leaves), frame)
        else:
            self.p.sees(leaves, self.forwarded(frame, back))
        self.p.forwards(self.service.name, self.name, counted or frame, back)

    def learn_local(self, seen: bytes, sent: bytes) -> None:
        """The first frame tells the local port; all else of it must be as expected."""
        packet = frames.parse(seen)
        if not packet.haslayer("IP") or packet.proto != self.service.protocol:
            raise Wrong(f"not of this conn: {frames.describe(seen)}")
        port = packet["IP"].payload.sport
        self.local = (LOCAL, port)
        if port < FIRST_LOCAL_PORT:
            raise Wrong(f"local port {port}")
        expected = self.forwarded(sent)
        if seen != expected:
            raise Wrong(frames.difference(expected, seen))

    @property
    def name(self) -> str:
        """The backend as counters name it."""
        return f"{self.backend_end[0]}:{self.backend_end[1]}"

    def sends(self, flags: str, data: bytes = b"", **more: object) -> None:
        """A segment of the client passes."""
        self.passes(self.segment(flags, data, **more))

    def answers(self, flags: str, data: bytes = b"", **more: object) -> None:
        """A segment of the backend passes."""
        self.passes(self.segment(flags, data, back=True, **more), back=True)

    def says(self, data: bytes, back: bool = False, **more: object) -> None:
        """A datagram passes."""
        self.passes(self.datagram(data, back, **more), back)

    def is_made(self) -> None:
        """The conn is counted as made."""
        self.p.conns(self.service.name, self.name)

    def is_dropped(self, frame: bytes, reason: str, back: bool = False) -> None:
        """The frame is sent, and ends here."""
        self.p.send(LAN if back else WAN, frame)
        self.p.dropped(reason)


def opened(p: Play, service: Service, client: Host = CLIENT, **more: int) -> Conn:
    """A conn after its handshake; over UDP, after a question and an answer."""
    conn = Conn(p, service, client, **more)
    if service.protocol != TCP:
        conn.says(b"question")
        conn.is_made()
        if conn.is_nat:
            conn.says(b"answer", back=True)
        return conn
    conn.sends("S", options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)])
    conn.is_made()
    if conn.is_nat:
        conn.answers("SA", options=[("MSS", 1400), ("SAckOK", b""), ("WScale", 9)])
    else:
        conn.backend_seq += 1
    conn.sends("A")
    return conn
