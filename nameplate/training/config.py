"""The sections of a run for its length, its checkpoints, its initial weights and its logs."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nameplate.engine.config import Precision
from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean
from nameplate.naming.rules import parse_rules
from nameplate.section import Section, at_least
from nameplate.weights.adaptation import CHANNELS, CLASSES


class Mode(enum.StrEnum):
    """Which way a measured value improves."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    auto = "auto"  # max for accuracies and the like, min otherwise
    min = "min"
    max = "max"


class Export(enum.StrEnum):
    """Which model is also written as Keras saves it."""

    best = "best"  # to best.keras in the run's directory, when the run is done


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """When to save, what to keep, and what counts as best."""

    every_steps: int | None = None  # steps between saves; None: saves at the ends of epochs only
    every_epochs: int | None = 1  # epochs between saves; None: saves by steps only
    keep_last: int = 3  # how many of the newest checkpoints are kept
    keep_best: int = 1  # how many of the best are kept as well
    keep_every: int | None = None  # checkpoints at multiples of so many steps are kept for ever
    monitor: str | None = None  # the value that decides what is best; None: chosen from what is measured
    mode: Mode = Mode.auto  # whether a lower or a higher value of `monitor` is better
    export_keras: Export | None = None  # best: also write the best model to best.keras, verified by loading it
    async_save: bool = False  # write in the background; training waits only for the copy to host memory
    # With runs=s3://...: this machine's directory for copies of runs; None: $NAMEPLATE_CACHE, or ~/.cache/nameplate.
    remote_cache: str | None = None
    remote_wait: int = 300  # seconds that the end of a run waits until the store has all; a tenth of it after a signal

    def problems(self) -> list[str]:
        """Return intervals and counts with which training would be lost."""
        problems = at_least("checkpoint.every_steps", self.every_steps, 1, unit="step")
        problems += at_least("checkpoint.every_epochs", self.every_epochs, 1, unit="epoch")
        problems += at_least("checkpoint.keep_last", self.keep_last, 1, unit="checkpoint, the one to resume from")
        problems += at_least("checkpoint.keep_best", self.keep_best, 0)
        problems += at_least("checkpoint.keep_every", self.keep_every, 1, unit="step")
        problems += at_least("checkpoint.remote_wait", self.remote_wait, 0, unit="seconds")
        return problems

    def improves_upwards(self, monitor: str) -> bool:
        """Say whether higher values of `monitor` are better."""
        if self.mode is not Mode.auto:
            return self.mode is Mode.max
        return any(word in monitor for word in ("acc", "auc", "precision", "recall", "r2", "iou", "f1"))


@dataclass(frozen=True)
class DreamConfig(Section):
    """Pictures of what layers see, always from the same noise, so that features can be seen to form."""

    # Qualified names, with * and ? for many, or objectives, e.g. ["stage*_relu2", "class_logit(3)"]; []: none.
    layers: list[str] = field(default_factory=list)
    every_steps: int = 500  # training steps between pictures
    steps: int = 64  # of gradient ascent
    before_after: bool = False  # also before the first step and after the last, side by side on before_after.png
    size: int | None = None  # pixels per side; None: the size that the model was built for

    def problems(self) -> list[str]:
        """Return counts below one. Whether the layers exist is checked when the model is built."""
        return [
            *at_least("log.dream.every_steps", self.every_steps, 1, unit="step"),
            *at_least("log.dream.steps", self.steps, 1, unit="step"),
            *at_least("log.dream.size", self.size, 1, unit="pixel"),
        ]


class OnNan(enum.StrEnum):
    """What a run does when its loss, or a weight, is no longer a finite number."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    stop = "stop"  # end, with exit code 3
    rollback = "rollback"  # return to the last good checkpoint, and skip the data from there to the step that failed


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stop when a measured value no longer improves."""

    monitor: str | None = None  # e.g. val_loss; None: never stop early
    patience: int = 5  # validations without improvement
    min_delta: float = 0.0  # the least change that counts as an improvement
    restore_best: bool = True  # end with the weights of the best epoch


