"""The data of a run: its parts, and what a model has to know about them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nameplate.data.errors import refuse
from nameplate.data.source import Memory, Source, Stream, named
from nameplate.data.splits import Splits, labels_of
from nameplate.naming.names import fault


class TargetKind(enum.StrEnum):
    """What the numbers of a target mean."""

    CLASSES = "classes"  # the index of a class, from 0
    VALUES = "values"  # floats


@dataclass(frozen=True)
class Field:
    """The shape and dtype of an input, without the batch dimension; None for a dimension that varies."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Output:
    """What an output predicts."""

    units: int  # the number of classes, or the width of the values
    kind: TargetKind
    classes: tuple[str, ...] = ()  # names of the classes, if known


@dataclass(frozen=True)
class Shapes:
    """What a model is built for: its inputs and the units of its outputs."""

    inputs: dict[str, Field]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Dataset:
    """The data of a run. Inputs and outputs have the names and the order of the model's."""

    train: Source | Stream
    validation: Source | Stream | None
    test: Source | Stream | None
    inputs: dict[str, Field]
    outputs: dict[str, int]  # units
    kinds: dict[str, TargetKind]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # names of the classes, if known
    columns: tuple[str, ...] = ()  # of a table: those that are inputs, in their order
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the values of those that are text
    skipped: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of each part: the damaged examples left out
    notes: tuple[str, ...] = ()  # what was found on opening that a user should know


Allow = Callable[[str], Any]  # dotted name -> object; raises if the name is not trusted


def describe(splits: Splits, *, inputs: list[str], outputs: Mapping[str, Output]) -> Dataset:
    """Return the dataset of these parts, with these names for inputs and outputs.

    A bare x is named `inputs[0]`; if x is a dict, `inputs` is the order of its keys.

    Raises:
        DataError: a name that no layer can have or that is used twice, or parts that differ in form.
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
    """Yield names that no layer may have: a model names its input and output layers after the data."""
    for name in (*inputs, *outputs):
        if reason := fault(name):
            yield f"{name!r} cannot name an input or an output of a model: {reason}"
    folded = [name.casefold() for name in (*inputs, *outputs)]
    for name in sorted({name for name in folded if folded.count(name) > 1}):
        yield f"{name!r} names two inputs or outputs; each needs a name of its own"


def _part_problems(splits: Splits) -> Iterator[str]:
    """Yield parts whose examples differ in form from the training examples; other sizes are the model's to refuse."""
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        if part is not None and _form(part, sizes=False) != _form(splits.train, sizes=False):
            yield f"the examples of {name} are {_form(part)}, and the training examples are {_form(splits.train)}"


def _form(source: Source | Stream, *, sizes: bool = True) -> str:
    """Return the shapes and dtypes of an example as text; without `sizes`, ranks instead of shapes."""

    def text(part: Any) -> str:
        if isinstance(part, dict):
            return "{" + ", ".join(f"{name}: {text(leaf)}" for name, leaf in sorted(part.items())) + "}"
        return f"{part.dtype.name} {part.shape if sizes else part.shape.rank}"

    return ", ".join(text(part) for part in source.spec())


_LISTED = 4  # classes whose counts are listed; of more, the rarest and the most frequent
_MOST = 10_000  # larger integers are not classes


def summary(
    parts: Mapping[str, Source | Stream | None],
    classes: Mapping[str, Sequence[str]] | None = None,
    *,
    target: str = "y",
) -> list[str]:
    """Return lines about data before it is trained on: examples of each part, and how many each class has.

    `parts` begins with the training data; classes that are known without reading are counted there. `classes`
    names them, and `target` a bare array of targets.
    """
    sizes = [f"{name} {_size(source)}" for name, source in parts.items() if source is not None]
    source = next(iter(parts.values()))
    targets = {} if source is None or isinstance(source, Stream) else labels_of(source, target)
    counted = {name: _counts(array) for name, array in targets.items()}
    lines = [f"  {name}: {_frequencies(each, (classes or {}).get(name))}" for name, each in counted.items() if each]
    return [f"data: {', '.join(sizes)} examples", *lines]


def _size(source: Source | Stream) -> str:
    return "an unknown number of" if source.size is None else f"{source.size:,}"


def _counts(array: np.ndarray | None) -> dict[int, int]:
    """Return how many examples each label has, in the order of the labels; empty of what cannot be labels."""
    if array is None or array.dtype.kind not in "iu" or array.size != len(array) or not len(array):
        return {}
    if array.min() < 0 or array.max() >= _MOST:
        return {}
    return {label: int(count) for label, count in enumerate(np.bincount(array.ravel())) if count}


