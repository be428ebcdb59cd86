"""What a source of examples is."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import tensorflow as tf

# (x, y) or (x, y, sample_weight), where x and y are each one leaf or a dict of leaves by name. The leaves are
# tensors, arrays or `tf.TensorSpec`s.
Example: TypeAlias = tuple[Any, ...]


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
        cardinality = int(dataset.cardinality())
        self.size = cardinality if cardinality >= 0 else None  # elements; None: unknown or without end
        self.endless = cardinality == int(tf.data.INFINITE_CARDINALITY)
        # Examples of every batch where the dataset declares them, since it drops a smaller last one; else None.
        self.batch = tf.nest.flatten(dataset.element_spec)[0].shape[:1].as_list()[0] if batched else None

    def spec(self) -> Example:
        """Return the structure of one example, as `Source.spec`."""
        drop = 1 if self.batched else 0
        return tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(leaf.shape[drop:], leaf.dtype), tuple(self.dataset.element_spec)
        )


def bundle(leaves: dict[str, Any]) -> Any:
    """Return the only leaf bare, or several by name: the form of x and of y in an `Example`."""
    return next(iter(leaves.values())) if len(leaves) == 1 else leaves


def named(part: Any, default: str) -> dict[str, Any]:
    """Return x or y by name; a bare leaf gets the name `default`."""
    return dict(part) if isinstance(part, dict) else {default: part}
