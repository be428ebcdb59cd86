"""The sections of a run for its devices, its optimizer and schedule, and its objective."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from nameplate.naming.names import did_you_mean
from nameplate.section import Section, above, at_least


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

    decay: Decay = Decay.constant  # the shape of the decay
    warmup_steps: int = 0  # steps from zero to the full rate
    decay_steps: int | None = None  # steps from the full to the final rate; None: the rest of the run
    final: float = 0.0  # the last rate, as a fraction of the full one

    def problems(self) -> list[str]:
        """Return step counts and fractions outside their ranges."""
        problems = at_least("schedule.warmup_steps", self.warmup_steps, 0, unit="steps")
        problems += at_least("schedule.decay_steps", self.decay_steps, 1, unit="step")
        if not 0 <= self.final <= 1:
            problems.append(f"schedule.final: {self.final} is not a fraction of the full rate, 0 to 1")
        if self.decay is Decay.exponential and self.final == 0:
            problems.append("schedule.final: an exponential decay never reaches 0; e.g. schedule.final=0.01")
        return problems


LOSSES = {
    "sparse_categorical_crossentropy": "classes as integers",
    "categorical_crossentropy": "classes one-hot",
    "binary_crossentropy": "0 or 1 per unit",
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
        problems = []
        named = {"objective.loss": self.loss} | {f"objective.losses.{k}": v for k, v in self.losses.items()}
        for key, loss in named.items():
            if loss not in LOSSES:
                known = ", ".join(sorted(LOSSES))
                problems.append(f"{key}: no loss is called {loss!r}.{did_you_mean(loss, LOSSES)} There are {known}")
        lists = {"objective.metrics": self.metrics}
        lists |= {f"objective.output_metrics.{k}": v for k, v in self.output_metrics.items()}
        for key, metrics in lists.items():
            for metric in metrics:
                if metric not in METRICS:
                    known = ", ".join(sorted(METRICS))
                    problems.append(
                        f"{key}: no metric is called {metric!r}.{did_you_mean(metric, METRICS)} There are {known}"
                    )
        if not 0 <= self.label_smoothing < 1:
            problems.append(f"objective.label_smoothing: {self.label_smoothing} is not in [0, 1)")
        if self.label_smoothing and any(not loss.endswith("categorical_crossentropy") for loss in named.values()):
            problems.append("objective.label_smoothing: only categorical losses take it; set it to 0")
        for key, weight in self.loss_weights.items():
            problems += at_least(f"objective.loss_weights.{key}", weight, 0)
        for label, weight in self.class_weights.items():
            problems += at_least(f"objective.class_weights.{label}", weight, 0)
        return problems

    def kinds_problems(self, kinds: dict[str, str]) -> list[str]:
        """Return every loss that does not fit its target; `kinds` has `classes` or `values` for each output."""
        problems = []
        for name, kind in kinds.items():
            loss = self.losses.get(name, self.loss)
            needs = _NEEDS.get(loss, kind)
            if needs != kind:
                suits = ", ".join(sorted(loss for loss in LOSSES if _NEEDS.get(loss, kind) == kind))
                held = "class numbers" if kind == "classes" else "values"
                problems.append(
                    f"objective: the loss {loss!r} needs {needs}, and the target {name!r} holds {held}; use {suits}"
                )
        return problems

    def classes_problems(self, outputs: dict[str, int], kinds: dict[str, str]) -> list[str]:
        """Return class weights without a class; `outputs` has the number of classes of each output."""
        key = "objective.class_weights"
        if not self.class_weights:
            return []
        if len(outputs) > 1:
            return [f"{key}: only for data with one output; this data has {', '.join(outputs)}"]
        [(name, units)] = outputs.items()
        if kinds[name] != "classes":
            return [f"{key}: the target {name!r} holds values, not classes"]
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
