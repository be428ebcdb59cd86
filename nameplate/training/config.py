"""When a run saves, and what it keeps."""

from __future__ import annotations

import enum
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

    every_steps: int | None = None  # save each so many steps; None: at epochs only
    every_epochs: int | None = 1  # save at the end of each so many epochs; None: at steps only
    keep_last: int = 3  # the newest checkpoints that stay
    keep_best: int = 1  # the best checkpoints that stay beside them
    keep_every: int | None = None  # steps: multiples of this stay for ever
    monitor: str | None = None  # the value that decides what is best; None: chosen from what is measured
    mode: Mode = Mode.auto  # whether a lower or a higher value of `monitor` is better
    export_keras: Export | None = None  # best: the best model also as best.keras, proved by loading it
    async_save: bool = False  # write in the background; training waits only for the copy to host memory

    def problems(self) -> list[str]:
        """Return intervals and counts that would lose what was trained."""
        found = at_least("checkpoint.every_steps", self.every_steps, 1, unit="step")
        found += at_least("checkpoint.every_epochs", self.every_epochs, 1, unit="epoch")
        found += at_least("checkpoint.keep_last", self.keep_last, 1, unit="checkpoint, the one to resume from")
        found += at_least("checkpoint.keep_best", self.keep_best, 0)
        found += at_least("checkpoint.keep_every", self.keep_every, 1, unit="step")
        return found

    def improves_upwards(self, monitor: str) -> bool:
        """Say whether a greater value of `monitor` is a better one."""
        if self.mode is not Mode.auto:
            return self.mode is Mode.max
        return any(word in monitor for word in ("acc", "auc", "precision", "recall", "r2", "iou", "f1"))


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


class OnNan(enum.StrEnum):
    """What a run does when its loss, or a weight, is no longer a finite number."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    stop = "stop"  # end with a code of its own
    rollback = (
        "rollback"  # go back to the last good checkpoint and pass over the data from there to the step that failed
    )


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stop when a measured value no longer improves."""

    monitor: str | None = None  # e.g. val_loss; None: never stop early
    patience: int = 5  # validations without improvement
    min_delta: float = 0.0  # what counts as improvement
    restore_best: bool = True  # end with the weights of the best epoch


@dataclass(frozen=True)
class FitConfig(Section):
    """The length of a run and the size of its steps."""

    epochs: int = 10  # passes over the training data
    steps: int | None = None  # end after this many steps in all, whatever `epochs` says
    global_batch: int = 64  # examples a step, over all replicas together
    validation_batch: int | None = None  # examples an evaluation step, over all replicas; None: global_batch
    validate_every: int = 1  # epochs between validations
    steps_per_loop: int | None = None  # steps in the graph between two looks from outside; None: chosen
    precision: Precision = Precision.float32  # of computation; variables are always float32
    xla: bool = False  # compile each replica's forward and backward pass; random layers then draw other numbers
    on_nan: OnNan = OnNan.stop  # NaN or infinite loss or weights: stop, or rollback
    max_rollbacks: int = 3  # of one run, over all its resumes; then it stops
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)  # by a value that stalls

    def problems(self) -> list[str]:
        """Return lengths and sizes that no run can have."""
        found = at_least("fit.epochs", self.epochs, 1, unit="epoch")
        found += at_least("fit.steps", self.steps, 1, unit="step")
        found += at_least("fit.global_batch", self.global_batch, 1, unit="example")
        found += at_least("fit.validation_batch", self.validation_batch, 1, unit="example")
        found += at_least("fit.validate_every", self.validate_every, 1, unit="epoch")
        found += at_least("fit.steps_per_loop", self.steps_per_loop, 1, unit="step")
        found += at_least("fit.max_rollbacks", self.max_rollbacks, 1, unit="rollback; fit.on_nan=stop makes none")
        return found + at_least("fit.early_stopping.patience", self.early_stopping.patience, 0)


class From(enum.StrEnum):
    """Which weights of a run, or of a sweep."""

    best = "best"  # of a sweep's best job; a run's best checkpoint, the newest where it has measured nothing
    latest = "latest"  # a run's newest checkpoint; of a sweep the best job's


@dataclass(frozen=True)
class InitConfig(Section):
    """Random weights from the run's seed."""


