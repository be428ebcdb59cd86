"""Contenders timed in turn, so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

Run = Callable[[int], object]  # train so many steps, or epochs


@dataclass(frozen=True)
class Taken:
    """How long something took."""

    wall: float  # seconds
    cpu: float  # seconds, of all threads of the process

    def least(self, other: Taken) -> Taken:
        """Return the lesser of both times."""
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
    """Return the least time of each contender over the rounds; where `warm`, a first round is not counted.

    A contender may return the time that it measured itself.
    """
    found: dict[str, Taken] = {}
    for turn in range(rounds + warm):
        for name, run in contenders.items():
            measured = _measured(run)
            if turn >= warm:
                found[name] = measured.least(found.get(name, measured))
    return found


def marginal(contenders: Mapping[str, Run], *, few: int, many: int, rounds: int) -> dict[str, Taken]:
    """Return what one more step costs each contender: a long run less a short one, so that what is fixed falls out."""
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
