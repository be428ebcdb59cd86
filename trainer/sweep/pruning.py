"""Jobs that are stopped early because others did better at the same epoch: two rules over the metrics of all jobs.

The metrics are in the `metrics.jsonl` that every job writes anyway; so the rules work under every launcher and sampler,
and also for jobs of earlier calls. A job that was stopped early counts as done with its best value so far, and resumes
from its checkpoint when the sweep is called without a rule.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from nameplate.training.monitor import default_monitor
from nameplate.training.observers import Observer, Record
from trainer.config.run_config import PruneConfig, PruneRule, RunConfig
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import PrunedError


def is_worse(own: float, others: Sequence[float], epochs: int, prune: PruneConfig, *, upwards: bool) -> bool:
    """Say whether a job whose best value after `epochs` is `own` is to be stopped."""
    if epochs < prune.after_epochs or len(others) < prune.after_jobs:
        return False
    sign = -1.0 if upwards else 1.0
    mine, theirs = sign * own, sorted(sign * value for value in others)
    if prune.rule is PruneRule.median:
        return mine > statistics.median(theirs)
    if not _is_rung(epochs, prune):
        return False
    survive = max(1, (len(theirs) + 1) // prune.factor)
    return sum(value < mine for value in theirs) >= survive


def best_by(home: Path, monitor: str, epochs: int, *, upwards: bool) -> float | None:
    """Return the best value of a job after this number of epochs; None if it has not come that far.

    If no value is finite, the worst possible value.
    """
    by_epoch = dict(_reported(home / "metrics.jsonl", monitor))
    if not any(epoch >= epochs - 1 for epoch in by_epoch):
        return None
    values = [value for epoch, value in by_epoch.items() if epoch < epochs and math.isfinite(value)]
    if not values:
        return -math.inf if upwards else math.inf
    return max(values) if upwards else min(values)


def _is_rung(epochs: int, prune: PruneConfig) -> bool:
    rung = prune.after_epochs
    while rung < epochs:
        rung *= prune.factor
    return rung == epochs


def _reported(path: Path, monitor: str) -> Iterator[tuple[int, float]]:
    """Yield (epoch, value) of every complete epoch."""
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
            continue  # the last line, if the job was killed while writing it


def pruners(config: RunConfig, ledger: Ledger) -> list[Observer]:
    """Return the observers that stop a job early; none if no rule is configured."""
    return [] if config.sweep.prune.rule is None else [Pruner(config, ledger)]


class Pruner(Observer):
    """Compares a job with the others at the end of every epoch, in the job's own process."""

    def __init__(self, config: RunConfig, ledger: Ledger) -> None:
        assert config.run is not None
        self._prune, self._checkpoint = config.sweep.prune, config.checkpoint
        self._ledger, self._job = ledger, config.run

    def recorded(self, record: Record) -> None:
        """Raise `PrunedError` if the rule says so; the values of this epoch are already written."""
        if not record.of_epoch:
            return
        monitor = self._checkpoint.monitor or default_monitor(record.values)
        epochs, upwards = record.epoch + 1, self._checkpoint.improves_upwards(monitor)
        own = best_by(self._ledger.home(self._job), monitor, epochs, upwards=upwards)
        others = [
            value
            for job in self._ledger.jobs()
            if job != self._job
            and (value := best_by(self._ledger.home(job), monitor, epochs, upwards=upwards)) is not None
        ]
        if own is None or not is_worse(own, others, epochs, self._prune, upwards=upwards):
            return
        raise PrunedError(
            f"stopped early after epoch {epochs}: {monitor} {own:.4g} is too far behind {len(others)} other jobs "
            f"(sweep.prune.rule={self._prune.rule})",
            {
                "monitor": monitor,
                "upwards": upwards,
                "best": own,
                "values": {name: float(value) for name, value in record.values.items()},
                "steps": record.step,
                "error": None,
            },
        )