@dataclass(frozen=True)
class CheckpointInitConfig(InitConfig):
    """Weights of a checkpoint or file, each to the variable of its own name; what is left over is refused.

    A pattern is a variable (`head/kernel`), a layer or container with all below it (`head`), or a shell pattern over
    the whole name (`*/bias`). Each leniency names what it is for; one that is for nothing is an error.
    """

    # A run (its best checkpoint, or the newest), one checkpoint, a pointer, a .safetensors or a .keras file.
    path: str = field(default="???", metadata={"example": "init.path=runs/digits"})
    # Also a sweep, or the name of a run or sweep among `runs`; `init.from=` on the command line says which of it:
    from_: From = From.best
    only: list[str] = field(default_factory=list)  # patterns of variables here; the others keep what the seed gives
    rename: list[str] = field(default_factory=list)  # rules OLD=NEW, OLD= to drop, re:PATTERN=REPLACEMENT
    allow_missing: list[str] = field(default_factory=list)  # patterns of variables here that the source need not have
    allow_unexpected: list[str] = field(default_factory=list)  # patterns of names there that nothing here takes
    allow_shape: list[str] = field(default_factory=list)  # patterns of variables here that may differ in shape: kept
    allow_dtype: list[str] = field(default_factory=list)  # patterns of variables here whose value may be cast
    optimizer: bool = False  # the optimizer's slots too, and its count of steps; the schedule goes on from there

    def problems(self) -> list[str]:
        """Return rules that cannot be read; what is at the path is looked at when a run begins, not when it resumes."""
        try:
            parse_rules(self.rename)
        except NameplateError as error:
            return [f"init.rename: {error}"]
        return []


@dataclass(frozen=True)
class TransferInitConfig(CheckpointInitConfig):
    """A part of another model, taken by name: `only` says which, and the rest of both sides stays where it is."""

    freeze: list[str] = field(default_factory=list)  # patterns of layers here that do not train
    # Epochs that are done: patterns of layers that train from there on, e.g. {5: [stage4_*], 10: [backbone]}.
    unfreeze: dict[Any, list[str]] = field(default_factory=dict)
    adapt: dict[str, str] = field(default_factory=dict)  # pattern here: repeat, slice, mean (input channels), classes
    source_classes: list[str] = field(default_factory=list)  # what the source's outputs mean, for `classes`
    target_classes: list[str] = field(default_factory=list)  # what the outputs here mean

    def problems(self) -> list[str]:
        """Return rules that cannot be read or do not exist, and settings that a transfer has no use for."""
        rules = [*CHANNELS, CLASSES]
        found = [
            f"init.adapt.{pattern}: no rule {rule!r}; there are {', '.join(rules)}.{did_you_mean(rule, rules)}"
            for pattern, rule in self.adapt.items()
            if rule not in rules
        ]
        if CLASSES in self.adapt.values() and not (self.source_classes and self.target_classes):
            found.append("init.adapt: the rule 'classes' needs init.source_classes=[...] and init.target_classes=[...]")
        found += [
            f"init.unfreeze.{key}: {key!r} is no number of epochs that are done; e.g. init.unfreeze={{5: [NAME]}}"
            for key in self.unfreeze
            if not str(key).isdecimal() or int(key) < 1
        ]
        if self.unfreeze and not self.freeze:
            found.append("init.unfreeze: nothing is frozen; say what is with init.freeze=[NAME]")
        idle = [
            key for key in ("allow_missing", "allow_unexpected", "allow_shape", "allow_dtype") if getattr(self, key)
        ]
        found += [f"init.{key}: a transfer says what it takes with init.only=[NAME]" for key in idle]
        if self.optimizer:
            found.append("init.optimizer: the slots of another model are not taken; init=checkpoint can")
        return [*super().problems(), *found]

    def thaws(self) -> dict[int, tuple[str, ...]]:
        """Return `unfreeze` by number, in order; YAML's keys are numbers, and those of a command line may be text."""
        found = {int(key): tuple(patterns) for key, patterns in self.unfreeze.items()}
        return dict(sorted(found.items()))


INIT_SCHEMAS: dict[str, type[InitConfig]] = {
    "scratch": InitConfig,
    "checkpoint": CheckpointInitConfig,
    "transfer": TransferInitConfig,
}


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


# The names that scripts import from `nameplate`.
Checkpoint = CheckpointConfig
Log = LogConfig
