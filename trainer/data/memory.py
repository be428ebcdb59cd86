"""Examples held in memory."""

from __future__ import annotations

import functools
import uuid
import weakref
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
        return mapped(lambda held: held.at(indices), self._held)

    def arrays(self) -> Example:
        """Return the arrays themselves."""
        return self._content

    @functools.cached_property
    def _held(self) -> Any:
        return mapped(_Held, self._content)


class _Held:
    """An array in host memory, for graphs: each captures where it is, and no data, which is gone with this object.

    A graph of tf.data lives until Python collects cycles, and what it captures as a tensor with it; what is written
    into it may not exceed 2 GiB besides.
    """

    def __init__(self, array: np.ndarray) -> None:
        with tf.init_scope(), tf.device("CPU:0"):  # outside of the graph that is being traced
            value = tf.convert_to_tensor(array)
            name = f"examples_{uuid.uuid4().hex}"
            self._handle = tf.raw_ops.VarHandleOp(dtype=value.dtype, shape=value.shape, shared_name=name)
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)
        self._dtype, self._shape = value.dtype, value.shape
        weakref.finalize(self, _forget, self._handle).atexit = False

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        """Return the rows at `indices` (n,)."""
        rows = tf.raw_ops.ResourceGather(resource=self._handle, indices=indices, dtype=self._dtype)
        return tf.ensure_shape(rows, [*indices.shape, *self._shape[1:]])


def _forget(handle: tf.Tensor) -> None:
    with tf.init_scope():
        tf.raw_ops.DestroyResourceOp(resource=handle)
