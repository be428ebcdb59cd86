"""Jobs that are given up early, because others did better at the same epoch: two rules over what all have reported.

A job reports by its `metrics.jsonl`, which it writes anyway; so the rules work under every launcher and sampler, and
for jobs of earlier calls too. A job that was given up counts as done with the best value that it had, and goes on
from its checkpoint once no rule is asked for.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nameplate.errors import NameplateError
from trainer.config.sweep_config import PruneConfig, PruneRule


class PrunedError(NameplateError):
    """A job that is not worth its rest; `reached` is what its record says of it."""

    def __init__(self, reason: str, reached: Mapping[str, Any]) -> None:
        self.reached = reached
        super().__init__(reason)


def is_worse(own: float, others: Sequence[float], epochs: int, prune: PruneConfig, *, upwards: bool) -> bool:
    """Say whether a job with the best value `own` by this number of epochs is to be given up."""
    if epochs < prune.after_epochs or len(others) < prune.after_jobs:
        return False
    sign = -1.0 if upwards else 1.0
    mine, theirs = sign * own, sorted(sign * each for each in others)
    if prune.rule is PruneRule.median:
        return mine > statistics.median(theirs)
    if not _is_rung(epochs, prune):
        return False
    survive = max(1, (len(theirs) + 1) // prune.factor)
    return sum(each < mine for each in theirs) >= survive


def best_by(home: Path, monitor: str, epochs: int, *, upwards: bool) -> float | None:
    """Return the best value that a job had measured by the end of so many epochs, None where it is not as far.

    A value that is not finite counts as the worst there is.
    """
    found = dict(_reported(home / "metrics.jsonl", monitor))
    if not any(epoch >= epochs - 1 for epoch in found):
        return None
    values = [value for epoch, value in found.items() if epoch < epochs and math.isfinite(value)]
    if not values:
        return -math.inf if upwards else math.inf
    return max(values) if upwards else min(values)


def _is_rung(epochs: int, prune: PruneConfig) -> bool:
    rung = prune.after_epochs
    while rung < epochs:
        rung *= prune.factor
    return rung == epochs


def _reported(path: Path, monitor: str) -> Iterator[tuple[int, float]]:
    """Yield (epoch, value) of every epoch that is complete."""
    if not path.is_file():
        return
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            record = json.loads(line)
            if record["kind"] == "epoch" and monitor in record:
                yield int(record["epoch"]), float(record[monitor])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # the last line of a job that was killed
