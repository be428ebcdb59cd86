"""What a run shows and records."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.config.base import Section, at_least
from trainer.config.dream import DreamConfig


@dataclass(frozen=True)
class LogConfig(Section):
    """Where the numbers of a run go, and how often."""

    every_steps: int = 50  # steps between two records of the training metrics
    tensorboard: bool = True  # event files under the run, in tensorboard/
    histograms_every: int | None = 1  # epochs between histograms of every weight; None: none
    layer_table: bool = True  # print the layers and their names before training
    profile_steps: int | None = None  # record TensorFlow's profile of so many steps; None: of none
    profile_after: int = 10  # steps of this process before them; the first ones trace and compile
    dream: DreamConfig = field(default_factory=DreamConfig)  # what layers see while they learn

    def problems(self) -> list[str]:
        """Return intervals under one."""
        return [
            *at_least("log.every_steps", self.every_steps, 1, unit="step"),
            *at_least("log.histograms_every", self.histograms_every, 1, unit="epoch"),
            *at_least("log.profile_steps", self.profile_steps, 1, unit="step"),
            *at_least("log.profile_after", self.profile_after, 0, unit="steps"),
            *self.dream.problems(),
        ]
