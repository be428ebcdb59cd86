"""The plan of a training: its length, its epochs, and what happens when."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nameplate.data.batches import Epochs


@dataclass(frozen=True)
class Plan:
    """How far to train, and what happens when."""

    total_steps: int  # over the whole run
    epochs: Epochs
    examples_per_pass: int  # over the data
    global_batch: int  # examples a step
    validate_every: int | Collection[int] = 1  # epochs; or after which, counted from 1
    validate_last: bool = True  # whatever `validate_every` says
    record_every: int = 50  # steps
    steps_per_loop: int | None = None  # at most so many steps a call; None: as many as take about half a second
    steps_per_hook: int = 1  # steps between two calls of a callback's hooks of batches
    ends_at_nan: bool = True  # False: a loss that is NaN does not end the training, as in Keras
    max_rollbacks: int = 0  # how often NaN takes the run back to the last good checkpoint before it ends it

    def validates(self, epoch: int, *, last: bool, complete: bool) -> bool:
        """Say whether to validate at the end of an epoch, the run's last or one that has all its steps."""
        if self.validate_last and (last or not complete):
            return last
        every = self.validate_every
        return (epoch + 1) % every == 0 if isinstance(every, int) else epoch + 1 in every

    def examples(self, step: int) -> int:
        """Return the examples trained on in the first `step` steps; the last step of a pass has fewer than others."""
        passes, within = divmod(step, self.epochs.pass_steps)
        return passes * self.examples_per_pass + min(within * self.global_batch, self.examples_per_pass)
