"""What turns gradients into updates, and how large a step is at each time."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from trainer.config.base import Section, above, at_least


class Precision(enum.StrEnum):
    """The dtype policy of the model: float32 variables always, computations in this."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """What all optimizers have in common; the subclasses add what is theirs."""

    learning_rate: float = 1e-3  # at its highest; the schedule goes from there
    rates: dict[str, float] = field(default_factory=dict)  # others by pattern, e.g. {backbone: 1e-4}
    weight_decay: float | None = None  # decoupled, as a fraction of the weight a unit of learning rate
    clipnorm: float | None = None  # each gradient's L2 norm at most
    global_clipnorm: float | None = None  # the L2 norm of all gradients together at most
    clipvalue: float | None = None  # each component's absolute value at most
    ema_momentum: float | None = None  # validate and save a moving average of the weights with this momentum, 0 to 1

    def problems(self) -> list[str]:
        """Return rates and bounds that no training can use."""
        found = above("optimizer.learning_rate", self.learning_rate, 0)
        for pattern, rate in self.rates.items():
            found += [
                f"{each}; init.freeze=[{pattern}] keeps layers from training"
                for each in above(f"optimizer.rates.{pattern}", rate, 0)
            ]
        clips = {
            f"optimizer.{key}": getattr(self, key)
            for key in ("clipnorm", "global_clipnorm", "clipvalue")
            if getattr(self, key) is not None
        }
        for key, value in clips.items():
            found += above(key, value, 0)
        if len(clips) > 1:
            found.append(f"{', '.join(clips)}: at most one way of clipping at a time; set the others to null")
        found += at_least("optimizer.weight_decay", self.weight_decay, 0)
        if self.ema_momentum is not None and not 0 <= self.ema_momentum < 1:
            found.append(f"optimizer.ema_momentum: {self.ema_momentum} is not in [0, 1)")
        return found


@dataclass(frozen=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    learning_rate: float = 1e-1
    momentum: float = 0.9  # 0: plain gradient descent
    nesterov: bool = False


@dataclass(frozen=True)
class AdamConfig(OptimizerConfig):
    """Adam (Kingma and Ba, 2014)."""

    beta_1: float = 0.9  # decay of the mean of gradients
    beta_2: float = 0.999  # decay of the mean of squared gradients
    epsilon: float = 1e-7
    amsgrad: bool = False


@dataclass(frozen=True)
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2017)."""

    weight_decay: float | None = 4e-3


@dataclass(frozen=True)
class RmsPropConfig(OptimizerConfig):
    """RMSprop (Hinton, 2012)."""

    rho: float = 0.9  # decay of the mean of squared gradients
    momentum: float = 0.0
    epsilon: float = 1e-7


@dataclass(frozen=True)
class LionConfig(OptimizerConfig):
    """Lion (Chen et al., 2023)."""

    learning_rate: float = 1e-4
    beta_1: float = 0.9
    beta_2: float = 0.99


OPTIMIZER_SCHEMAS: dict[str, type[OptimizerConfig]] = {
    "sgd": SgdConfig,
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "rmsprop": RmsPropConfig,
    "lion": LionConfig,
}


class Decay(enum.StrEnum):
    """The shape of the learning rate over a run, after its warm-up."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    constant = "constant"
    cosine = "cosine"
    linear = "linear"
    exponential = "exponential"


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """The learning rate over the steps of a run: a linear warm-up, then a decay."""

    decay: Decay = Decay.constant
    warmup_steps: int = 0  # steps from zero to the full rate
    decay_steps: int | None = None  # steps from the full to the final rate; None: what is left of the run
    final: float = 0.0  # the last rate, as a fraction of the full one

    def problems(self) -> list[str]:
        """Return step counts and fractions outside their ranges."""
        found = at_least("schedule.warmup_steps", self.warmup_steps, 0, unit="steps")
        found += at_least("schedule.decay_steps", self.decay_steps, 1, unit="step")
        if not 0 <= self.final <= 1:
            found.append(f"schedule.final: {self.final} is not a fraction of the full rate, 0 to 1")
        if self.decay is Decay.exponential and self.final == 0:
            found.append("schedule.final: an exponential decay never reaches 0; e.g. schedule.final=0.01")
        return found
