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

# What Keras takes as a batch: x, (x,), (x, y) or (x, y, sample_weight), each a leaf, a dict of leaves by name or a
# tuple. The leaves are tensors, arrays or `tf.TensorSpec`s, or None for an output without a target. The sources of a
# configured run have (x, y) or (x, y, sample_weight).
Example: TypeAlias = Any


@runtime_checkable
class Source(Protocol):
    """Examples with random access."""

    size: int  # examples

    def spec(self) -> Example:
        """Return the structure of one example, its leaves `tf.TensorSpec`s without the batch dimension."""

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices`, int64 (n,), with the leading dimension n; in any order, with repeats.

        It must be traceable into a `tf.function` and a `tf.data` map.
        """

    def arrays(self) -> Example | None:
        """Return the whole content as NumPy arrays; None if it should not be held in memory."""


class Stream:
    """The examples of a `tf.data.Dataset`, one after another.

    `batched` says that its elements are batches; `first` is the step of the run at which it begins.
    """

    def __init__(self, dataset: tf.data.Dataset, *, batched: bool = False, first: int = 0) -> None:
        self.dataset, self.batched, self.first = dataset, batched, first
        self._sizes: list[int] | None = None
        cardinality = int(dataset.cardinality())
        self.size = cardinality if cardinality >= 0 else None  # elements; None: unknown or infinite
        self.endless = cardinality == int(tf.data.INFINITE_CARDINALITY)
        # Examples of every batch if the dataset declares it, as with drop_remainder=True; else None.
        self.batch = leaves(dataset.element_spec)[0].shape[:1].as_list()[0] if batched else None

    def held(self, limit: int) -> int | None:
        """Return the number of elements, counted up to `limit` if it is unknown; None for `limit` or more.

        Nothing is read if the dataset declares one batch size: then it does not matter whether it ends.
        """
        if self.size is not None or self.endless or self.batch:
            return self.size
        counted = len(self.sizes(limit))
        return counted if counted < limit else None

    def sizes(self, limit: int | None = None) -> list[int]:
        """Return the number of examples in each batch, or in each of the first `limit`; they are read once."""
        if self._sizes is None:
            dataset = self.dataset if limit is None else self.dataset.take(limit)
            sizes = [len(leaves(element)[0]) for element in dataset]
            if limit is not None and len(sizes) >= limit:
                return sizes  # perhaps not all of them
            self._sizes = sizes
        return self._sizes

    def differs(self) -> bool:
        """Say whether two passes over the dataset begin with different elements."""
        first, again = (
            [tf.io.serialize_tensor(leaf).numpy() for element in self.dataset.take(1) for leaf in leaves(element)]
            for _ in range(2)
        )
        return first != again

    def spec(self) -> Example:
        """Return the structure of one example, as `Source.spec` does."""
        drop = 1 if self.batched else 0
        return mapped(lambda leaf: tf.TensorSpec(leaf.shape[drop:], leaf.dtype), self.dataset.element_spec)


@tf.autograph.experimental.do_not_convert  # a `tf.data` pipeline would try to, and fail
def mapped(change: Callable[[Any], Any], example: Example) -> Any:
    """Return the example with each leaf changed, in the same structure; None stays None."""
    return keras.tree.map_structure(lambda leaf: None if absent(leaf) else change(leaf), example, none_is_leaf=False)


@tf.autograph.experimental.do_not_convert
def leaves(example: Example) -> list[Any]:
    """Return the leaves of an example, in a fixed order, without those that are None."""
    return [leaf for leaf in keras.tree.flatten(example) if not absent(leaf)]


def absent(leaf: Any) -> bool:
    """Say whether a leaf, or the `tf.TypeSpec` of one, stands for None."""
    return leaf is None or isinstance(leaf, tf.NoneTensorSpec)


def bundle(leaves: dict[str, Any]) -> Any:
    """Return a single leaf bare, several by name: the form of x and y in an `Example`."""
    return next(iter(leaves.values())) if len(leaves) == 1 else leaves


def named(part: Any, default: str) -> dict[str, Any]:
    """Return the leaves of x or y by name; a bare leaf is named `default`."""
    return dict(part) if isinstance(part, dict) else {default: part}


class Memory:
    """A source of NumPy arrays whose first dimension counts the examples."""

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
    """An array in host memory that graphs capture by handle; it is freed with this object.

    A tf.data graph lives until Python collects cycles, and a tensor that it captures lives as long. A constant inside
    the graph would also be limited to 2 GiB.
    """

    def __init__(self, array: np.ndarray) -> None:
        with tf.init_scope(), tf.device("CPU:0"):  # outside the graph that is being traced
            value = tf.convert_to_tensor(array)
            name = f"examples_{uuid.uuid4().hex}"
            self._handle = tf.raw_ops.VarHandleOp(dtype=value.dtype, shape=value.shape, shared_name=name)
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)
        self._dtype, self._shape = value.dtype, value.shape
        weakref.finalize(self, _destroy, self._handle).atexit = False

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        """Return the rows at `indices` (n,)."""
        rows = tf.raw_ops.ResourceGather(resource=self._handle, indices=indices, dtype=self._dtype)
        return tf.ensure_shape(rows, [*indices.shape, *self._shape[1:]])


def _destroy(handle: tf.Tensor) -> None:
    with tf.init_scope():
        tf.raw_ops.DestroyResourceOp(resource=handle)
