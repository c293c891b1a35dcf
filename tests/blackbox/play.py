"""The hands of a case: send frames, say what must leave and what must be counted; nothing else may.

To break things by hand, as root:
`SLUICE_BIN_DIR=target/debug /usr/bin/python3 -i tests/blackbox/play.py`, then
`p.send("wan", ether(CLIENT, tcp((CLIENT.ip, 5000), (WEB.vip, 80)))); p.look()`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from functools import lru_cache
from typing import Any, Iterable

import counters
import frames
from lab import Lab
from world import BROADCAST, HOSTS, PORT_IPS, PORT_MACS, PORTS, Service
from world import snapshot as usual_snapshot

# How long something may take to leave; what is right takes about a millisecond.
PATIENCE_S = 3.0
# Without a frame for so long, after all that was sent has been counted, nothing else is to come.
QUIET_S = 0.004


class Wrong(AssertionError):
    """Sluice's answer is not the expected one."""


class Play:
    """One data plane, one case after another."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.generation = 0
        self.patience_s = PATIENCE_S
        self.known: set[tuple[str, str]] = set()
        self.macs = {(host.port, host.ip): host.mac for host in HOSTS}
        self.replies: Counter[bytes] = Counter()
        self.next_port = 2_000
        self.stats = lab.control.ask("stats")
        self.begin()

    # What a case does.

    def begin(self) -> None:
        """A new case: counters count from here."""
        self.arrived: dict[str, deque[bytes]] = {port: deque() for port in PORTS}
        self.to_kernel: dict[str, deque[bytes]] = {port: deque() for port in PORTS}
        self.expected: Counter[str] = Counter()
        self.ignored: set[str] = set()
        self.silent: set[tuple[str, str]] = set()
        self.before = counters.flatten(self.stats)

    def apply(self, services: Iterable[Service | dict[str, Any]] | None = None) -> None:
        """Forward by these services, or by the usual ones. Counters count from here: what a
        service that is gone had counted goes with it."""
        self.settle()
        self.check()
        made = None
        if services is not None:
            made = [s.snapshot() if isinstance(s, Service) else s for s in services]
        self.generation += 1
        snapshot = usual_snapshot(made) | {"generation": self.generation}
        self.lab.control.ask("apply", snapshot=snapshot)
        # Next hops that are new are asked for at once: those frames are not of what comes next.
        time.sleep(0.02)
        self.settle()
        self.stats = self.lab.control.ask("stats")
        self.before = counters.flatten(self.stats)
        self.expected = Counter()

    def send(self, port: str, *sent: bytes) -> None:
        """Frames arrive by a port."""
        for frame in sent:
            self._count_received(port, frame)
            self.lab.wires[port].send(frame)

    def send_from_kernel(self, port: str, frame: bytes) -> None:
        """The host behind the ports sends a frame."""
        self.lab.kernel[port].send(frame)

    def take(self, port: str) -> bytes:
        """The next frame that leaves by a port."""
        return self._take(self.arrived[port], f"port {port}")

    def sees(self, port: str, *expected: bytes) -> None:
        """These frames leave by a port, in this order."""
        for frame in expected:
            seen = self.take(port)
            if seen != frame:
                raise Wrong(f"port {port}: {frames.difference(frame, seen)}")

    def sees_all(self, port: str, expected: list[bytes]) -> None:
        """These frames leave by a port, in any order."""
        self._compare_all(self.arrived[port], f"port {port}", expected)

    def kernel_sees(self, port: str, *expected: bytes) -> None:
        """These frames reach the host by the exception port of a port."""
        for frame in expected:
            seen = self._take(self.to_kernel[port], f"the kernel behind {port}")
            if seen != frame:
                raise Wrong(f"the kernel behind {port}: {frames.difference(frame, seen)}")

    def kernel_sees_all(self, port: str, expected: list[bytes]) -> None:
        """These frames reach the host by the exception port of a port, in any order."""
        self._compare_all(self.to_kernel[port], f"the kernel behind {port}", expected)

    def dropped(self, reason: str, times: int = 1) -> None:
        """Frames end for this reason."""
        self.expected[f"drops.{reason}"] += times

    def count(self, times: int = 1, **names: int) -> None:
        """Any counters, with dots for `__`: `count(workers__conns=1)`."""
        for name, change in names.items():
            self.expected[name.replace("__", ".")] += change * times

    def forwards(self, service: str, backend: str, frame: bytes, back: bool = False) -> None:
        """A frame is counted as forwarded for a service and its `address:port`."""
        way = "out" if back else "in"
        for name in (f"services.{service}", f"services.{service}.{backend}"):
            self.expected[f"{name}.packets_{way}"] += 1
            self.expected[f"{name}.bytes_{way}"] += frames.ip_len(frame)

    def conns(self, service: str, backend: str, made: int = 1, ended: int = 0) -> None:
        """Conns of a service are made and end."""
        for name in ("workers", f"services.{service}", f"services.{service}.{backend}"):
            self.expected[f"{name}.conns_created"] += made
            self.expected[f"{name}.conns"] += made - ended
        self.expected["workers.conns_expired"] += ended
        self.expected["tables.conns"] += made - ended

    def rests(self, service: str, backend: str) -> None:
        """A conn that its backend closed first is over, but its local port rests."""
        for name in (f"services.{service}", f"services.{service}.{backend}", "tables"):
            self.expected[f"{name}.conns"] -= 1

    def ignore(self, *names: str) -> None:
        """Counters that this case cannot tell, by their full name."""
        self.ignored.update(names)

    def resolves(self, port: str, address: str, asked: int = 1) -> None:
        """Sluice asks for an address that it does not know yet, so often; the runner answers as the
        host with that address."""
        request = arp_request(port, address)
        for _ in range(asked):
            self.sees(port, request)
        self.answer(port, address)

    def answer(self, port: str, address: str) -> None:
        """A host answers an ARP request of Sluice."""
        mac = self.macs.get((port, address))
        if mac is not None:
            self.known.add((port, address))
            ours = (PORT_IPS[port], PORT_MACS[port])
            reply = frames.arp(2, (address, mac), ours, ours[1])
            # The kernel may have asked as well: it sees every reply.
            self.replies[reply] += 1
            self.send(port, reply)

    def knows(self, address: str, mac: str) -> None:
        """Wait until Sluice, and by then its workers, know a next hop by this MAC address."""
        deadline = time.monotonic() + self.patience_s
        while True:
            known = self.lab.control.ask("neighbours")["neighbours"]
            if any(n["address"] == address and n["mac"] == mac for n in known):
                time.sleep(0.03)
                return
            if time.monotonic() > deadline:
                raise Wrong(f"{address} is not at {mac}: {known}")
            time.sleep(0.002)

    def fresh_port(self) -> int:
        """An L4 port that no other case uses for its client."""
        self.next_port += 1
        return self.next_port

    def finish(self) -> None:
        """Nothing else leaves, and counters have grown by what was expected and by nothing else."""
        self.settle()
        left = [(f"port {port}", f) for port in PORTS for f in self.arrived[port]]
        left += [(f"the kernel behind {port}", f) for port in PORTS for f in self.to_kernel[port]]
        if left:
            shown = "\n".join(f"{where}: {frames.describe(f)}" for where, f in left[:4])
            raise Wrong(f"{len(left)} frames left that were not expected\n{shown}")
        self.check()

    def recover(self) -> None:
        """After a case that failed: as if it had not been, but for the conns that it made."""
        time.sleep(0.1)
        self._drain()
        self.generation += 1
        self.lab.control.ask("apply", snapshot=usual_snapshot() | {"generation": self.generation})
        self.stats = self.lab.control.ask("stats")
        self.begin()

    # What happens beneath.

    def look(self) -> None:
        """Print what leaves and what is counted; for use by hand."""
        self.settle()
        for port in PORTS:
            while self.arrived[port]:
                print(f"{port}: {frames.describe(self.arrived[port].popleft())}")
            while self.to_kernel[port]:
                print(f"kernel {port}: {frames.describe(self.to_kernel[port].popleft())}")
        after = counters.flatten(self.stats)
        for name, change in counters.changes(self.before, after).items():
            print(f"{name} {change:+}")
        self.before = after

    def settle(self) -> None:
        """Wait until all that was sent has been counted, and nothing comes any more."""
        deadline = time.monotonic() + self.patience_s
        while True:
            quiet_since = time.monotonic()
            while time.monotonic() - quiet_since < QUIET_S:
                if self._drain():
                    quiet_since = time.monotonic()
                else:
                    time.sleep(0.0005)
            self.stats = self.lab.control.ask("stats")
            if not self._drain() and self._all_counted():
                return
            if time.monotonic() > deadline:
                return

    def check(self) -> None:
        """Counters have grown as expected."""
        expected = self.expected.copy()
        expected["workers.dropped"] = sum(
            n for name, n in expected.items() if name.startswith("drops.")
        )
        seen = Counter(counters.changes(self.before, counters.flatten(self.stats)))
        ignored = set(self.ignored)
        if self.lab.workers > 1:
            # Who owns a conn depends on the local port that is chosen.
            expected["workers.rx_packets"] += seen["workers.handed_over"]
            ignored.add("workers.handed_over")
        for name in ignored:
            seen.pop(name, None)
            expected.pop(name, None)
        names = sorted(n for n in {*seen, *expected} if seen[n] != expected[n])
        wrong = [f"{name}: expected {expected[name]:+}, seen {seen[name]:+}" for name in names]
        wrong += counters.contradictions(self.stats)
        if wrong:
            raise Wrong("counters\n  " + "\n  ".join(wrong))

    def _all_counted(self) -> bool:
        seen = Counter(counters.changes(self.before, counters.flatten(self.stats)))
        received = seen["workers.rx_packets"] - seen["workers.handed_over"]
        names = ("workers.tx_packets", "workers.to_kernel", *_port_counters())
        return received == self.expected["workers.rx_packets"] and all(
            seen[name] == self.expected[name] for name in names
        )

    def _take(self, queue: deque[bytes], where: str) -> bytes:
        deadline = time.monotonic() + self.patience_s
        while not queue:
            if not self._drain():
                if time.monotonic() > deadline:
                    self.lab.check_alive()
                    raise Wrong(f"{where}: nothing came within {self.patience_s} s")
                time.sleep(0.0002)
        return queue.popleft()

    def _compare_all(self, queue: deque[bytes], where: str, expected: list[bytes]) -> None:
        seen = [self._take(queue, where) for _ in expected]
        missing, extra = Counter(expected) - Counter(seen), Counter(seen) - Counter(expected)
        if missing or extra:
            shown = [f"missing {frames.describe(f)}" for f in list(missing)[:3]]
            shown += [f"instead {frames.describe(f)}" for f in list(extra)[:3]]
            raise Wrong(f"{where}: {len(missing)} of {len(expected)}\n" + "\n".join(shown))

    def _drain(self) -> bool:
        """Take in what has arrived; whether anything has."""
        anything = False
        for port in PORTS:
            while (frame := self.lab.wires[port].receive()) is not None:
                anything = True
                self.expected["workers.tx_packets"] += 1
                self.expected[f"ports.{port}.tx_packets"] += 1
                self.expected[f"ports.{port}.tx_bytes"] += len(frame)
                if not self._confirm(port, frame):
                    self.arrived[port].append(frame)
            while (frame := self.lab.kernel[port].receive()) is not None:
                anything = True
                self.expected["workers.to_kernel"] += 1
                if self.replies[frame]:
                    self.replies[frame] -= 1
                else:
                    self.to_kernel[port].append(frame)
        return anything

    def _confirm(self, port: str, frame: bytes) -> bool:
        """Sluice verifies a next hop that it knows, after 30 s of use: the host answers."""
        if frame[12:14] != b"\x08\x06":
            return False
        for at, address in self.known - self.silent:
            if at == port and frame == arp_request(port, address, self.macs[port, address]):
                self.answer(port, address)
                return True
        return False

    def _count_received(self, port: str, frame: bytes) -> None:
        self.expected["workers.rx_packets"] += 1
        self.expected[f"ports.{port}.rx_packets"] += 1
        self.expected[f"ports.{port}.rx_bytes"] += len(frame)


@lru_cache(maxsize=None)
def arp_request(port: str, address: str, mac: str | None = None) -> bytes:
    """Sluice's own ARP request for an address: broadcast, or to the MAC address that it knows."""
    ours = (PORT_IPS[port], PORT_MACS[port])
    return frames.arp(1, ours, (address, "00:00:00:00:00:00"), mac or BROADCAST)


def _port_counters() -> list[str]:
    return [f"ports.{port}.{way}_packets" for port in PORTS for way in ("rx", "tx")]


if __name__ == "__main__":
    import atexit
    import os
    from pathlib import Path

    from frames import *  # noqa: F403
    from world import *  # noqa: F403

    directory = Path(os.environ.get("SLUICE_BIN_DIR", "target/release"))
    lab = Lab(directory / "sluice-dataplane", "tap", 1)
    atexit.register(lab.close)
    p = Play(lab.__enter__())
    p.apply()
    print("p.send(PORT, FRAME), p.look(), p.apply([SERVICE, …]); Ctrl-D ends")
