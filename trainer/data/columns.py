"""Arrays as inputs, targets and weights: which dtype each gets, and what a target asks of an output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from trainer.data.dataset import Kind, Output


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
