"""Examples in arrays that stay on the disk."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.data.columns import Column
from trainer.data.source import Example


class Mapped:
    """A source that reads the rows it is asked for from memory-mapped arrays."""

    def __init__(self, content: Example) -> None:
        """Take an example whose leaves are `Column`s."""
        self._columns: list[Column] = tf.nest.flatten(content)
        self._content = content
        self.size = len(self._columns[0].array)

    def spec(self) -> Example:
        """Return the structure of one example."""
        specs = [tf.TensorSpec(each.shape, each.dtype) for each in self._columns]
        return tf.nest.pack_sequence_as(self._content, specs)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,)."""
        dtypes = [each.dtype for each in self._columns]
        leaves = tf.numpy_function(self._rows, [indices], dtypes, stateful=False)
        for leaf, column in zip(leaves, self._columns, strict=True):
            leaf.set_shape([indices.shape[0], *column.shape])
        return tf.nest.pack_sequence_as(self._content, leaves)

    def arrays(self) -> None:
        """Return None: what is mapped is taken to be larger than the memory."""

    def _rows(self, indices: np.ndarray) -> list[np.ndarray]:
        return [each.rows(indices) for each in self._columns]
