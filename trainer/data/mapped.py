"""Examples in arrays that stay on the disk."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.data.columns import Column
from trainer.data.source import Example, leaves, mapped
from trainer.data.sparse import SparseRows


class Mapped:
    """A source that reads the rows it is asked for from memory-mapped arrays."""

    def __init__(self, content: Example) -> None:
        """Take an example whose leaves are `Column`s, or have rows of a shape and dtype as these have."""
        self._columns: list[Column | SparseRows] = leaves(content)
        self._content = content
        self.size = len(self._columns[0])

    def spec(self) -> Example:
        """Return the structure of one example."""
        return mapped(lambda column: tf.TensorSpec(column.shape, column.dtype), self._content)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,)."""
        dtypes = [each.dtype for each in self._columns]
        read = tf.numpy_function(self._rows, [indices], dtypes, stateful=False)
        for leaf, column in zip(read, self._columns, strict=True):
            leaf.set_shape([indices.shape[0], *column.shape])
        rest = iter(read)
        return mapped(lambda _: next(rest), self._content)

    def arrays(self) -> None:
        """Return None: what is mapped is taken to be larger than the memory."""

    def _rows(self, indices: np.ndarray) -> list[np.ndarray]:
        return [each.rows(indices) for each in self._columns]
