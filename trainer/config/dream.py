"""Which layers dream while a run trains, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.config.base import Section, at_least


@dataclass(frozen=True)
class DreamConfig(Section):
    """Pictures of what layers see, from noise, the same noise every time: one sees features form."""

    # Qualified names, with * and ? for many, or objectives, e.g. ["stage*_relu2", "class_logit(3)"]; []: none.
    layers: list[str] = field(default_factory=list)
    every_steps: int = 500  # steps of training between two pictures of each
    steps: int = 64  # of gradient ascent
    before_after: bool = False  # also before the first step and after the last, side by side on before_after.png
    size: int | None = None  # pixels a side; None: what the model was built for

    def problems(self) -> list[str]:
        """Return counts under one; whether the layers exist is known when the model is built."""
        return [
            *at_least("log.dream.every_steps", self.every_steps, 1, unit="step"),
            *at_least("log.dream.steps", self.steps, 1, unit="step"),
            *at_least("log.dream.size", self.size, 1, unit="pixel"),
        ]
