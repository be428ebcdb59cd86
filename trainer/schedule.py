"""A learning rate that warms up linearly and then decays; one formula, evaluated in the graph."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="nameplate")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The rate at a step: linear from 0 over `warmup_steps`, then by `decay` to `final * rate` over `decay_steps`.

    Decays: constant; linear; cosine (Loshchilov and Hutter, 2016, without restarts); exponential (geometric).
    """

    def __init__(self, *, rate: float, decay: str, warmup_steps: int, decay_steps: int, final: float) -> None:
        self.rate, self.decay, self.final = rate, decay, final
        self.warmup_steps, self.decay_steps = warmup_steps, decay_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0; a float32 scalar."""
        step = ops.cast(step, "float32")
        warm = ops.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0) if self.warmup_steps else 1.0
        done = ops.clip((step - self.warmup_steps) / self.decay_steps, 0.0, 1.0)
        return self.rate * warm * self._left(done)

    def _left(self, done: Any) -> Any:
        """Return the fraction of the full rate when `done`, 0 to 1, of the decay is behind."""
        match self.decay:
            case "linear":
                return 1.0 - (1.0 - self.final) * done
            case "cosine":
                return self.final + (1.0 - self.final) * 0.5 * (1.0 + ops.cos(math.pi * done))
            case "exponential":
                return ops.exp(math.log(self.final) * done)
        return ops.ones_like(done)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        keys = ("rate", "decay", "warmup_steps", "decay_steps", "final")
        return {key: getattr(self, key) for key in keys}
