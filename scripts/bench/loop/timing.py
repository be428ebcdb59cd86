"""Contenders timed in turn, so that other load on the machine disturbs all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

Run = Callable[[int], object]  # trains this many steps, or epochs


@dataclass(frozen=True)
class Taken:
    """The time that something took."""

    wall: float  # seconds
    cpu: float  # seconds, all threads of the process

    def least(self, other: Taken) -> Taken:
        """Return the minimum of both times."""
        return Taken(min(self.wall, other.wall), min(self.cpu, other.cpu))

    def plain(self) -> dict[str, float]:
        """Return milliseconds, for a file."""
        return {"wall_ms": round(1000 * self.wall, 4), "cpu_ms": round(1000 * self.cpu, 4)}


def taken(run: Callable[[], object]) -> Taken:
    """Return how long a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu)


def best(contenders: Mapping[str, Callable[[], Any]], *, rounds: int, warm: bool = True) -> dict[str, Taken]:
    """Return the minimum time of each contender over the rounds; with `warm`, after a warm-up round.

    A contender may return the time that it measured itself.
    """
    times: dict[str, Taken] = {}
    for turn in range(rounds + warm):
        for name, run in contenders.items():
            measured = _measured(run)
            if turn >= warm:
                times[name] = measured.least(times.get(name, measured))
    return times


def marginal(contenders: Mapping[str, Run], *, few: int, many: int, rounds: int) -> dict[str, Taken]:
    """Return the cost of one more step: a long run minus a short one, so that fixed costs cancel."""
    both = {f"{name}:{count}": partial(run, count) for name, run in contenders.items() for count in (few, many)}
    times = best(both, rounds=rounds)
    return {name: _per_step(times[f"{name}:{few}"], times[f"{name}:{many}"], many - few) for name in contenders}


def _measured(run: Callable[[], Any]) -> Taken:
    gc.collect()
    own: list[Any] = []
    whole = taken(lambda: own.append(run()))
    return own[0] if isinstance(own[0], Taken) else whole


def _per_step(short: Taken, long: Taken, steps: int) -> Taken:
    return Taken((long.wall - short.wall) / steps, (long.cpu - short.cpu) / steps)
