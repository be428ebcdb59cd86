"""Tensors in one piece: small ones of a dtype go through an operation as one vector, and come out in their shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

SMALL = 1 << 16  # elements; to copy a larger tensor costs more than to handle it by itself


def in_one_piece(change: Callable[[list[Any]], Sequence[Any]], values: Sequence[Any]) -> list[Any]:
    """Return `change(values)`, for a change of each element by itself that is called with fewer, larger tensors.

    Large tensors, `tf.IndexedSlices` and shapes that are not known pass through as they are.
    """
    groups = _groups(values)
    packed = {index for group in groups for index in group}
    rest = [index for index in range(len(values)) if index not in packed]
    pieces = [flat([values[index] for index in group]) for group in groups]
    changed = list(change([*pieces, *(values[index] for index in rest)]))
    found: dict[int, Any] = dict(zip(rest, changed[len(groups) :], strict=True))
    for group, piece in zip(groups, changed, strict=False):
        found |= zip(group, apart(piece, [values[index].shape for index in group]), strict=True)
    return [found[index] for index in range(len(values))]


def flat(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the elements of all the tensors, (n,), in their order."""
    return tf.concat([each if each.shape.rank == 1 else tf.reshape(each, [-1]) for each in values], 0)


def apart(vector: tf.Tensor, shapes: Sequence[tf.TensorShape]) -> list[tf.Tensor]:
    """Return the tensors of these shapes that `flat` made a vector of."""
    parts = tf.split(vector, [shape.num_elements() for shape in shapes])
    return [part if shape.rank == 1 else tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def is_small(value: Any) -> bool:
    """Say whether a tensor's elements are few, and how many is known."""
    if isinstance(value, tf.IndexedSlices) or not value.shape.is_fully_defined():
        return False
    return 0 < value.shape.num_elements() <= SMALL


class Together:
    """Several variables as one, (n,): what is assigned to it reaches them when it is written back."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = variables
        self._value = self._read = flat([tf.convert_to_tensor(each) for each in variables])
        self.dtype, self.shape = self._value.dtype.name, self._value.shape

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return self._value if dtype is None else tf.cast(self._value, dtype)

    def assign(self, value: Any) -> None:
        """Take another value."""
        self._value = tf.convert_to_tensor(value)

    def assign_add(self, value: Any) -> None:
        """Add to the value."""
        self._value += value

    def assign_sub(self, value: Any) -> None:
        """Take from the value."""
        self._value -= value

    def write_back(self) -> None:
        """Assign each variable its part, if any was assigned."""
        if self._value is not self._read:
            values = apart(self._value, [each.shape for each in self._variables])
            for variable, value in zip(self._variables, values, strict=True):
                variable.assign(value)


def _groups(values: Sequence[Any]) -> list[list[int]]:
    """Return the places of small tensors by dtype, where there are several of one."""
    found: dict[tf.DType, list[int]] = {}
    for index, value in enumerate(values):
        if is_small(value):
            found.setdefault(value.dtype, []).append(index)
    return [group for group in found.values() if len(group) > 1]
