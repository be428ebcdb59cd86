"""Sparse examples, made dense one step at a time: replicas divide rows, and sparse tensors cannot be sliced by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.source import absent, mapped
from nameplate.errors import NameplateError


@dataclass(frozen=True)
class SparseRows:
    """A sparse array (n, *shape) as compressed sparse rows (CSR)."""

    starts: np.ndarray  # (n + 1,): the start of each row among the values
    places: np.ndarray  # (values,): the position of each value in its flattened row
    values: np.ndarray
    shape: tuple[int, ...]  # of a row

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the rows."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """Number of axes of the whole array."""
        return 1 + len(self.shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.starts) - 1

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return dense rows (indices, *shape); values at the same place are added."""
        begins = self.starts[indices]
        counts = self.starts[indices + 1] - begins
        ends = np.cumsum(counts)
        chosen = np.arange(counts.sum()) + np.repeat(begins - ends + counts, counts)
        dense = np.zeros((len(indices), int(np.prod(self.shape))), self.dtype)
        np.add.at(dense, (np.repeat(np.arange(len(indices)), counts), self.places[chosen]), self.values[chosen])
        return dense.reshape(-1, *self.shape)


def sparse_rows(leaf: Any) -> SparseRows | None:
    """Return a `tf.SparseTensor` or a SciPy sparse matrix by rows, floats in Keras' floatx; None for anything else."""
    if isinstance(leaf, tf.SparseTensor):
        shape = tuple(leaf.shape)
        indices, values = leaf.indices.numpy(), leaf.values.numpy()
        order = np.argsort(indices[:, 0], kind="stable")
        starts = np.searchsorted(indices[order, 0], np.arange(shape[0] + 1))
        places = np.ravel_multi_index(tuple(indices[order, 1:].T), shape[1:])
        return SparseRows(starts, places, in_floatx(values[order]), shape[1:])
    if type(leaf).__module__.startswith("scipy.sparse") and len(leaf.shape) == 2:
        matrix = leaf.tocsr()
        return SparseRows(np.asarray(matrix.indptr), matrix.indices, in_floatx(matrix.data), tuple(matrix.shape[1:]))
    return None


def dense(dataset: tf.data.Dataset, name: str) -> tf.data.Dataset:
    """Return the dataset with its sparse tensors made dense.

    Raises:
        NameplateError: elements whose rows differ in size, such as ragged tensors.
    """
    specs = [spec for spec in keras.tree.flatten(dataset.element_spec) if not absent(spec)]
    other = {type(spec).__name__ for spec in specs if not isinstance(spec, tf.TensorSpec | tf.SparseTensorSpec)}
    if other:
        raise NameplateError(
            f"{name}: elements of {', '.join(sorted(other))} cannot be divided among replicas; "
            "give tensors: for ragged ones, x.to_tensor() in a dataset.map(...), or padded_batch instead of batch"
        )
    if not any(isinstance(spec, tf.SparseTensorSpec) for spec in specs):
        return dataset
    several = isinstance(dataset.element_spec, tuple)

    def made_dense(*parts: Any) -> Any:
        return mapped(
            lambda leaf: tf.sparse.to_dense(leaf) if isinstance(leaf, tf.SparseTensor) else leaf,
            parts if several else parts[0],
        )

    return dataset.map(made_dense, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def in_floatx(array: np.ndarray) -> np.ndarray:
    """Return an array of floats, also bfloat16, in Keras' floatx, as Keras casts arrays; others unchanged."""
    floats = array.dtype.kind == "f" or "float" in array.dtype.name
    return array.astype(keras.config.floatx(), copy=False) if floats else array