def _frequencies(counts: Mapping[int, int], names: Sequence[str] | None) -> str:
    def called(label: int) -> str:
        return names[label] if names and label < len(names) else str(label)

    if len(counts) <= _LISTED:
        return ", ".join(f"{count:,} of {called(label)}" for label, count in counts.items())
    few, many = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    return f"{len(counts)} classes, {counts[few]:,} ({called(few)}) to {counts[many]:,} ({called(many)}) examples each"


def not_finite(dataset: Dataset) -> Iterator[str]:
    """Yield a message for each array in memory with NaN or infinite values: how many examples, and the first."""
    for part in ("train", "validation", "test"):
        source = getattr(dataset, part)
        if not isinstance(source, Memory):
            continue
        for column, default in zip(source.arrays(), ("x", "y", "sample_weight"), strict=False):
            for name, array in named(column, default).items():
                if rows := _not_finite_rows(array):
                    yield (
                        f"{name!r} of the {part} data has NaN or infinite values in {len(rows)} of {len(array)} "
                        f"examples, the first at {rows[0]}; the loss may not show it"
                    )


def _not_finite_rows(array: np.ndarray | None) -> list[int]:
    if array is None or not np.issubdtype(array.dtype, np.floating):
        return []
    # One pass without a temporary array: a sum is finite only if every number is. It may also overflow, hence the loop.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return []
    return [index for index, row in enumerate(array) if not np.isfinite(row).all()]


@dataclass(frozen=True)
class Column:
    """An array (n, ...), possibly still on disk, and the conversion of its rows."""

    name: str
    array: np.ndarray
    dtype: np.dtype
    scale: float | None = None
    as_it_is: bool = False  # else integers (n, 1), as labels are often stored, become (n,)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        shape = self.array.shape[1:]
        return () if self.dtype == np.int64 and shape == (1,) and not self.as_it_is else shape

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.array)

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """Return the rows at `indices`, converted."""
        rows = np.asarray(self.array[indices]).astype(self.dtype)
        rows = rows if self.scale is None else rows * self.dtype.type(self.scale)
        return np.ascontiguousarray(rows).reshape(-1, *self.shape)


def input_column(name: str, array: np.ndarray, *, scale: float | None = None) -> Column:
    """Return an input: integers keep their dtype unless scaled; all else becomes float32."""
    whole = np.issubdtype(array.dtype, np.integer) and scale is None
    return Column(name, array, array.dtype if whole else np.dtype(np.float32), scale)


def target_column(name: str, array: np.ndarray, *, classes: int | None = None) -> Column:
    """Return a target: class indices become int64, values float32.

    Integers or truth values, one an example, are class indices; with `classes`, integers of any shape are.
    """
    single = array.shape[1:] in ((), (1,))
    labels = array.dtype.kind in "biu" and (single or classes is not None)
    return Column(name, array, np.dtype(np.int64 if labels else np.float32))


def weight_column(name: str, array: np.ndarray) -> Column:
    """Return a column of one weight an example, float32 (n,)."""
    return Column(name, array.reshape(len(array)), np.dtype(np.float32))


def outputs_of(parts: Mapping[str, list[Column]], classes: Mapping[str, int]) -> dict[str, Output]:
    """Return the output that each target asks for, from the target columns of every part of the data."""
    outputs = {}
    for column in parts["train"]:
        if column.dtype == np.int64:
            same = [other for part in parts.values() for other in part if other.name == column.name]
            largest = max(int(other.array.max()) for other in same)
            outputs[column.name] = Output(classes.get(column.name, largest + 1), TargetKind.CLASSES)
        else:
            outputs[column.name] = Output(column.shape[-1] if column.shape else 1, TargetKind.VALUES)
    return outputs


def label_problems(where: str, columns: list[Column], outputs: Mapping[str, Output]) -> Iterator[str]:
    """Yield labels outside the classes, and targets with only one class."""
    for column in columns:
        if column.dtype != np.int64:
            continue
        units = outputs[column.name].units
        lowest, highest = int(column.array.min()), int(column.array.max())
        if lowest < 0 or highest >= units:
            label = lowest if lowest < 0 else highest
            yield (
                f"{where}: the target {column.name!r} has the label {label}; {units} classes have the labels"
                f" 0 to {units - 1}. Labels count from 0; data.classes sets the number of classes"
            )
        elif units < 2:
            yield f"{where}: the target {column.name!r} has only one class; there is nothing to learn"
