"""Play all cases against the real data plane: `scripts/test-blackbox`."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path

import all_cases
import warm_up
from cases import ALL, Case
from lab import WIRES, Lab
from pending import PENDING
from play import PATIENCE_S, Play, Wrong

# Wire and number of workers. A veth has one queue under AF_XDP: one worker.
LABS = (("af_xdp", 1), ("tap", 1), ("tap", 2))


class Tally:
    """What became of the cases."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self.landed: set[str] = set()


def main() -> int:
    """The exit status."""
    arguments = read_arguments()
    if arguments.list:
        for case in ALL.values():
            note = f"pending: {PENDING[case.name]}" if case.name in PENDING else ""
            print(f"{case.name:60} {case.expected_from or '':12} {note}".rstrip())
        return 0
    unknown = set(PENDING) - set(ALL)
    assert not unknown, f"pending, but no case: {unknown}"
    chosen = [c for c in ALL.values() if re.search(arguments.only, c.name)]
    if not chosen:
        print(f"no case has {arguments.only!r} in its name: see --list", file=sys.stderr)
        return 2
    if not binary().is_file():
        print(f"{binary()} is not there: scripts/test-blackbox builds it", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    tally = Tally()
    for wire, workers in LABS:
        if arguments.wire in (None, wire) and arguments.workers in (None, workers):
            play_over(wire, workers, chosen, tally)
    report(tally, chosen)
    return 1 if tally.failed else 0


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="test-blackbox", description=__doc__)
    help_only = "cases whose name this regular expression finds"
    parser.add_argument("--only", metavar="NAME", default="", help=help_only)
    parser.add_argument("--list", action="store_true", help="name all cases")
    parser.add_argument("--wire", choices=WIRES, help="over these wires only")
    parser.add_argument("--workers", type=int, choices=(1, 2), help="with so many workers only")
    return parser.parse_args()


def binary() -> Path:
    """The data plane to try."""
    return Path(os.environ.get("SLUICE_BIN_DIR", "target/release")) / "sluice-dataplane"


def play_over(wire: str, workers: int, chosen: list[Case], tally: Tally) -> None:
    """Play the cases over one kind of wire."""
    start = time.monotonic()
    where = f"{wire}, {workers} worker{'s' if workers > 1 else ''}"
    here = [c for c in chosen if wire in c.wires and workers in c.workers]
    tally.skipped += [f"{c.name} ({where}): not for it" for c in chosen if c not in here]
    with Lab(binary(), wire, workers) as lab:
        p = Play(lab)
        warm_up.resolve_all(p)
        for case in here:
            play_one(p, case, where, tally)
        status = lab.stop()
        if status != 0:
            tally.failed.append(f"the data plane ended with status {status} ({where})")
    print(f"-- {where}: {len(here)} cases in {time.monotonic() - start:.1f} s", flush=True)


def play_one(p: Play, case: Case, where: str, tally: Tally) -> None:
    """Play a case, and tell what became of it."""
    start = time.monotonic()
    p.begin()
    # What does not come is not waited for long where that is known.
    p.patience_s = 0.4 if case.name in PENDING else PATIENCE_S
    problem = None
    try:
        case.play(p)
        p.finish()
    except Wrong as error:
        problem = str(error)
    except Exception:
        problem = traceback.format_exc()
    name = f"{case.name} ({where})"
    if problem is not None:
        p.lab.check_alive()
        p.recover()
    if problem is None:
        tally.passed += 1
        if case.name in PENDING:
            tally.landed.add(case.name)
    elif case.name in PENDING:
        tally.skipped.append(f"{name}: pending")
    else:
        tally.failed.append(name)
        print(f"FAILED: {name}\n{problem}\n", flush=True)
    took = time.monotonic() - start
    if took > 2 or os.environ.get("BLACKBOX_TIMES"):
        print(f"-- {name} took {took:.2f} s", flush=True)


def report(tally: Tally, chosen: list[Case]) -> None:
    """The end."""
    for name in (case.name for case in chosen if case.name in PENDING):
        if name in tally.landed:
            print(f"pending: {name} passes here: take it out of tests/blackbox/pending.py?")
        else:
            print(f"pending: {name}: {PENDING[name]}")
    for name in tally.failed:
        print(f"FAILED: {name}")
    counts = (tally.passed, len(tally.failed), len(tally.skipped))
    print("%d passed, %d failed, %d skipped" % counts)


if __name__ == "__main__":
    assert all_cases
    sys.exit(main())
