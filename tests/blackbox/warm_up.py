"""Before the first case: every next hop is known, and the usual services stand."""

from __future__ import annotations

from conn import Conn
from play import Play, arp_request
from world import BACKENDS, CLIENT, CLIENT2, FAR, GATEWAY, LAN, REMOTE, ROUTER, WAN, Host, Service


def resolve_all(p: Play) -> None:
    """Every host is asked for by broadcast once, and answers."""
    backends = (*BACKENDS, FAR)
    services = [
        Service(f"warm-{host.name}", f"10.1.0.{110 + n}", 80, backends=((host, 80, 100),))
        for n, host in enumerate(backends)
    ]
    p.apply(services)
    # Asked for before anybody sends to them, each once, whoever is behind it.
    next_hops = [host.ip for host in (*BACKENDS, GATEWAY)]
    p.sees_all(LAN, [arp_request(LAN, address) for address in next_hops])
    for address in next_hops:
        p.answer(LAN, address)
        p.knows(address, p.macs[LAN, address])
    p.ignore("tables.neighbours")
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
        conn.learn_local(p.take(LAN), syn)
        p.forwards(service.name, conn.name, syn)
        conn.is_made()
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
    p.finish()
    p.apply()
