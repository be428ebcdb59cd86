"""In a job's process: compared with the others at the end of every epoch, and given up where a rule says so."""

from __future__ import annotations

from nameplate.training.monitor import most_telling
from nameplate.training.observers import Observer, Record
from trainer.config.run_config import RunConfig
from trainer.ledger.ledger import Ledger
from trainer.ledger.pruning import PrunedError, best_by, is_worse


def pruners(config: RunConfig, ledger: Ledger) -> list[Observer]:
    """Return the observers that give a job up, none where no rule is asked for."""
    return [] if config.sweep.prune.rule is None else [Pruner(config, ledger)]


class Pruner(Observer):
    """Compares a job with the others at the end of every epoch."""

    def __init__(self, config: RunConfig, ledger: Ledger) -> None:
        assert config.run is not None
        self._prune, self._checkpoint, self._ledger, self._job = (
            config.sweep.prune,
            config.checkpoint,
            ledger,
            config.run,
        )

    def recorded(self, record: Record) -> None:
        """Raise `PrunedError` where the rule says so; the values of this epoch are written already."""
        if not record.of_epoch:
            return
        monitor = self._checkpoint.monitor or most_telling(record.values)
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
            f"given up after epoch {epochs}: {monitor} {own:.4g} is too far from those of {len(others)} other jobs "
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
