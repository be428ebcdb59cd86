"""What a run tells to whoever watches it: plain numbers at its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Record:
    """What was measured up to a step."""

    step: int  # steps done, over the whole run
    epoch: int  # index of the epoch that the step belongs to
    values: Mapping[str, float]  # metrics since the epoch's beginning, and what concerns the step
    of_epoch: bool  # the epoch is complete, validation included


@dataclass(frozen=True)
class Journey:
    """How far a run has to go."""

    first_step: int  # steps done before this process began
    total_steps: int  # steps of the whole run
    steps_per_epoch: int


class Observer:
    """Told what happens; each method does nothing until a subclass says otherwise."""

    every_steps: int | None = None  # so often `advanced` is told of just that step, not only of those between calls
    at_steps: Sequence[int] = ()  # and at these; known when `began` has returned

    def began(self, model: keras.Model, journey: Journey) -> None:
        """Hear that training begins or goes on."""

    def advanced(self, step: int) -> None:
        """Hear that the run has come to this step; nothing was measured."""

    def recorded(self, record: Record) -> None:
        """Hear what was measured."""

    def ended(self) -> None:
        """Hear that this process trains no more, however it came to its end."""
