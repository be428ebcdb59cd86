"""The sections of a run for its devices, its optimizer and its schedule."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from nameplate.naming.keras_objects import OPTIMIZERS, SCHEDULES, TARGET, Kind
from nameplate.section import Section, above, at_least

MISSING = "???"  # what OmegaConf calls a value that has to be given


class StrategyKind(enum.StrEnum):
    """How replicas are placed on devices."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    auto = "auto"  # every GPU; CPU replicas if there is none
    mirrored = "mirrored"  # one replica per GPU
    cpu_replicas = "cpu_replicas"  # logical CPU devices, for tests and first tries
    single = "single"  # one device, no replication
    multi_worker = "multi_worker"  # several processes, one replica per GPU; on the CPU without GPUs


@dataclass(frozen=True)
class StrategyConfig(Section):
    """The devices of a run and how they share its work."""

    kind: StrategyKind = StrategyKind.auto  # which devices, and in how many processes
    replicas: int | None = None  # over all workers; None: one per chosen GPU, or two on the CPU (one per worker)
    gpus: list[int] | None = None  # indices of the GPUs to use; None: all
    memory_growth: bool = True  # take GPU memory as it is needed, not all at once
    start_timeout: float = 300.0  # seconds that workers wait for each other before they give up
    sync_batch_norm: bool = True  # batch statistics over the global batch, not over each replica's share

    def problems(self) -> list[str]:
        """Return settings that contradict each other. Whether the devices exist is checked when the run starts."""
        problems = at_least("strategy.replicas", self.replicas, 1)
        if self.gpus is not None and len(set(self.gpus)) != len(self.gpus):
            problems.append(f"strategy.gpus: {self.gpus} names a device twice; name each once")
        if self.gpus is not None and not self.gpus:
            problems.append("strategy.gpus: [] names no device; strategy=cpu_replicas trains without one")
        if self.gpus and self.kind in (StrategyKind.cpu_replicas, StrategyKind.single):
            problems.append(f"strategy.gpus: {self.gpus} is not used with strategy={self.kind}; use mirrored")
        problems += above("strategy.start_timeout", self.start_timeout, 0)
        several = self.kind is StrategyKind.multi_worker
        if self.gpus and self.replicas not in (None, len(self.gpus)) and not several:
            problems.append(
                f"strategy.replicas: {self.replicas} replicas over {len(self.gpus)} GPUs {self.gpus}; "
                "there is one replica per GPU, so leave one of the two out"
            )
        if self.kind is StrategyKind.single and self.replicas not in (None, 1):
            problems.append(
                f"strategy.replicas: {self.replicas} with strategy=single, which has one; "
                "strategy=cpu_replicas or strategy=mirrored have more"
            )
        return problems


class Precision(enum.StrEnum):
    """The dtype policy of the model: its computations; variables are always float32."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """The settings that all optimizers have; each subclass adds its own."""

    learning_rate: float = 1e-3  # the highest; the schedule scales it
    rates: dict[str, float] = field(default_factory=dict)  # of layers, by pattern, e.g. {backbone: 1e-4}
    weight_decay: float | None = None  # decoupled: the fraction of a weight that decays per unit of learning rate
    clipnorm: float | None = None  # the largest L2 norm of a gradient
    global_clipnorm: float | None = None  # the largest L2 norm of all gradients together
    clipvalue: float | None = None  # the largest absolute value of a component
    ema_momentum: float | None = None  # validate and save a moving average of the weights with this momentum, 0 to 1

    def problems(self) -> list[str]:
        """Return rates and bounds that are out of range."""
        problems = above("optimizer.learning_rate", self.learning_rate, 0)
        for pattern, rate in self.rates.items():
            problems += [
                f"{problem}; init.freeze=[{pattern}] keeps layers from training"
                for problem in above(f"optimizer.rates.{pattern}", rate, 0)
            ]
        clips = {
            f"optimizer.{key}": getattr(self, key)
            for key in ("clipnorm", "global_clipnorm", "clipvalue")
            if getattr(self, key) is not None
        }
        for key, value in clips.items():
            problems += above(key, value, 0)
        if len(clips) > 1:
            problems.append(f"{', '.join(clips)}: only one of them may be set; set the others to null")
        problems += at_least("optimizer.weight_decay", self.weight_decay, 0)
        if self.ema_momentum is not None and not 0 <= self.ema_momentum < 1:
            problems.append(f"optimizer.ema_momentum: {self.ema_momentum} is not in [0, 1)")
        return problems

    def named_objects(self) -> Iterator[tuple[Kind, str, Any]]:
        """Yield (kind, key, value) of what is named by `_target_`."""
        yield from ()


@dataclass(frozen=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    learning_rate: float = 1e-1
    momentum: float = 0.9  # 0: plain gradient descent
    nesterov: bool = False  # look ahead along the momentum


@dataclass(frozen=True)
class AdamConfig(OptimizerConfig):
    """Adam (Kingma and Ba, 2014)."""

    beta_1: float = 0.9  # decay of the mean of gradients
    beta_2: float = 0.999  # decay of the mean of squared gradients
    epsilon: float = 1e-7  # added to the denominator
    amsgrad: bool = False  # divide by the largest mean of squared gradients so far


@dataclass(frozen=True)
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2017)."""

    weight_decay: float | None = 4e-3


