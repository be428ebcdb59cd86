"""Examples: with random access (`Source`), or one after another (`Stream`); and the arrays of a `Memory`."""

from __future__ import annotations

import functools
import uuid
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import keras
import numpy as np
import tensorflow as tf

# What Keras takes for a batch: x, (x,), (x, y) or (x, y, sample_weight), where each is a leaf, a dict of leaves by name
# or a tuple. The leaves are tensors, arrays or `tf.TensorSpec`s, or None for a target that an output does not have.
# Sources of a configured run have (x, y) or (x, y, sample_weight).
Example: TypeAlias = Any


@runtime_checkable
class Source(Protocol):
    """Examples with random access."""

    size: int  # examples

    def spec(self) -> Example:
        """Return the structure of one example, its leaves `tf.TensorSpec`s without batch dimension."""

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices`, int64 (n,), in any order and with repeats; leading dimension n.

        It can be traced into a `tf.function` or a `tf.data` map.
        """

    def arrays(self) -> Example | None:
        """Return the whole content as numpy arrays, if it is or may be held in memory; None otherwise."""


class Stream:
    """Examples of a `tf.data.Dataset`, one after another; `batched` where its elements are batches.

    It begins at the step `first` of the run that it is trained on in.
    """

    def __init__(self, dataset: tf.data.Dataset, *, batched: bool = False, first: int = 0) -> None:
        self.dataset, self.batched, self.first = dataset, batched, first
        self._sizes: list[int] | None = None
        cardinality = int(dataset.cardinality())
        self.size = cardinality if cardinality >= 0 else None  # elements; None: unknown or without end
        self.endless = cardinality == int(tf.data.INFINITE_CARDINALITY)
        # Examples of every batch where the dataset declares them, since it drops a smaller last one; else None.
        self.batch = leaves(dataset.element_spec)[0].shape[:1].as_list()[0] if batched else None

    def held(self, limit: int) -> int | None:
        """Return how many elements there are, counted up to `limit` where it is not known; None for more than that.

        Nothing is read where all batches are declared to be as large: whether they end makes no difference then.
        """
        if self.size is not None or self.endless or self.batch:
            return self.size
        counted = len(self.sizes(limit))
        return counted if counted < limit else None

    def sizes(self, limit: int | None = None) -> list[int]:
        """Return the number of examples in each batch, of the first `limit` where that is given; they are read once."""
        if self._sizes is None:
            dataset = self.dataset if limit is None else self.dataset.take(limit)
            found = [len(leaves(element)[0]) for element in dataset]
            if limit is not None and len(found) >= limit:
                return found
            self._sizes = found
        return self._sizes

    def differs(self) -> bool:
        """Say whether two passes begin with different elements; both are begun."""
        first, again = (
            [tf.io.serialize_tensor(leaf).numpy() for element in self.dataset.take(1) for leaf in leaves(element)]
            for _ in range(2)
        )
        return first != again

    def spec(self) -> Example:
        """Return the structure of one example, as `Source.spec`."""
        drop = 1 if self.batched else 0
        return mapped(lambda leaf: tf.TensorSpec(leaf.shape[drop:], leaf.dtype), self.dataset.element_spec)


@tf.autograph.experimental.do_not_convert  # which a `tf.data` pipeline would, and cannot
def mapped(change: Callable[[Any], Any], example: Example) -> Any:
    """Return the example with each leaf changed, in the same structure; what is None stays None."""
    return keras.tree.map_structure(lambda leaf: None if absent(leaf) else change(leaf), example, none_is_leaf=False)


@tf.autograph.experimental.do_not_convert
def leaves(example: Example) -> list[Any]:
    """Return the leaves of an example, in a fixed order, without those that are None."""
    return [leaf for leaf in keras.tree.flatten(example) if not absent(leaf)]


def absent(leaf: Any) -> bool:
    """Say whether a leaf, or the `tf.TypeSpec` of one, stands for None."""
    return leaf is None or isinstance(leaf, tf.NoneTensorSpec)


def bundle(leaves: dict[str, Any]) -> Any:
    """Return the only leaf bare, or several by name: the form of x and of y in an `Example`."""
    return next(iter(leaves.values())) if len(leaves) == 1 else leaves


def named(part: Any, default: str) -> dict[str, Any]:
    """Return x or y by name; a bare leaf gets the name `default`."""
    return dict(part) if isinstance(part, dict) else {default: part}


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
