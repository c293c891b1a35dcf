"""All counters of the data plane as one flat table, and what must always hold among them."""

from __future__ import annotations

from collections import Counter
from typing import Any

# What moves by itself, or follows from others; all else is compared, also what is added some day.
BY_ITSELF = {
    "workers": {"worker", "busy_polls", "idle_polls", "stuck_ms", "stalls", "stalled_ms"},
    "tables": {"mbufs", "services", "backends"},
    "services": {"port", "max_conns"},
    "ports": {"port"},
}


def flatten(stats: dict[str, Any]) -> Counter[str]:
    """`Stats` of `dataplane/api/src/stats.rs`, as `workers.rx_packets`, `drops.no_conn`, …; which
    worker it was is not the business of a case."""
    flat: Counter[str] = Counter()
    for worker in stats["workers"]:
        _add(flat, "workers", "workers", worker)
    for port in stats["ports"]:
        _add(flat, f"ports.{port['name']}", "ports", port)
    for service in stats["services"]:
        name = f"services.{service['name']}"
        _add(flat, name, "services", service)
        for backend in service["backends"]:
            _add(flat, f"{name}.{backend['address']}:{backend['port']}", "services", backend)
    for table in stats["tables"]:
        name = table["table"]
        if name not in BY_ITSELF["tables"] and not name.startswith("local_ports/"):
            flat[f"tables.{name}"] = table["used"]
    for reason, count in stats["drops"].items():
        flat[f"drops.{reason}"] = count
    return flat


def _add(flat: Counter[str], prefix: str, kind: str, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if type(value) is int and name not in BY_ITSELF[kind]:
            flat[f"{prefix}.{name}"] += value


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
    # Those that only rest, for their local ports' sake, stand in no table and with no service.
    if conns != ended or not by_service <= flat["tables.conns"] <= conns:
        found.append(f"{conns} conns, created less expired {ended}, table {flat['tables.conns']}")
    for table in stats["tables"]:
        if table["used"] > table["capacity"]:
            found.append(f"table {table['table']} has {table['used']} of {table['capacity']}")
    return found
