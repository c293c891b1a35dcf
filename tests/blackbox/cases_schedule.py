"""Who gets new conns: by counting the backends of many SYNs."""

from __future__ import annotations

from collections import Counter
from itertools import count

import frames
from cases import case
from conn import FIRST_LOCAL_PORT
from frames import ether, tcp
from play import Play, Wrong
from world import B1, B2, B3, B4, BACKENDS, LAN, PORT_MACS, ROUTER, WAN, Host, Service

WEIGHTS = {B1: 5, B2: 3, B3: 2}
AT_ONCE = 64
# Each service has a name and a VIP of its own: conns of one case count in no other.
fresh = count()


def service(scheduler: str, weights: dict[Host, int], **more: object) -> Service:
    """A service over several backends."""
    number = next(fresh)
    name, vip = f"many-{number}", f"10.4.{number // 200}.{1 + number % 200}"
    backends = tuple((host, 80, weight) for host, weight in weights.items())
    return Service(name, vip, 80, backends=backends, more={"scheduler": scheduler} | more)


def chosen(p: Play, of: Service, clients: list[tuple[str, int]]) -> list[Host]:
    """The backend that each client's SYN goes to; frames and counters are checked on the way."""
    by_ip = {host.ip: host for host in BACKENDS}
    choice: dict[tuple[str, int], Host] = {}
    for at in range(0, len(clients), AT_ONCE):
        part = clients[at : at + AT_ONCE]
        sent = {}
        for number, client in enumerate(part):
            # The sequence number tells which of them a frame is.
            syn = ether(ROUTER.mac, tcp(client, (of.vip, of.port), seq=number), dst=PORT_MACS[WAN])
            sent[number] = (client, syn)
            p.send(WAN, syn)
        for _ in part:
            seen = p.take(LAN)
            packet = frames.parse(seen)
            client, syn = sent.pop(packet["TCP"].seq)
            host = by_ip[packet["IP"].dst]
            local = (packet["IP"].src, packet["TCP"].sport)
            expected = frames.hop(syn, (host.mac, PORT_MACS[LAN]), local, (host.ip, 80))
            if seen != expected or local[1] < FIRST_LOCAL_PORT:
                raise Wrong(frames.difference(expected, seen))
            choice[client] = host
            p.forwards(of.name, f"{host.ip}:80", syn)
            p.conns(of.name, f"{host.ip}:80")
    return [choice[client] for client in clients]


def clients(many: int) -> list[tuple[str, int]]:
    """Clients behind the router, each with another address and port."""
    return [(f"198.51.{n // 200}.{1 + n % 200}", 10_000 + n) for n in range(many)]


@case(workers=(1,))
def wrr_is_exact_over_every_round(p: Play) -> None:
    many = service("wrr", WEIGHTS)
    p.apply([many])
    who = clients(200)
    for at in range(0, 200, 10):
        counts = Counter(chosen(p, many, who[at : at + 10]))
        if counts != Counter(WEIGHTS):
            raise Wrong(f"round {at // 10}: {counts}")
    p.apply()


@case(workers=(2,))
def wrr_on_two_workers_is_even_within_its_bound(p: Play) -> None:
    """Less than 2 N conns from what is due (`docs/configuration.md`)."""
    many = service("wrr", WEIGHTS)
    p.apply([many])
    picks = chosen(p, many, clients(400))
    counts = Counter(picks)
    for host, weight in WEIGHTS.items():
        if abs(counts[host] - 400 * weight / 10) >= 4:
            raise Wrong(f"{host.name}: {counts[host]} of {400 * weight / 10}")
    p.apply()


@case()
def wlc_is_even(p: Play) -> None:
    """Conns for their weight differ by at most N conns on N workers."""
    weights = {B1: 200, B2: 100, B3: 100}
    many = service("wlc", weights)
    p.apply([many])
    counts = Counter(chosen(p, many, clients(200)))
    loads = [counts[host] / (weight / 100) for host, weight in weights.items()]
    if max(loads) - min(loads) > p.lab.workers:
        raise Wrong(f"{counts}")
    p.apply()


@case()
def source_hash_keeps_a_client_with_its_backend(p: Play) -> None:
    many = service("source-hash", {host: 100 for host in BACKENDS})
    p.apply([many])
    sources = [address for address, _ in clients(40)]
    homes = chosen(p, many, [(source, 5_000) for source in sources])
    for port in (5_001, 60_000):
        again = chosen(p, many, [(source, port) for source in sources])
        if again != homes:
            raise Wrong("a client has another backend by another port")
    if len(set(homes)) < 4:
        raise Wrong(f"40 clients on {len(set(homes))} backends")
    p.apply()


@case()
def maglev_by_source_keeps_a_client_with_its_backend(p: Play) -> None:
    many = service("maglev", {host: 100 for host in BACKENDS}, hash_on="source")
    p.apply([many])
    sources = [address for address, _ in clients(40)]
    homes = chosen(p, many, [(source, 5_000) for source in sources])
    again = chosen(p, many, [(source, 5_001) for source in sources])
    if again != homes or len(set(homes)) < 4:
        raise Wrong("a client has another backend by another port")
    p.apply()


@case(wires=("tap",), workers=(1,))
def maglev_shares_by_weight_and_moves_few(p: Play) -> None:
    """Of four equal backends one goes: its clients move, and at most 2 % of the others."""
    all_four = {host: 100 for host in BACKENDS}
    many = service("maglev", all_four, hash_on="source", maglev_slots=65_537)
    who = clients(600)
    p.apply([many])
    before = chosen(p, many, who)
    counts = Counter(before)
    # 150 each, standard deviation 11: 5 of them.
    if any(abs(counts[host] - 150) > 55 for host in BACKENDS):
        raise Wrong(f"600 conns over four backends: {counts}")
    # By source the choice does not depend on the service: conns of the first do not matter.
    left = {host: 100 for host in BACKENDS if host is not B4}
    fewer = service("maglev", left, hash_on="source", maglev_slots=65_537)
    p.apply([fewer])
    after = chosen(p, fewer, who)
    moved = sum(a is not b for a, b in zip(before, after) if a is not B4)
    if moved > 12:
        raise Wrong(f"{moved} of {600 - counts[B4]} clients of other backends moved")
    p.apply()
