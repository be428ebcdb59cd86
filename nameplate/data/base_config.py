"""The random changes of training images that a configuration can ask for, by name."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from nameplate.naming.names import did_you_mean
from nameplate.section import Section

# What each name does by default: the largest change, in the unit that the comment says. None takes no amount.
AMOUNTS: dict[str, float | None] = {
    "flip": None,  # left to right, every other image
    "flip_vertical": None,  # top to bottom, every other image
    "shift": 0.1,  # fraction of height and of width
    "rotate": 0.05,  # fraction of a full turn
    "zoom": 0.1,  # fraction of the size
    "brightness": 0.2,  # on values in 0..1
    "contrast": 0.2,  # fraction of the contrast
}


def augment_steps(specs: Sequence[str]) -> list[tuple[str, float | None]]:
    """Return `(name, amount)` of each spec, `name` or `name:amount`, for specs without problems."""
    steps = []
    for spec in specs:
        name, _, amount = spec.partition(":")
        steps.append((name, float(amount) if amount else AMOUNTS[name]))
    return steps


def augment_problems(specs: Sequence[str]) -> list[str]:
    """Return what in `data.augment` cannot be used."""
    found = [f"data.augment: {reason}" for spec in specs if (reason := _spec_problem(spec))]
    names = [spec.partition(":")[0] for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    return found + [f"data.augment: {name!r} is given twice" for name in twice]


def _spec_problem(spec: str) -> str:
    name, colon, amount = spec.partition(":")
    if name not in AMOUNTS:
        return f"no augmentation {name!r}; there are {', '.join(AMOUNTS)}.{did_you_mean(name, AMOUNTS)}"
    if not colon:
        return ""
    if AMOUNTS[name] is None:
        return f"{spec!r}: {name} takes no amount; write {name!r}"
    try:
        inside = 0 < float(amount) < 1
    except ValueError:
        inside = False
    return "" if inside else f"{spec!r}: the amount is a number between 0 and 1, e.g. '{name}:{AMOUNTS[name]}'"


MISSING: Any = "???"  # OmegaConf's word for a value that must be given


class Resident(enum.StrEnum):
    """Whether the training data is kept on the devices."""

    # OmegaConf reads and writes the names of members, so the words of the command line come first.
    auto = "auto"  # where it is held in memory and fits
    always = "always"
    never = "never"
    AUTO, ALWAYS, NEVER = auto, always, never


@dataclass(frozen=True)
class DataConfig(Section):
    """What every source has in common; the subclasses add what is theirs."""

    validation: float = 0.1  # share of the examples held out to validate on; 0: none
    test: float = 0.0  # share of the examples held out for a last test; 0: none
    split_seed: int = 0  # decides which are held out; not the run's seed, so that runs can be compared
    limit: int | None = None  # train on so many examples, the first ones; None: on all
    validation_limit: int | None = None  # validate on so many examples, the first ones; None: on all held out
    resident: Resident = Resident.AUTO  # keep the training data on the devices
    augment: list[str] = field(default_factory=list)  # of training images, e.g. [flip, shift, 'rotate:0.1']

    def problems(self) -> list[str]:
        """Return all that cannot be used, by key. Looks at the disk, and reads no more than headers."""
        missing = [
            f"data.{each.name}: required and not given; e.g. {each.metadata['example']}"
            for each in fields(self)
            if "example" in each.metadata and getattr(self, each.name) == MISSING
        ]
        return [*missing, *self._share_problems(), *augment_problems(self.augment), *self.source_problems()]

    def source_problems(self) -> Iterator[str]:
        """Yield the problems of what a subclass adds; fields that are missing are reported already."""
        yield from ()

    def _share_problems(self) -> Iterator[str]:
        for key in ("validation", "test"):
            if not 0 <= getattr(self, key) < 1:
                yield f"data.{key}: {getattr(self, key)} is no share; from 0 (none) to below 1"
        if self.validation + self.test >= 1:
            yield f"data.validation, data.test: {self.validation} and {self.test} leave nothing to train on"
        for key in ("limit", "validation_limit"):
            limit = getattr(self, key)
            if limit is not None and limit < 1:
                yield f"data.{key}: {limit} is too small; at least 1 example, or null for all"
        if not 0 <= self.split_seed < 2**32:
            yield f"data.split_seed: {self.split_seed} is out of range; 0 to {2**32 - 1}"


def example(override: str) -> dict[str, str]:
    """Return the metadata of a required field: a whole `key=value` to show to who forgot it."""
    return {"example": override}


def unknown(key: str, names: Iterable[str], known: Collection[str], what: str) -> Iterator[str]:
    """Yield a problem for each name that is not among the known."""
    for name in names:
        if name not in known:
            yield f"{key}: {name!r} is no {what}; there are {listed(known)}.{did_you_mean(name, known)}"


def listed(names: Iterable[str]) -> str:
    """Return the names sorted, in one line."""
    return ", ".join(sorted(names)) or "none"
