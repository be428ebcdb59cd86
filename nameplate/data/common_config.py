"""The settings that every kind of data has, and how a kind reports the problems of its own."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from nameplate.data.specs import augment_problems
from nameplate.naming.names import did_you_mean
from nameplate.section import Section

MISSING: Any = "???"  # OmegaConf's spelling of a value that must be given


class Resident(enum.StrEnum):
    """Whether the training data is kept on the devices."""

    # OmegaConf reads and writes the names of members: first the words of the command line, then their aliases.
    auto = "auto"  # if it is in host memory and fits
    always = "always"
    never = "never"
    AUTO, ALWAYS, NEVER = auto, always, never


class OnDamaged(enum.StrEnum):
    """What a run does about damaged examples that it finds before it trains."""

    refuse = "refuse"  # end, with all of them
    skip = "skip"  # train without them; they are listed in damaged.json in the run's directory


@dataclass(frozen=True)
class DataConfig(Section):
    """The settings of every kind of data."""

    validation: float = 0.1  # share of the examples held out for validation; 0: none
    test: float = 0.0  # share of the examples held out for a final test; 0: none
    split_seed: int = 0  # chooses the held-out examples; not the run's seed, so that runs can be compared
    limit: int | None = None  # train on the first so many examples; None: on all
    validation_limit: int | None = None  # validate on the first so many; None: on all that are held out
    resident: Resident = Resident.auto  # keep the training data on the devices
    folds: int | None = None  # divide into so many parts for cross validation, in place of the validation share
    fold: int = 0  # which of the folds is held out for validation, from 0
    balance: bool = False  # repeat training examples of rare classes until all classes are equally frequent
    # Of training images: [flip, shift, "rotate:0.1"], and random layers of Keras or of yours with their arguments,
    # e.g. {_target_: RandomErasing, factor: 0.5}.
    augment: list[Any] = field(default_factory=list)
    check: bool = False  # read all examples before training, in parallel, and report every damaged one
    on_damaged: OnDamaged = OnDamaged.refuse  # refuse damaged examples, or skip them; skip checks too
    standardize: bool = False  # scale inputs of floats by the training part's mean and variance, in layers of the model

    def problems(self) -> list[str]:
        """Return every problem, by key. Looks at the disk, but reads only headers."""
        missing = [
            f"data.{setting.name}: required and not given; e.g. {setting.metadata['example']}"
            for setting in fields(self)
            if "example" in setting.metadata and getattr(self, setting.name) == MISSING
        ]
        return [*missing, *self._share_problems(), *augment_problems(self.augment), *self.source_problems()]

    def source_problems(self) -> Iterator[str]:
        """Yield the problems of a subclass's own settings; missing ones are already reported."""
        yield from ()

    def _share_problems(self) -> Iterator[str]:
        for key in ("validation", "test"):
            if not 0 <= getattr(self, key) < 1:
                yield f"data.{key}: {getattr(self, key)} is not a share; from 0 (none) to below 1"
        if self.validation + self.test >= 1:
            yield f"data.validation, data.test: {self.validation} and {self.test} leave nothing to train on"
        for key in ("limit", "validation_limit"):
            limit = getattr(self, key)
            if limit is not None and limit < 1:
                yield f"data.{key}: {limit} is too small; at least 1 example, or null for all"
        yield from self._fold_problems()
        if not 0 <= self.split_seed < 2**32:
            yield f"data.split_seed: {self.split_seed} is out of range; 0 to {2**32 - 1}"

    def _fold_problems(self) -> Iterator[str]:
        if self.folds is None:
            if self.fold:
                yield f"data.fold: {self.fold} of how many? e.g. data.folds=5"
            return
        if self.folds < 2:
            yield f"data.folds: {self.folds} is too small; at least 2, or null for a validation share"
        elif not 0 <= self.fold < self.folds:
            yield f"data.fold: {self.fold} is out of range; 0 to {self.folds - 1}"
        for key in ("validation_path", "validation_files"):
            if getattr(self, key, None):
                yield f"data.folds: data.{key} is held out already; give one of the two"


def example(override: str) -> dict[str, str]:
    """Return the metadata of a required field: a whole `key=value` to show when it is missing."""
    return {"example": override}


def unknown(key: str, names: Iterable[str], known: Collection[str], what: str) -> Iterator[str]:
    """Yield a problem for each name that is not a known `what`."""
    for name in names:
        if name not in known:
            yield f"{key}: {name!r} is not a {what}; there are {listed(known)}.{did_you_mean(name, known)}"


def listed(names: Iterable[str]) -> str:
    """Return the sorted names in one line."""
    return ", ".join(sorted(names)) or "none"
