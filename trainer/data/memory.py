"""Examples held in memory."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.source import Example, leaves, mapped


class Memory:
    """A source whose examples are numpy arrays, with the examples along the first dimension."""

    def __init__(self, content: Example) -> None:
        self._content: Example = mapped(np.ascontiguousarray, content)
        self.size = len(leaves(self._content)[0])

    def spec(self) -> Example:
        """Return the structure of one example."""
        return mapped(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), self._content)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,)."""
        return mapped(lambda leaf: tf.gather(leaf, indices), self._tensors)

    def arrays(self) -> Example:
        """Return the arrays themselves."""
        return self._content

    @functools.cached_property
    def _tensors(self) -> Any:
        # Made outside of the graph that is being traced: every trace then captures this one copy in host
        # memory, instead of writing the data into its graph, which may not exceed 2 GiB.
        with tf.init_scope(), tf.device("CPU:0"):
            return mapped(tf.convert_to_tensor, self._content)
