"""Before the first case: every next hop is known, and the usual services stand."""

from __future__ import annotations

from conn import Conn
from play import Play, arp_request
from world import BACKENDS, CLIENT, CLIENT2, FAR, GATEWAY, LAN, REMOTE, ROUTER, WAN, Host, Service


def resolve_all(p: Play) -> None:
    """Every host is asked for by broadcast once, and answers; the first packet waits for it."""
    backends = (*BACKENDS, FAR)
    services = [
        Service(f"warm-{host.name}", f"10.1.0.{110 + n}", 80, backends=((host, 80, 100),))
        for n, host in enumerate(backends)
    ]
    p.apply(services)
    clients: dict[int, tuple[Host, Host]] = {
        0: (CLIENT, CLIENT),
        1: (CLIENT2, CLIENT2),
        4: (REMOTE, ROUTER),
    }
    for number, service in enumerate(services):
        client, next_hop = clients.get(number, (CLIENT, CLIENT))
        conn = Conn(p, service, client)
        syn = conn.segment("S")
        p.send(WAN, syn)
        p.resolves(LAN, (GATEWAY if conn.backend is FAR else conn.backend).ip)
        conn.learn_local(p.take(LAN), syn)
        p.forwards(service.name, conn.name, syn)
        conn.is_made()
        p.count(tables__neighbours=1)
        is_neighbour = number in clients and client is next_hop
        if is_neighbour:
            # A neighbour is asked for where its packet came from, before the answer needs it.
            p.sees(WAN, arp_request(WAN, client.ip, client.mac))
            p.answer(WAN, client.ip)
            p.knows(client.ip, client.mac)
        if number in clients:
            syn_ack = conn.segment("SA", back=True)
            p.send(LAN, syn_ack)
            if not is_neighbour:
                p.resolves(WAN, next_hop.ip)
            p.sees(WAN, conn.forwarded(syn_ack, back=True))
            p.forwards(service.name, conn.name, syn_ack, back=True)
            p.count(tables__neighbours=1)
    p.finish()
    p.apply()
