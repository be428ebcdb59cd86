"""Examples in the arrays of an `.npz` file, or in `.npy` files that stay on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from nameplate.data.config import ArraysConfig
from nameplate.data.dataset import (
    Column,
    Dataset,
    describe,
    input_column,
    label_problems,
    outputs_of,
    target_column,
    weight_column,
)
from nameplate.data.errors import refuse
from nameplate.data.source import Example, Memory, Source, bundle, leaves, mapped
from nameplate.data.sparse import SparseRows
from nameplate.data.splits import split


class MappedArrays:
    """A source that reads rows from memory-mapped arrays as they are asked for."""

    def __init__(self, content: Example) -> None:
        """Take an example whose leaves are `Column`s or `SparseRows`."""
        self._columns: list[Column | SparseRows] = leaves(content)
        self._content = content
        self.size = len(self._columns[0])

    def spec(self) -> Example:
        """Return the structure of one example."""
        return mapped(lambda column: tf.TensorSpec(column.shape, column.dtype), self._content)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,)."""
        dtypes = [column.dtype for column in self._columns]
        read = tf.numpy_function(self._rows, [indices], dtypes, stateful=False)
        for leaf, column in zip(read, self._columns, strict=True):
            leaf.set_shape([indices.shape[0], *column.shape])
        arrays = iter(read)
        return mapped(lambda _: next(arrays), self._content)

    def arrays(self) -> None:
        """Return None: mapped files are assumed to be larger than the memory."""

    def _rows(self, indices: np.ndarray) -> list[np.ndarray]:
        return [column.rows(indices) for column in self._columns]


@dataclass(frozen=True)
class PartColumns:
    """The columns of one part of the data: training, validation or test."""

    inputs: list[Column]
    targets: list[Column]
    weights: list[Column]

    def example(self) -> Example:
        """Return the structure of an example, its leaves columns."""
        x, y = (bundle({column.name: column for column in group}) for group in (self.inputs, self.targets))
        return (x, y, *self.weights)


def open_arrays(config: ArraysConfig) -> Dataset:
    """Return the arrays that the configuration names, as inputs and targets under their keys.

    An `.npz` file is read into memory; the `.npy` files of a folder are mapped and read during training.

    Raises:
        DataError: labels outside the classes, or files whose arrays differ in form.
    """
    paths = {"train": config.path, "validation": config.validation_path, "test": config.test_path}
    given = {key: Path(path).expanduser() for key, path in paths.items() if path}
    parts = {key: _part(_read(path, config.keys()), config) for key, path in given.items()}
    outputs = outputs_of({key: part.targets for key, part in parts.items()}, config.classes)
    refuse(problem for key, part in parts.items() for problem in label_problems(str(given[key]), part.targets, outputs))
    sources = {key: _source(part, mapped=given[key].is_dir()) for key, part in parts.items()}
    divided = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    return describe(divided, inputs=config.inputs, outputs=outputs)


def _read(path: Path, keys: list[str]) -> dict[str, np.ndarray]:
    if path.is_dir():
        return {key: np.load(path / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in keys}
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in keys}


def _part(arrays: Mapping[str, np.ndarray], config: ArraysConfig) -> PartColumns:
    return PartColumns(
        [input_column(key, arrays[key], scale=config.scale) for key in config.inputs],
        [target_column(key, arrays[key], classes=config.classes.get(key)) for key in config.targets],
        [weight_column(key, arrays[key]) for key in [config.sample_weight] if key],
    )


def _source(part: PartColumns, *, mapped: bool) -> Source:
    if mapped:
        return MappedArrays(part.example())
    return Memory(tf.nest.map_structure(lambda column: column.rows(slice(None)), part.example()))
