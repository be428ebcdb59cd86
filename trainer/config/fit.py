"""How long and in which portions a run trains."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from trainer.config.base import Section, at_least
from trainer.config.optimizer import Precision


class OnNan(enum.StrEnum):
    """What a run does when its loss, or a weight, is no longer a finite number."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    stop = "stop"  # end with a code of its own
    rollback = (
        "rollback"  # go back to the last good checkpoint and pass over the data from there to the step that failed
    )


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stop when a measured value no longer improves."""

    monitor: str | None = None  # e.g. val_loss; None: never stop early
    patience: int = 5  # validations without improvement
    min_delta: float = 0.0  # what counts as improvement
    restore_best: bool = True  # end with the weights of the best epoch


@dataclass(frozen=True)
class FitConfig(Section):
    """The length of a run and the size of its steps."""

    epochs: int = 10  # passes over the training data
    steps: int | None = None  # end after this many steps in all, whatever `epochs` says
    global_batch: int = 64  # examples a step, over all replicas together
    validation_batch: int | None = None  # examples an evaluation step, over all replicas; None: global_batch
    validate_every: int = 1  # epochs between validations
    steps_per_loop: int | None = None  # steps in the graph between two looks from outside; None: chosen
    precision: Precision = Precision.float32
    xla: bool = False  # compile each replica's forward and backward pass; random layers then draw other numbers
    on_nan: OnNan = OnNan.stop  # NaN or infinite loss or weights: stop, or rollback
    max_rollbacks: int = 3  # of one run, over all its resumes; then it stops
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)

    def problems(self) -> list[str]:
        """Return lengths and sizes that no run can have."""
        found = at_least("fit.epochs", self.epochs, 1, unit="epoch")
        found += at_least("fit.steps", self.steps, 1, unit="step")
        found += at_least("fit.global_batch", self.global_batch, 1, unit="example")
        found += at_least("fit.validation_batch", self.validation_batch, 1, unit="example")
        found += at_least("fit.validate_every", self.validate_every, 1, unit="epoch")
        found += at_least("fit.steps_per_loop", self.steps_per_loop, 1, unit="step")
        found += at_least("fit.max_rollbacks", self.max_rollbacks, 1, unit="rollback; fit.on_nan=stop makes none")
        return found + at_least("fit.early_stopping.patience", self.early_stopping.patience, 0)
