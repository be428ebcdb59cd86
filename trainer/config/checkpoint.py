"""When a run saves, and what it keeps."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from trainer.config.base import Section, at_least


class Mode(enum.StrEnum):
    """Which way a measured value improves."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    auto = "auto"  # max for accuracies and the like, min otherwise
    min = "min"
    max = "max"


class Export(enum.StrEnum):
    """Which model is also written as Keras saves it."""

    best = "best"  # to best.keras in the run's directory, when the run is done


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """When to save, what to keep, and what counts as best."""

    every_steps: int | None = None  # save each so many steps; None: at epochs only
    every_epochs: int | None = 1  # save at the end of each so many epochs; None: at steps only
    keep_last: int = 3  # the newest checkpoints that stay
    keep_best: int = 1  # the best checkpoints that stay beside them
    keep_every: int | None = None  # steps: multiples of this stay for ever
    monitor: str | None = None  # the value that decides what is best; None: chosen from what is measured
    mode: Mode = Mode.auto
    export_keras: Export | None = None  # best: the best model also as best.keras, proved by loading it
    async_save: bool = False  # write in the background; training waits only for the copy to host memory

    def problems(self) -> list[str]:
        """Return intervals and counts that would lose what was trained."""
        found = at_least("checkpoint.every_steps", self.every_steps, 1, unit="step")
        found += at_least("checkpoint.every_epochs", self.every_epochs, 1, unit="epoch")
        found += at_least("checkpoint.keep_last", self.keep_last, 1, unit="checkpoint, the one to resume from")
        found += at_least("checkpoint.keep_best", self.keep_best, 0)
        found += at_least("checkpoint.keep_every", self.keep_every, 1, unit="step")
        return found

    def improves_upwards(self, monitor: str) -> bool:
        """Say whether a greater value of `monitor` is a better one."""
        if self.mode is not Mode.auto:
            return self.mode is Mode.max
        return any(word in monitor for word in ("acc", "auc", "precision", "recall", "r2", "iou", "f1"))