@dataclass(frozen=True)
class FitConfig(Section):
    """The length of a run and the size of its steps."""

    epochs: int = 10  # passes over the training data
    steps: int | None = None  # end after this many steps in total, whatever `epochs` is
    global_batch: int = 64  # examples per step, over all replicas together
    validation_batch: int | None = None  # examples per evaluation step; None: global_batch
    validate_every: int = 1  # epochs between validations
    steps_per_loop: int | None = None  # steps per call of the graph; None: chosen automatically
    precision: Precision = Precision.float32  # of computation; variables are always float32
    xla: bool = False  # compile each replica's forward and backward pass; random layers then draw other numbers
    on_nan: OnNan = OnNan.stop  # NaN or infinite loss or weights: stop, or rollback
    max_rollbacks: int = 3  # per run, resumes included; after that it stops
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)  # when a value no longer improves

    def problems(self) -> list[str]:
        """Return lengths and sizes that are out of range."""
        problems = at_least("fit.epochs", self.epochs, 1, unit="epoch")
        problems += at_least("fit.steps", self.steps, 1, unit="step")
        problems += at_least("fit.global_batch", self.global_batch, 1, unit="example")
        problems += at_least("fit.validation_batch", self.validation_batch, 1, unit="example")
        problems += at_least("fit.validate_every", self.validate_every, 1, unit="epoch")
        problems += at_least("fit.steps_per_loop", self.steps_per_loop, 1, unit="step")
        problems += at_least(
            "fit.max_rollbacks", self.max_rollbacks, 1, unit="rollback; fit.on_nan=stop never rolls back"
        )
        return problems + at_least("fit.early_stopping.patience", self.early_stopping.patience, 0)


class From(enum.StrEnum):
    """Which weights of a run, or of a sweep."""

    best = "best"  # the best checkpoint, of a sweep's best job; the newest if nothing has been measured
    latest = "latest"  # the newest checkpoint, of a sweep's best job


