"""The data of a run: its parts, and what a model needs to know of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nameplate.data.errors import refuse
from nameplate.data.source import Memory, Source, Stream, named
from nameplate.data.splits import Splits
from nameplate.naming.names import fault


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


_PARTS = {"train": "to train on", "validation": "to validate on", "test": "to test on"}


def not_finite(dataset: Dataset) -> Iterator[str]:
    """Yield in words which arrays in memory hold NaN or infinite values, how many, and where the first is."""
    for part, purpose in _PARTS.items():
        source = getattr(dataset, part)
        if not isinstance(source, Memory):
            continue
        for column, default in zip(source.arrays(), ("x", "y", "sample_weight"), strict=False):
            for name, array in named(column, default).items():
                if rows := _spoilt_rows(array):
                    yield (
                        f"{name!r} of the examples {purpose} holds NaN or infinite values in {len(rows)} of "
                        f"{len(array)} examples, the first is number {rows[0]}; a loss need not show it"
                    )


def _spoilt_rows(array: np.ndarray | None) -> list[int]:
    if array is None or not np.issubdtype(array.dtype, np.floating):
        return []
    # One pass without a temporary: a sum is finite only where every number is. A large one may overflow all the same.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return []
    return [index for index, row in enumerate(array) if not np.isfinite(row).all()]


@dataclass(frozen=True)
class Column:
    """An array (n, ...), perhaps still on the disk, and what becomes of its rows."""

    name: str
    array: np.ndarray
    dtype: np.dtype
    scale: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        shape = self.array.shape[1:]
        # Labels are often stored as a column of their own, (n, 1).
        return () if self.dtype == np.int64 and shape == (1,) else shape

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.array)

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """Return the rows at `indices`, converted."""
        rows = np.asarray(self.array[indices]).astype(self.dtype)
        rows = rows if self.scale is None else rows * self.dtype.type(self.scale)
        return np.ascontiguousarray(rows).reshape(-1, *self.shape)


def input_column(name: str, array: np.ndarray, *, scale: float | None = None) -> Column:
    """Return an input: floats and truth values become float32, and all that is scaled; integers stay."""
    whole = np.issubdtype(array.dtype, np.integer) and scale is None
    return Column(name, array, array.dtype if whole else np.dtype(np.float32), scale)


def target_column(name: str, array: np.ndarray, *, classes: int | None = None) -> Column:
    """Return a target: class numbers become int64, values float32.

    Class numbers are integers or truth values, one an example; with `classes`, integers in any shape.
    """
    single = array.shape[1:] in ((), (1,))
    labels = array.dtype.kind in "biu" and (single or classes is not None)
    return Column(name, array, np.dtype(np.int64 if labels else np.float32))


def weight_column(name: str, array: np.ndarray) -> Column:
    """Return one weight an example, float32 (n,)."""
    return Column(name, array.reshape(len(array)), np.dtype(np.float32))


def outputs_of(parts: Mapping[str, list[Column]], classes: Mapping[str, int]) -> dict[str, Output]:
    """Return what each target asks of an output, from the target columns of every part of the data."""
    outputs = {}
    for column in parts["train"]:
        if column.dtype == np.int64:
            same = [each for part in parts.values() for each in part if each.name == column.name]
            largest = max(int(each.array.max()) for each in same)
            outputs[column.name] = Output(classes.get(column.name, largest + 1), Kind.CLASSES)
        else:
            outputs[column.name] = Output(column.shape[-1] if column.shape else 1, Kind.VALUES)
    return outputs


def label_problems(where: str, columns: list[Column], outputs: Mapping[str, Output]) -> Iterator[str]:
    """Yield the labels that are the number of no class, and the weights and outputs that make no sense."""
    for column in columns:
        if column.dtype != np.int64:
            continue
        units = outputs[column.name].units
        lowest, highest = int(column.array.min()), int(column.array.max())
        if lowest < 0 or highest >= units:
            found = lowest if lowest < 0 else highest
            yield (
                f"{where}: the target {column.name!r} has the label {found}; {units} classes have the labels"
                f" 0 to {units - 1}. Labels count from 0; data.classes says how many"
            )
        elif units < 2:
            yield f"{where}: the target {column.name!r} has one class only; there is nothing to tell apart"
