"""Reading a source as a run does: in the map of a pipeline, in any order and with repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.data.source import Source


def piped(source: Source, indices: list[int], *, batch: int = 3) -> Any:
    """Return the examples at `indices` as numpy, loaded in portions inside a tf.data map."""
    pipeline = tf.data.Dataset.from_tensor_slices(np.array(indices, np.int64)).batch(batch).map(source.load)
    assert_form(pipeline.element_spec, source.spec())
    portions = [tf.nest.map_structure(lambda leaf: leaf.numpy(), each) for each in pipeline]
    return tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *portions)


def whole(source: Source) -> Any:
    """Return all examples, in order."""
    return piped(source, list(range(source.size)), batch=7)


def assert_form(batched: Any, single: Any) -> None:
    """Check that a batch has the structure, dtypes and shapes of an example, and one more dimension."""
    tf.nest.assert_same_structure(batched, single)
    for many, one in zip(tf.nest.flatten(batched), tf.nest.flatten(single), strict=True):
        assert (many.dtype, many.shape[1:]) == (one.dtype, one.shape)
