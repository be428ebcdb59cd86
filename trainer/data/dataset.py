"""The data of a run: its parts, and what a model needs to know of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.names import fault
from trainer.data.errors import refuse
from trainer.data.source import Source, Stream, named
from trainer.data.splits import Splits


class Kind(enum.StrEnum):
    """What a target is."""

    CLASSES = "classes"  # an integer from 0, the number of a class
    VALUES = "values"  # floats


@dataclass(frozen=True)
class Field:
    """The shape and dtype of an input, without batch dimension; None where a dimension varies."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Output:
    """What an output has to predict."""

    units: int  # the number of classes, or the width of the values
    kind: Kind
    classes: tuple[str, ...] = ()  # the names of the classes, where they are known


@dataclass(frozen=True)
class Shapes:
    """What a model is built for: its inputs, and the units of its outputs."""

    inputs: dict[str, Field]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Dataset:
    """The data of a run. Inputs and outputs have the names and the order that a model's have."""

    train: Source | Stream
    validation: Source | Stream | None
    test: Source | Stream | None
    inputs: dict[str, Field]
    outputs: dict[str, int]  # units
    kinds: dict[str, Kind]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # names of the classes, where known


Allow = Callable[[str], Any]  # a dotted name to the object, or an error where the name is not to be trusted


def describe(splits: Splits, *, inputs: list[str], outputs: Mapping[str, Output]) -> Dataset:
    """Return the dataset of these parts, whose inputs and outputs have these names.

    The one name of a bare x is `inputs[0]`; where x is a dict, `inputs` gives the order of its keys.

    Raises:
        DataError: a name cannot be that of a layer or stands for two things, or the parts differ in form.
    """
    refuse([*_name_problems(inputs, list(outputs)), *_part_problems(splits)])
    leaves = named(splits.train.spec()[0], inputs[0])
    return Dataset(
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        inputs={name: Field(tuple(leaves[name].shape), leaves[name].dtype.name) for name in inputs},
        outputs={name: output.units for name, output in outputs.items()},
        kinds={name: output.kind for name, output in outputs.items()},
        classes={name: output.classes for name, output in outputs.items() if output.classes},
    )


def _name_problems(inputs: list[str], outputs: list[str]) -> Iterator[str]:
    """Find names that no layer may have: a model's input and output layers are called as its data is."""
    for name in (*inputs, *outputs):
        if reason := fault(name):
            yield f"{name!r} cannot name an input or an output of a model: {reason}"
    folded = [name.casefold() for name in (*inputs, *outputs)]
    for name in sorted({name for name in folded if folded.count(name) > 1}):
        yield f"{name!r} stands for two inputs or outputs; each needs a name of its own"


def _part_problems(splits: Splits) -> Iterator[str]:
    """Find parts whose examples have another form than those to train on; other sizes are the model's to refuse."""
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        if part is not None and _form(part, sizes=False) != _form(splits.train, sizes=False):
            yield f"the examples of {name} are {_form(part)}, and those to train on are {_form(splits.train)}"


def _form(source: Source | Stream, *, sizes: bool = True) -> str:
    """Return the shapes and dtypes of an example as text; without `sizes`, the number of axes for a shape."""

    def text(part: Any) -> str:
        if isinstance(part, dict):
            return "{" + ", ".join(f"{name}: {text(leaf)}" for name, leaf in sorted(part.items())) + "}"
        return f"{part.dtype.name} {part.shape if sizes else part.shape.rank}"

    return ", ".join(text(part) for part in source.spec())
