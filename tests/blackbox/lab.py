"""Namespaces, wires, raw sockets and the real data plane; all gone at the end.

```
  clients: wan ── port wan ▒ sluice-dataplane ▒ port lan ── lan: servers
                        sl-wan, sl-lan: the kernel
```

No interface has an address: everybody on the wires is the runner, through raw sockets.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path

from control import Control
from world import LAN, PORT_MACS, PORTS, WAN, config_toml

PREFIX = "sluice-bb"
WIRES = ("af_xdp", "tap")
# The far end of a veth takes frames that are longer than a port should send.
FAR_MTU = 3_000
CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4
VLAN_VALID, VLAN_TPID_VALID = 1 << 4, 1 << 6
SO_RCVBUFFORCE = 33
SEND_TRIES = 1_000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> None:
    """Run `ip`."""
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")


class Wire:
    """A raw socket on an interface of a namespace: whole frames in and out."""

    def __init__(self, netns: str, device: str) -> None:
        self.socket = _socket_in(netns)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind((device, 3))
        self.socket.setblocking(False)

    def send(self, frame: bytes) -> None:
        """One frame."""
        for _ in range(SEND_TRIES):
            try:
                self.socket.send(frame)
                return
            except OSError as error:
                # The queue of the interface is full for a moment.
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    raise
                time.sleep(0.0005)
        raise RuntimeError(f"the wire does not take a frame of {len(frame)} bytes")

    def receive(self) -> bytes | None:
        """One frame that came in, or none."""
        while True:
            try:
                frame, control, _, source = self.socket.recvmsg(65_536, 128)
            except BlockingIOError:
                return None
            if source[2] != PACKET_OUTGOING:
                return _with_tag(frame, control)


def _with_tag(frame: bytes, control: list[tuple[int, int, bytes]]) -> bytes:
    """The frame as it was on the wire: the kernel takes a VLAN tag out and puts it aside."""
    for level, kind, data in control:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
            if status & VLAN_VALID:
                tpid = tpid if status & VLAN_TPID_VALID else 0x8100
                return frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
    return frame


def _socket_in(netns: str) -> socket.socket:
    with open("/proc/self/ns/net") as here, open(f"/run/netns/{netns}") as there:
        _setns(there.fileno())
        try:
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        finally:
            _setns(here.fileno())


def _setns(fd: int) -> None:
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Lab:
    """Two wires and a data plane between them."""

    def __init__(self, binary: Path, wire: str, workers: int) -> None:
        self.binary, self.wire, self.workers = binary, wire, workers
        self.name = f"{PREFIX}-{os.getpid()}"
        self.netns = {role: f"{self.name}-{role}" for role in (WAN, LAN, "lb")}
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.arrived: dict[str, deque[bytes]] = {}

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        remove_leftovers()
        for netns in self.netns.values():
            ip("netns", "add", netns)
            for which in ("all", "default"):
                self._sysctl(netns, f"net.ipv6.conf.{which}.disable_ipv6=1")
        if self.wire == "af_xdp":
            for port in PORTS:
                self._add_veth(port)
        self._start()
        # The kernel behind the ports stays silent, the runner is in its place: no address is local to it.
        ip("-n", self.netns["lb"], "rule", "del", "pref", "0")
        for port in PORTS:
            if self.wire == "tap":
                ip("-n", self.netns["lb"], "link", "set", f"{port}0", "netns", self.netns[port])
                ip("-n", self.netns[port], "link", "set", f"{port}0", "name", port)
                ip("-n", self.netns[port], "link", "set", port, "up")
        self.control = Control(self.directory / "dataplane.sock")
        self.wires = {port: Wire(self.netns[port], port) for port in PORTS}
        self.kernel = {port: Wire(self.netns["lb"], f"sl-{port}") for port in PORTS}

    def _add_veth(self, port: str) -> None:
        one_queue = ("numtxqueues", "1", "numrxqueues", "1")
        lb, far = self.netns["lb"], self.netns[port]
        ip("-n", lb, "link", "add", f"{port}0", "address", PORT_MACS[port], *one_queue,
           "type", "veth", "peer", "name", port, "netns", far, *one_queue)  # fmt: skip
        ip("-n", far, "link", "set", port, "mtu", str(FAR_MTU), "up")
        ip("-n", lb, "link", "set", f"{port}0", "up")

    def _start(self) -> None:
        devices = {
            port: f"net_af_xdp{n},iface={port}0"
            if self.wire == "af_xdp"
            else f"net_tap{n},iface={port}0,mac={PORT_MACS[port]}"
            for n, port in enumerate(PORTS)
        }
        file = self.directory / "dataplane.toml"
        sock = str(self.directory / "dataplane.sock")
        file.write_text(config_toml(devices, self.workers, sock, self.name))
        self.log = open(self.directory / "dataplane.log", "wb")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.netns["lb"], self.binary, "--config", file],
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
            # A runner that is killed takes the data plane with it.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        deadline = time.monotonic() + 60
        while not any(line.startswith("READY") for line in self.log_lines()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the data plane is not READY:\n" + "\n".join(self.log_lines()))
            time.sleep(0.02)

    def log_lines(self) -> list[str]:
        """What the data plane has written."""
        return (self.directory / "dataplane.log").read_text(errors="replace").splitlines()

    def check_alive(self) -> None:
        """An error when the data plane has ended."""
        if self.process is None or self.process.poll() is not None:
            tail = "\n".join(self.log_lines()[-20:])
            raise RuntimeError(f"the data plane has ended:\n{tail}")

    def stop(self) -> int:
        """End the data plane as an operator does; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(10)

    def close(self) -> None:
        """Remove everything."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for netns in self.netns.values():
            subprocess.run(["ip", "netns", "del", netns], capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def _sysctl(netns: str, setting: str) -> None:
        command = ["ip", "netns", "exec", netns, "sysctl", "-qw", setting]
        subprocess.run(command, check=True)


def remove_leftovers() -> None:
    """Namespaces of runners that were killed."""
    for path in Path("/run/netns").glob(f"{PREFIX}-*-*"):
        owner = path.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True)
