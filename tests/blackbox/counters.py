"""All counters of the data plane as one flat table, and what must always hold among them."""

from __future__ import annotations

from collections import Counter
from typing import Any

# Of a worker: which worker it was is not the business of a case.
WORKER = ("rx_packets", "tx_packets", "handed_over", "to_kernel", "dropped")
WORKER += ("conns", "conns_created", "conns_expired")
PORT = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "rx_missed", "rx_errors")
PORT += ("rx_no_mbuf", "tx_errors", "mis_steered")
TRAFFIC = ("packets_in", "bytes_in", "packets_out", "bytes_out", "conns_created", "conns")
# Gauges that follow from others, or that move by themselves.
NOT_COMPARED = ("mbufs", "services", "backends")


def flatten(stats: dict[str, Any]) -> Counter[str]:
    """`Stats` of `dataplane/api/src/stats.rs`, as `workers.rx_packets`, `drops.no_conn`, …"""
    flat: Counter[str] = Counter()
    for worker in stats["workers"]:
        for name in WORKER:
            flat[f"workers.{name}"] += worker[name]
    for port in stats["ports"]:
        for name in PORT:
            flat[f"ports.{port['name']}.{name}"] = port[name]
    for service in stats["services"]:
        for name in TRAFFIC:
            flat[f"services.{service['name']}.{name}"] = service[name]
        for backend in service["backends"]:
            for name in TRAFFIC:
                key = f"services.{service['name']}.{backend['address']}:{backend['port']}.{name}"
                flat[key] = backend[name]
    for table in stats["tables"]:
        name = table["table"]
        if name not in NOT_COMPARED and not name.startswith("local_ports/"):
            flat[f"tables.{name}"] = table["used"]
    for reason, count in stats["drops"].items():
        flat[f"drops.{reason}"] = count
    return flat


def changes(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """What is not as it was."""
    return {k: after[k] - before[k] for k in sorted({*before, *after}) if after[k] != before[k]}


def contradictions(stats: dict[str, Any]) -> list[str]:
    """Counters that cannot all be true."""
    flat = flatten(stats)
    conns = flat["workers.conns"]
    by_service = sum(service["conns"] for service in stats["services"])
    ended = flat["workers.conns_created"] - flat["workers.conns_expired"]
    found = []
    if not conns == ended == flat["tables.conns"] or by_service > conns:
        found.append(f"{conns} conns, created less expired {ended}, table {flat['tables.conns']}")
    for table in stats["tables"]:
        if table["used"] > table["capacity"]:
            found.append(f"table {table['table']} has {table['used']} of {table['capacity']}")
    return found
