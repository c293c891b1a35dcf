"""The table of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from play import Play

Body = Callable[[Play], None]


@dataclass(frozen=True)
class Case:
    """Frames in, frames out, counters; by name."""

    name: str
    play: Body
    # Where its right values come from, when that is not the documentation.
    expected_from: str | None
    # Wires and numbers of workers that it can be played over.
    wires: tuple[str, ...]
    workers: tuple[int, ...]


ALL: dict[str, Case] = {}


def add(
    name: str,
    play: Body,
    expected_from: str | None = None,
    wires: tuple[str, ...] = ("af_xdp", "tap"),
    workers: tuple[int, ...] = (1, 2),
) -> None:
    """Put a case into the table."""
    assert name not in ALL, name
    ALL[name] = Case(name, play, expected_from, wires, workers)


def case(
    expected_from: str | None = None,
    wires: tuple[str, ...] = ("af_xdp", "tap"),
    workers: tuple[int, ...] = (1, 2),
) -> Callable[[Body], Body]:
    """Put a function into the table under its own name."""

    def put(play: Body) -> Body:
        add(play.__name__, play, expected_from, wires, workers)
        return play

    return put
