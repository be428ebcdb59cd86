"""On which devices a run computes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from nameplate.naming.names import did_you_mean
from nameplate.section import Section, above, at_least


class StrategyKind(enum.StrEnum):
    """How replicas are laid over devices."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    auto = "auto"  # every GPU; where there is none, CPU replicas
    mirrored = "mirrored"  # one replica a GPU
    cpu_replicas = "cpu_replicas"  # logical CPU devices, for trying and testing
    single = "single"  # one device, no replication
    multi_worker = "multi_worker"  # several processes, each with one replica a GPU, or on the CPU where it has none


@dataclass(frozen=True)
class StrategyConfig(Section):
    """The devices of a run and how they share its work."""

    kind: StrategyKind = StrategyKind.auto  # which devices, and in how many processes
    replicas: int | None = None  # how many, over all workers; None: every chosen GPU, or two on the CPU (one a worker)
    gpus: list[int] | None = None  # indices of the GPUs to use; None: all
    memory_growth: bool = True  # take GPU memory as it is needed, not all at once
    start_timeout: float = 300.0  # seconds that workers wait for each other before they give up
    sync_batch_norm: bool = True  # batch statistics over the global batch, not over each replica's share

    def problems(self) -> list[str]:
        """Return what cannot be meant; whether the devices exist is known only when the job starts."""
        found = at_least("strategy.replicas", self.replicas, 1)
        if self.gpus is not None and len(set(self.gpus)) != len(self.gpus):
            found.append(f"strategy.gpus: {self.gpus} names a device twice; name each once")
        if self.gpus is not None and not self.gpus:
            found.append("strategy.gpus: [] names no device; strategy=cpu_replicas trains without one")
        if self.gpus and self.kind in (StrategyKind.cpu_replicas, StrategyKind.single):
            found.append(f"strategy.gpus: {self.gpus} has no meaning under strategy={self.kind}; use mirrored")
        found += above("strategy.start_timeout", self.start_timeout, 0)
        several = self.kind is StrategyKind.multi_worker
        if self.gpus and self.replicas not in (None, len(self.gpus)) and not several:
            found.append(
                f"strategy.replicas: {self.replicas} replicas over {len(self.gpus)} GPUs {self.gpus}; "
                "there is one replica a GPU, so leave one of the two out"
            )
        if self.kind is StrategyKind.single and self.replicas not in (None, 1):
            found.append(
                f"strategy.replicas: {self.replicas} under strategy=single, which has one; "
                "strategy=cpu_replicas or strategy=mirrored have more"
            )
        return found


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


@dataclass(frozen=True)
class LionConfig(OptimizerConfig):
    """Lion (Chen et al., 2023)."""

    learning_rate: float = 1e-4
    beta_1: float = 0.9  # weight of the momentum in a step
    beta_2: float = 0.99  # decay of the momentum


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

    decay: Decay = Decay.constant  # form of the decay
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


LOSSES = {
    "sparse_categorical_crossentropy": "classes as integers",
    "categorical_crossentropy": "classes one-hot",
    "binary_crossentropy": "0 or 1 a unit",
    "mean_squared_error": "values",
    "mean_absolute_error": "values",
    "huber": "values",
    "log_cosh": "values",
}
# What a loss needs its target to be; binary_crossentropy takes either.
_NEEDS = {loss: "values" for loss in LOSSES if loss != "binary_crossentropy"}
_NEEDS["sparse_categorical_crossentropy"] = "classes"
METRICS = {
    "accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "r2_score",
    "auc",
    "precision",
    "recall",
    "cosine_similarity",
}


@dataclass(frozen=True)
class ObjectiveConfig(Section):
    """The loss and the metrics, for all outputs or for each output by its name."""

    loss: str = "sparse_categorical_crossentropy"  # of every output that `losses` does not name
    losses: dict[str, str] = field(default_factory=dict)  # output name -> loss
    loss_weights: dict[str, float] = field(default_factory=dict)  # output name -> factor in the total; else 1
    metrics: list[str] = field(default_factory=list)  # of every output that `output_metrics` does not name
    output_metrics: dict[str, list[str]] = field(default_factory=dict)  # output name -> its metrics
    label_smoothing: float = 0.0  # of categorical losses, 0 to 1
    from_logits: bool = True  # outputs are logits, not probabilities
    class_weights: dict[int, float] = field(default_factory=dict)  # class -> weight in the loss; else 1

    def problems(self) -> list[str]:
        """Return losses, metrics and weights that do not exist; outputs are checked against the model."""
        found = []
        named = {"objective.loss": self.loss} | {f"objective.losses.{k}": v for k, v in self.losses.items()}
        for key, loss in named.items():
            if loss not in LOSSES:
                known = ", ".join(sorted(LOSSES))
                found.append(f"{key}: no loss is called {loss!r}.{did_you_mean(loss, LOSSES)} There are {known}")
        lists = {"objective.metrics": self.metrics}
        lists |= {f"objective.output_metrics.{k}": v for k, v in self.output_metrics.items()}
        for key, metrics in lists.items():
            for metric in metrics:
                if metric not in METRICS:
                    known = ", ".join(sorted(METRICS))
                    found.append(
                        f"{key}: no metric is called {metric!r}.{did_you_mean(metric, METRICS)} There are {known}"
                    )
        if not 0 <= self.label_smoothing < 1:
            found.append(f"objective.label_smoothing: {self.label_smoothing} is not in [0, 1)")
        if self.label_smoothing and any(not loss.endswith("categorical_crossentropy") for loss in named.values()):
            found.append("objective.label_smoothing: only categorical losses take it; set it to 0")
        for key, weight in self.loss_weights.items():
            found += at_least(f"objective.loss_weights.{key}", weight, 0)
        for label, weight in self.class_weights.items():
            found += at_least(f"objective.class_weights.{label}", weight, 0)
        return found

    def kinds_problems(self, kinds: dict[str, str]) -> list[str]:
        """Return every loss that does not suit its target; `kinds` has `classes` or `values` for each output."""
        found = []
        for name, kind in kinds.items():
            loss = self.losses.get(name, self.loss)
            needs = _NEEDS.get(loss, kind)
            if needs != kind:
                suits = ", ".join(sorted(each for each in LOSSES if _NEEDS.get(each, kind) == kind))
                held = "class numbers" if kind == "classes" else "values"
                found.append(
                    f"objective: the loss {loss!r} needs {needs}, and the target {name!r} holds {held}; use {suits}"
                )
        return found

    def classes_problems(self, outputs: dict[str, int], kinds: dict[str, str]) -> list[str]:
        """Return class weights that no class takes; `outputs` has the number of classes of each output."""
        key = "objective.class_weights"
        if not self.class_weights:
            return []
        if len(outputs) > 1:
            return [f"{key}: for one output, and the data has {', '.join(outputs)}"]
        [(name, units)] = outputs.items()
        if kinds[name] != "classes":
            return [f"{key}: the target {name!r} holds values, and no classes"]
        return [
            f"{key}: there is no class {label}; {name!r} has {units}, numbered 0 to {units - 1}"
            for label in self.class_weights
            if not 0 <= label < units
        ]

    def outputs_problems(self, outputs: list[str]) -> list[str]:
        """Return every mention of an output that a model with these outputs does not have."""
        return [
            f"objective.{group}.{name}: the model has no output {name!r}."
            f"{did_you_mean(name, outputs)} It has {', '.join(outputs)}"
            for group in ("losses", "loss_weights", "output_metrics")
            for name in getattr(self, group)
            if name not in outputs
        ]
