"""Packing: small tensors of a dtype go through an operation as one vector, and come out in their shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

SMALL = 1 << 16  # elements; copying a larger tensor into a vector costs more than handling it by itself


def packed(change: Callable[[list[Any]], Sequence[Any]], values: Sequence[Any]) -> list[Any]:
    """Return `change(values)`, for an elementwise function that is called with fewer, larger tensors.

    Large tensors, `tf.IndexedSlices` and tensors of unknown shape pass as they are.
    """
    groups = _groups(values)
    grouped = {index for group in groups for index in group}
    rest = [index for index in range(len(values)) if index not in grouped]
    vectors = [as_vector([values[index] for index in group]) for group in groups]
    changed = list(change([*vectors, *(values[index] for index in rest)]))
    results: dict[int, Any] = dict(zip(rest, changed[len(groups) :], strict=True))
    for group, vector in zip(groups, changed, strict=False):
        results |= zip(group, from_vector(vector, [values[index].shape for index in group]), strict=True)
    return [results[index] for index in range(len(values))]


def as_vector(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the elements of all the tensors, (n,), in their order."""
    return tf.concat([value if value.shape.rank == 1 else tf.reshape(value, [-1]) for value in values], 0)


def from_vector(vector: tf.Tensor, shapes: Sequence[tf.TensorShape]) -> list[tf.Tensor]:
    """Return the tensors of these shapes that `as_vector` was made from."""
    pieces = tf.split(vector, [shape.num_elements() for shape in shapes])
    return [piece if shape.rank == 1 else tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def is_small(value: Any) -> bool:
    """Say whether a tensor has few elements, and a known shape."""
    if isinstance(value, tf.IndexedSlices) or not value.shape.is_fully_defined():
        return False
    return 0 < value.shape.num_elements() <= SMALL


class PackedVariables:
    """Several variables as one, (n,), for an optimizer's `update_step`; assigned values reach them in `write_back`."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = variables
        self._value = self._read = as_vector([tf.convert_to_tensor(variable) for variable in variables])
        self.dtype, self.shape = self._value.dtype.name, self._value.shape

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return self._value if dtype is None else tf.cast(self._value, dtype)

    def assign(self, value: Any) -> None:
        """Replace the value."""
        self._value = tf.convert_to_tensor(value)

    def assign_add(self, value: Any) -> None:
        """Add to the value."""
        self._value += value

    def assign_sub(self, value: Any) -> None:
        """Subtract from the value."""
        self._value -= value

    def write_back(self) -> None:
        """Assign each variable its part, if anything was assigned."""
        if self._value is not self._read:
            values = from_vector(self._value, [variable.shape for variable in self._variables])
            for variable, value in zip(self._variables, values, strict=True):
                variable.assign(value)


def _groups(values: Sequence[Any]) -> list[list[int]]:
    """Return the indices of small tensors by dtype, where there are several of one."""
    of_dtype: dict[tf.DType, list[int]] = {}
    for index, value in enumerate(values):
        if is_small(value):
            of_dtype.setdefault(value.dtype, []).append(index)
    return [group for group in of_dtype.values() if len(group) > 1]