@dataclass(frozen=True)
class RmsPropConfig(OptimizerConfig):
    """RMSprop (Hinton, 2012)."""

    rho: float = 0.9  # decay of the mean of squared gradients
    momentum: float = 0.0  # 0: none
    epsilon: float = 1e-7  # added to the denominator
    centered: bool = False  # divide by the variance of gradients instead of the mean of their squares


@dataclass(frozen=True)
class LionConfig(OptimizerConfig):
    """Lion (Chen et al., 2023)."""

    learning_rate: float = 1e-4
    beta_1: float = 0.9  # weight of the momentum in a step
    beta_2: float = 0.99  # decay of the momentum


@dataclass(frozen=True)
class NadamConfig(OptimizerConfig):
    """Adam with Nesterov's momentum (Dozat, 2016)."""

    beta_1: float = 0.9  # decay of the mean of gradients
    beta_2: float = 0.999  # decay of the mean of squared gradients
    epsilon: float = 1e-7  # added to the denominator


@dataclass(frozen=True)
class AdamaxConfig(OptimizerConfig):
    """Adam with the infinity norm (Kingma and Ba, 2014)."""

    beta_1: float = 0.9  # decay of the mean of gradients
    beta_2: float = 0.999  # decay of the largest gradient
    epsilon: float = 1e-7  # added to the denominator


@dataclass(frozen=True)
class LambConfig(OptimizerConfig):
    """Adam with a trust ratio for each variable (You et al., 2019), for large batches."""

    beta_1: float = 0.9  # decay of the mean of gradients
    beta_2: float = 0.999  # decay of the mean of squared gradients
    epsilon: float = 1e-7  # added to the denominator


@dataclass(frozen=True)
class AdagradConfig(OptimizerConfig):
    """Adagrad (Duchi et al., 2011)."""

    initial_accumulator_value: float = 0.1  # of the sum of squared gradients
    epsilon: float = 1e-7  # added to the denominator


@dataclass(frozen=True)
class AdadeltaConfig(OptimizerConfig):
    """Adadelta (Zeiler, 2012)."""

    learning_rate: float = 1.0
    rho: float = 0.95  # decay of the means of squared gradients and updates
    epsilon: float = 1e-7  # added to both means


@dataclass(frozen=True)
class AdafactorConfig(OptimizerConfig):
    """Adafactor (Shazeer and Stern, 2018)."""

    beta_2_decay: float = -0.8  # exponent of the step in the decay of the mean of squared gradients
    # Added to squared gradients. With Keras' 1e-30 float32 underflows, to NaN, where an input is always 0.
    epsilon_1: float = 1e-16
    epsilon_2: float = 1e-3  # the least size of a weight by which its update is scaled
    clip_threshold: float = 1.0  # the largest root mean square of an update
    relative_step: bool = True  # at most 1 / sqrt(step) as the learning rate


@dataclass(frozen=True)
class FtrlConfig(OptimizerConfig):
    """FTRL-Proximal (McMahan et al., 2013)."""

    learning_rate_power: float = -0.5  # exponent of the step in the learning rate; at most 0
    initial_accumulator_value: float = 0.1  # of the sum of squared gradients
    l1_regularization_strength: float = 0.0  # of the absolute values of weights
    l2_regularization_strength: float = 0.0  # of the squares of weights, as a part of the loss
    l2_shrinkage_regularization_strength: float = 0.0  # of the squares of weights, for the update alone
    beta: float = 0.0  # added to the accumulator's root


@dataclass(frozen=True)
class MuonConfig(OptimizerConfig):
    """Muon (Jordan, 2024) for matrices, AdamW for the rest."""

    weight_decay: float | None = 4e-3
    momentum: float = 0.95  # of the updates of matrices
    nesterov: bool = True  # look ahead along the momentum
    ns_steps: int = 5  # iterations that make an update orthogonal
    muon_a: float = 3.4445  # of such an iteration, a x + b x^3 + c x^5
    muon_b: float = -4.775  # see muon_a
    muon_c: float = 2.0315  # see muon_a
    rms_rate: float = 0.2  # root mean square of an update of a matrix, to compare with AdamW's
    adam_beta_1: float = 0.9  # decay of the mean of gradients, of AdamW
    adam_beta_2: float = 0.999  # decay of the mean of squared gradients, of AdamW
    adam_weight_decay: float = 4e-3  # of AdamW
    adam_lr_ratio: float = 1.0  # AdamW's learning rate as a multiple of `learning_rate`
    exclude_layers: list[str] = field(default_factory=list)  # regular expressions of variables for AdamW
    exclude_embeddings: bool = True  # embeddings are for AdamW
    epsilon: float = 1e-7  # added to denominators