@dataclass(frozen=True)
class InitConfig(Section):
    """The weights that the model is built with: random ones from the run's seed, or those that it names itself."""

    freeze: list[str] = field(default_factory=list)  # patterns of layers that do not train
    # Number of finished epochs -> patterns of layers that train from then on, e.g. {5: [stage4_*], 10: [backbone]}.
    unfreeze: dict[Any, list[str]] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Return stages that cannot be."""
        problems = [
            f"init.unfreeze.{key}: {key!r} is not a number of finished epochs; e.g. init.unfreeze={{5: [NAME]}}"
            for key in self.unfreeze
            if not str(key).isdecimal() or int(key) < 1
        ]
        if self.unfreeze and not self.freeze:
            problems.append("init.unfreeze: nothing is frozen; set init.freeze=[NAME]")
        return problems

    def thaws(self) -> dict[int, tuple[str, ...]]:
        """Return `unfreeze` by number, sorted. Keys are numbers in YAML, and may be text on a command line."""
        thaws = {int(key): tuple(patterns) for key, patterns in self.unfreeze.items()}
        return dict(sorted(thaws.items()))


@dataclass(frozen=True)
class NamedInitConfig(InitConfig):
    """Weights from elsewhere, each for the variable of its name; any left over is an error.

    A pattern is a variable (`head/kernel`), a layer or container with all in it (`head`), or a shell pattern over
    the whole name (`*/bias`). Each exception (`allow_...`) names what it is for; an unused one is an error.
    """

    only: list[str] = field(default_factory=list)  # patterns of variables to load; the others keep their random values
    rename: list[str] = field(default_factory=list)  # rules OLD=NEW, OLD= to drop, re:PATTERN=REPLACEMENT
    allow_missing: list[str] = field(default_factory=list)  # patterns of variables that the source may lack
    allow_unexpected: list[str] = field(default_factory=list)  # patterns of names in the source that may stay unused
    allow_shape: list[str] = field(default_factory=list)  # patterns of variables whose shape may differ: not loaded
    allow_dtype: list[str] = field(default_factory=list)  # patterns of variables whose values may be cast

    def problems(self) -> list[str]:
        """Return rules that cannot be parsed."""
        problems = super().problems()
        try:
            parse_rules(self.rename)
        except NameplateError as error:
            problems.append(f"init.rename: {error}")
        return problems


@dataclass(frozen=True)
class CheckpointInitConfig(NamedInitConfig):
    """Weights of a checkpoint or file. The path is checked when a run begins, not when it resumes."""

    # A run, a checkpoint, a pointer, or any file of weights that `nameplate.load_weights` reads.
    path: str = field(default="???", metadata={"example": "init.path=runs/digits"})
    # For a run or a sweep, by path or by name in `runs`: which of its checkpoints. `init.from=` on the command line.
    from_: From = From.best
    optimizer: bool = False  # also load the optimizer's slots and step count; the schedule continues from there


@dataclass(frozen=True)
class CustomInitConfig(NamedInitConfig):
    """Weights that a function of yours returns as `{variable name: array}`; it may take `model` and `seed`."""

    # Dotted name of the function.
    _target_: str = field(default="???", metadata={"example": "init._target_=pets.weights trust=[pets]"})
    arguments: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the function

    def problems(self) -> list[str]:
        """Return a name that is not one of something in a module."""
        problems = super().problems()
        if self._target_ == "???":
            return problems  # reported as missing
        if not all(part.isidentifier() for part in self._target_.split(".")):
            problems.append(f"init._target_: {self._target_!r} is not a dotted name; e.g. my_package.my_module.weights")
        elif "." not in self._target_:
            problems.append(f"init._target_: {self._target_!r} names no module; e.g. my_package.{self._target_}")
        return problems


@dataclass(frozen=True)
class TransferInitConfig(CheckpointInitConfig):
    """A part of another model, loaded by name: `only` says which part; everything else is left as it is."""

    adapt: dict[str, str] = field(default_factory=dict)  # pattern -> repeat, slice or mean (input channels), or classes
    source_classes: list[str] = field(default_factory=list)  # class names of the source's outputs, for `classes`
    target_classes: list[str] = field(default_factory=list)  # class names of this model's outputs

    def problems(self) -> list[str]:
        """Return rules that cannot be parsed or do not exist, and settings that a transfer does not use."""
        rules = [*CHANNELS, CLASSES]
        problems = [
            f"init.adapt.{pattern}: no rule {rule!r}; there are {', '.join(rules)}.{did_you_mean(rule, rules)}"
            for pattern, rule in self.adapt.items()
            if rule not in rules
        ]
        if CLASSES in self.adapt.values() and not (self.source_classes and self.target_classes):
            problems.append(
                "init.adapt: the rule 'classes' needs init.source_classes=[...] and init.target_classes=[...]"
            )
        idle = [
            key for key in ("allow_missing", "allow_unexpected", "allow_shape", "allow_dtype") if getattr(self, key)
        ]
        problems += [f"init.{key}: not used by a transfer; init.only=[NAME] says what is loaded" for key in idle]
        if self.optimizer:
            problems.append("init.optimizer: a transfer does not load slots; init=checkpoint does")
        return [*super().problems(), *problems]


INIT_SCHEMAS: dict[str, type[InitConfig]] = {
    "scratch": InitConfig,
    "checkpoint": CheckpointInitConfig,
    "transfer": TransferInitConfig,
    "custom": CustomInitConfig,
}


TRACKERS: dict[str, tuple[str, ...]] = {  # name -> its options
    "mlflow": ("tracking_uri", "experiment"),
    "wandb": ("project", "entity", "mode", "dir", "group", "tags"),
    "trackio": ("project", "space_id"),
}


def tracker_options(trackers: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """Return the options by name of trackers that are given as names or as {name: options}."""
    pairs: list[tuple[str, Any]] = []
    for each in trackers:
        pairs += each.items() if isinstance(each, Mapping) else [(each, {})]
    return {name: dict(options or {}) for name, options in pairs}


def _tracker_problems(trackers: Sequence[Any]) -> Iterator[str]:
    for each in trackers:
        for name, options in each.items() if isinstance(each, Mapping) else [(each, {})]:
            if name not in TRACKERS:
                known: Sequence[str] = list(TRACKERS)
                advice = f"there are {', '.join(known)}.{did_you_mean(str(name), known)}"
                yield f"log.trackers: no tracker {name!r:.80}; {advice}"
            elif not isinstance(options, Mapping | None):
                example = f"{{{name}: {{{TRACKERS[name][0]}: VALUE}}}}"
                yield f"log.trackers: {name}: {options!r:.80} is not a mapping of options; e.g. {example}"
            else:
                known = TRACKERS[name]
                for key in (key for key in options or {} if key not in known):
                    advice = f"it has {', '.join(known)}.{did_you_mean(str(key), known)}"
                    yield f"log.trackers: {name} has no option {key!r:.80}; {advice}"


@dataclass(frozen=True)
class LogConfig(Section):
    """Where the numbers of a run go, and how often."""

    every_steps: int = 50  # steps between two records of the training metrics
    tensorboard: bool = True  # event files under the run, in tensorboard/
    histograms_every: int | None = 1  # epochs between histograms of every weight; None: none
    layer_table: bool = True  # print the layers and their names before training
    weight_table: bool = False  # print where each initial weight comes from; the counts are printed always
    profile_steps: int | None = None  # record TensorFlow's profile of this many steps; None: no profile
    profile_after: int = 10  # steps before the profile, since the first ones trace and compile
    dream: DreamConfig = field(default_factory=DreamConfig)  # what layers see while they learn
    # mlflow, wandb, trackio: where records also go; with options [{mlflow: {experiment: mine}}]
    trackers: list[Any] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Return intervals below one, and trackers that do not exist."""
        return [
            *_tracker_problems(self.trackers),
            *at_least("log.every_steps", self.every_steps, 1, unit="step"),
            *at_least("log.histograms_every", self.histograms_every, 1, unit="epoch"),
            *at_least("log.profile_steps", self.profile_steps, 1, unit="step"),
            *at_least("log.profile_after", self.profile_after, 0, unit="steps"),
            *self.dream.problems(),
        ]


# The names that scripts import from `nameplate`.
Checkpoint = CheckpointConfig
Log = LogConfig
