"""Where the first weights come from."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from models import mapping
from models.adapting import CHANNELS, CLASSES
from models.errors import NameplateError
from models.names import did_you_mean
from trainer.config.base import Section


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
            mapping.parse(self.rename)
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