@dataclass(frozen=True)
class ScheduleFreeAdamWConfig(OptimizerConfig):
    """Schedule-free AdamW (Defazio et al., 2024); it warms up by itself and needs schedule=constant."""

    learning_rate: float = 2.5e-3
    beta_1: float = 0.9  # weight of the average in the weights that are trained
    beta_2: float = 0.999  # decay of the mean of squared gradients
    epsilon: float = 1e-8  # added to the denominator
    warmup_steps: int = 0  # steps from zero to the full rate


@dataclass(frozen=True)
class CustomOptimizerConfig(OptimizerConfig):
    """Any optimizer of Keras by its name, or a class of yours."""

    # Dotted name of a class of yours, or a name of Keras'.
    _target_: str = field(default=MISSING, metadata={"example": "optimizer._target_=pets.Mine trust=[pets]"})
    arguments: dict[str, Any] = field(default_factory=dict)  # of the class, without the settings that all have

    def problems(self) -> list[str]:
        """Return a class that Keras does not have, arguments that it does not take or that are settings themselves."""
        problems = super().problems()
        for name in sorted(self.arguments.keys() & {own.name for own in fields(OptimizerConfig)}):
            problems.append(f"optimizer.arguments.{name}: write optimizer.{name}={self.arguments[name]}")
        if self._target_ != MISSING:
            problems += [problem for kind, key, value in self.named_objects() for problem in kind.problems(key, value)]
        return problems

    def named_objects(self) -> Iterator[tuple[Kind, str, Any]]:
        """Yield the optimizer."""
        yield OPTIMIZERS, "optimizer", {TARGET: self._target_, **self.arguments}


OPTIMIZER_SCHEMAS: dict[str, type[OptimizerConfig]] = {
    "sgd": SgdConfig,
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "rmsprop": RmsPropConfig,
    "lion": LionConfig,
    "nadam": NadamConfig,
    "adamax": AdamaxConfig,
    "lamb": LambConfig,
    "adagrad": AdagradConfig,
    "adadelta": AdadeltaConfig,
    "adafactor": AdafactorConfig,
    "ftrl": FtrlConfig,
    "muon": MuonConfig,
    "schedule_free_adamw": ScheduleFreeAdamWConfig,
    "custom": CustomOptimizerConfig,
}


class Decay(enum.StrEnum):
    """The shape of the learning rate over a run, after its warm-up."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    constant = "constant"
    cosine = "cosine"
    linear = "linear"
    exponential = "exponential"
    custom = "custom"  # one of Keras' schedules, or a class of yours


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """The learning rate over the steps of a run: a linear warm-up, then a decay."""

    decay: Decay = Decay.constant  # the shape of the decay
    warmup_steps: int = 0  # steps from zero to the full rate
    decay_steps: int | None = None  # steps from the full to the final rate; None: the rest of the run
    final: float = 0.0  # the last rate, as a fraction of the full one
    # With decay=custom: the name of a schedule of Keras', or the dotted name of a class of yours. It gets the rate as
    # `initial_learning_rate` and the steps of the run as `decay_steps`, if it takes them.
    _target_: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)  # of that class

    def problems(self) -> list[str]:
        """Return step counts and fractions outside their ranges, and settings that do not go together."""
        if self.decay is Decay.custom:
            return self._custom_problems()
        problems = at_least("schedule.warmup_steps", self.warmup_steps, 0, unit="steps")
        problems += at_least("schedule.decay_steps", self.decay_steps, 1, unit="step")
        if not 0 <= self.final <= 1:
            problems.append(f"schedule.final: {self.final} is not a fraction of the full rate, 0 to 1")
        if self.decay is Decay.exponential and self.final == 0:
            problems.append("schedule.final: an exponential decay never reaches 0; e.g. schedule.final=0.01")
        for key in ("_target_", "arguments"):
            if value := getattr(self, key):
                problems.append(f"schedule.{key}: {value} is unused with schedule={self.decay}; add schedule=custom")
        return problems

    def named_objects(self) -> Iterator[tuple[Kind, str, Any]]:
        """Yield (kind, key, value) of a schedule that is named by `_target_`."""
        if self._target_ is not None:
            yield SCHEDULES, "schedule", {TARGET: self._target_, **self.arguments}

    def _custom_problems(self) -> list[str]:
        problems = [
            f"schedule.{key}: unused with schedule=custom; give it to the schedule itself, in schedule.arguments"
            for key in ("warmup_steps", "decay_steps", "final")
            if getattr(self, key)
        ]
        if self._target_ is None:
            problems.append(f"schedule._target_: required and not given; e.g. {SCHEDULES.sample}")
        return problems + [
            problem for kind, key, value in self.named_objects() for problem in kind.problems(key, value)
        ]
