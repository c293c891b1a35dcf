"""Who stands on the two wires, each with its own MAC address, and what Sluice forwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WAN, LAN = "wan", "lan"
PORTS = (WAN, LAN)
TCP, UDP = 6, 17


@dataclass(frozen=True)
class Host:
    """A station on a wire."""

    name: str
    port: str
    ip: str
    mac: str


CLIENT = Host("client", WAN, "10.1.0.10", "02:c1:00:00:00:0a")
CLIENT2 = Host("client2", WAN, "10.1.0.11", "02:c1:00:00:00:0b")
# Clients of 198.51.0.0/16 are behind it.
ROUTER = Host("router", WAN, "10.1.0.254", "02:c1:00:00:00:fe")
REMOTE = Host("remote", WAN, "198.51.100.7", ROUTER.mac)
# No route leads to it.
STRANGER = Host("stranger", WAN, "203.0.113.9", ROUTER.mac)
B1 = Host("b1", LAN, "10.2.0.11", "02:b0:00:00:00:0b")
B2 = Host("b2", LAN, "10.2.0.12", "02:b0:00:00:00:0c")
B3 = Host("b3", LAN, "10.2.0.13", "02:b0:00:00:00:0d")
B4 = Host("b4", LAN, "10.2.0.14", "02:b0:00:00:00:0e")
BACKENDS = (B1, B2, B3, B4)
# Backends of 10.3.0.0/16 are behind it.
GATEWAY = Host("gateway", LAN, "10.2.0.254", "02:b0:00:00:00:fe")
FAR = Host("far", LAN, "10.3.0.5", GATEWAY.mac)
# Does not answer ARP, until a case lets it.
DEAD = Host("dead", LAN, "10.2.0.66", "02:b0:00:00:00:66")

HOSTS = (CLIENT, CLIENT2, ROUTER, *BACKENDS, GATEWAY)

PORT_MACS = {WAN: "02:51:00:00:00:01", LAN: "02:51:00:00:00:02"}
PORT_IPS = {WAN: "10.1.0.1", LAN: "10.2.0.1"}
PORT_MTUS = {WAN: 1500, LAN: 1400}
LOCAL = "10.2.0.200"
BROADCAST = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True)
class Service:
    """A service of the usual snapshot."""

    name: str
    vip: str
    port: int
    protocol: int = TCP
    mode: str = "full-nat"
    # Host, L4 port, weight.
    backends: tuple[tuple[Host, int, int], ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Any]:
        """As it stands in a snapshot (`SnapshotService`)."""
        service = {
            "name": self.name,
            "vip": self.vip,
            "port": self.port,
            "protocol": "tcp" if self.protocol == TCP else "udp",
            "mode": self.mode,
            "scheduler": "maglev",
            "hash_on": "5-tuple",
            "maglev_slots": 251,
            "pool": "main" if self.mode == "full-nat" else None,
            "timeouts": dict(LONG),
            "no_conn": "reset" if self.mode == "full-nat" else "drop",
            "no_backend": "reset",
            "backends": [backend(*b) for b in self.backends],
        }
        return service | self.more


def backend(host: Host, port: int, weight: int = 100, **more: Any) -> dict[str, Any]:
    """A backend as it stands in a snapshot (`SnapshotBackend`)."""
    usual = {"address": host.ip, "port": port, "weight": weight, "state": "up", "healthy": True}
    return usual | more


# Nothing expires while cases run, but where a case says so.
LONG = {
    f"{state}_ms": 3_600_000
    for state in (
        "tcp_syn_sent",
        "tcp_syn_received",
        "tcp_established",
        "tcp_fin_wait",
        "tcp_last_ack",
        "tcp_time_wait",
        "tcp_closed",
        "udp_one_way",
        "udp_two_way",
    )
}

WEB = Service("web", "10.1.0.100", 80, backends=((B1, 8080, 100),))
DNS = Service("dns", "10.1.0.100", 53, UDP, backends=((B1, 5353, 100),))
DR = Service("dr", "10.1.0.101", 80, mode="dr", backends=((B2, 80, 100),))
DR_DNS = Service("dr-dns", "10.1.0.101", 53, UDP, "dr", backends=((B2, 53, 100),))
ROUTED = Service("routed", "10.1.0.102", 80, backends=((FAR, 8000, 100),))
EMPTY = Service("empty", "10.1.0.103", 80)
EMPTY_DNS = Service("empty-dns", "10.1.0.103", 53, UDP)
LIMITED = Service("limited", "10.1.0.107", 80, backends=((B3, 81, 100),), more={"max_conns": 2})
SERVICES = (WEB, DNS, DR, DR_DNS, ROUTED, EMPTY, EMPTY_DNS, LIMITED)


def snapshot(services: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The usual services, or others; without a generation."""
    usual = [service.snapshot() for service in SERVICES]
    return {
        "services": usual if services is None else services,
        "pools": [{"name": "main", "addresses": [LOCAL]}],
        "no_service": "reset",
    }


def config_toml(devices: dict[str, str], workers: int, socket: str, prefix: str) -> str:
    """The data plane's file."""
    head = f"""[runtime]
main_cpu = 0
worker_cpus = {[1] * workers}
share_cpus = {str(workers > 1).lower()}
hugepages = false
memory_mb = 192
file_prefix = "{prefix}"
announce_every_s = 0
eal_args = ["--no-pci", "--no-telemetry"]

[control]
socket = "{socket}"

[limits]
connections = 65_536
services = 64
backends = 256
neighbours = 64

[[route]]
destination = "198.51.0.0/16"
via = "{ROUTER.ip}"

[[route]]
destination = "10.3.0.0/16"
via = "{GATEWAY.ip}"
"""
    ports = (
        f"""
[[port]]
name = "{port}"
device = "{devices[port]}"
addresses = ["{PORT_IPS[port]}/24"]
mtu = {PORT_MTUS[port]}
"""
        for port in PORTS
    )
    return head + "".join(ports)
