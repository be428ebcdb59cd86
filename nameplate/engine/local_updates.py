"""Updates by optimizers of Keras, on each replica's own copies of the variables, small variables as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from nameplate.engine import private
from nameplate.engine.collectives import as_vector, from_vector, is_small

# Their update is one formula for every element of every variable, whatever its shape.
_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)


@contextmanager
def updating_locally() -> Iterator[None]:
    """While steps are traced, let each replica apply the updates of every optimizer to its own copies.

    The gradients that reach `apply` must be summed over the replicas already. Then each replica computes the same
    update, no second collective is needed, and a condition around an update (loss scaling, accumulation) is an
    ordinary condition. TFOptimizer would make a merge call of each, which no branch may hold. Afterwards the optimizers
    are Keras' own again: one that trained in here works in `model.fit` and in a custom loop.
    """
    aggregations: dict[int, tuple[keras.Variable, Any]] = {}  # of optimizers' variables, as they are outside
    try:
        with private.patched(_local_methods(aggregations)):
            yield
    finally:
        for variable, aggregation in aggregations.values():
            private.set_aggregation(variable, aggregation)


def _local_methods(aggregations: dict[int, tuple[keras.Variable, Any]]) -> list[private.Patch]:
    """Return the methods that differ while updates are local."""
    applying = [(kind, name, _with_own_copies(getattr(kind, name), aggregations)) for kind, name in private.APPLY]
    return [*private.local_updates(), (*private.UPDATE_STEP, _update_step), *applying]


def _with_own_copies(original: Any, aggregations: dict[int, tuple[keras.Variable, Any]]) -> Any:
    """Assign an optimizer's variables on each replica by itself; an optimizer that is not built yet is built first."""

    def apply(optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
        if not optimizer.built and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(trainable_variables)
        for variable in optimizer.variables:
            aggregations.setdefault(id(variable), (variable, private.aggregation(variable)))
            # With any other aggregation, an assignment in replica context is a merge call.
            private.set_aggregation(variable, tf.VariableAggregation.NONE)
        return original(optimizer, grads, trainable_variables)

    return apply


def _update_step(optimizer: Any, gradients: list[Any], variables: list[Any], learning_rate: Any) -> None:
    """Update the variables with one reading of the step's number and of the learning rate, small variables as one.

    Keras traces all of it for every variable. Measured on two CPU replicas: tracing a step of the default convnet, with
    20 variables, takes 2.1 s of processor time instead of 3.3 s, with 83 variables 9 s instead of 13 s; the steps
    themselves take the same time.
    """
    if isinstance(learning_rate, keras.Variable):
        learning_rate = tf.convert_to_tensor(learning_rate.value)
    with private.counted_once(optimizer):
        small = _small_variables(optimizer, gradients, variables)
        if small:
            chosen = [gradients[index] for index in small], [variables[index] for index in small]
            _update_packed(optimizer, *chosen, learning_rate)
        rest = [index for index in range(len(variables)) if index not in small]
        gradients, variables = [gradients[index] for index in rest], [variables[index] for index in rest]
        private.update_variables(optimizer, gradients, variables, learning_rate)


def _small_variables(optimizer: Any, gradients: list[Any], variables: list[Any]) -> list[int]:
    """Return the indices of the variables that can be updated as one; none if there are fewer than two."""
    if type(optimizer) not in _ELEMENTWISE or "update_step" in vars(optimizer):  # one of `scale_updates`
        return []
    small = [
        index
        for index, (gradient, variable) in enumerate(zip(gradients, variables, strict=True))
        if is_small(gradient) and gradient.dtype == tf.float32 and variable.dtype == "float32"
    ]
    return small if len(small) > 1 else []


def _update_packed(optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
    """Call `update_step` once, with the variables as one and in their place the optimizer's slots too."""
    indices = [private.index_of(optimizer, variable) for variable in variables]
    slots = {
        attribute: PackedVariables([held[index] for index in indices])
        for attribute, held in private.lists_by_variable(optimizer).items()
        if attribute not in private.NO_SLOTS and _holds_variables(held)
    }
    whole = PackedVariables(variables)
    with private.one_variable(optimizer, slots):
        optimizer.update_step(as_vector(gradients), whole, learning_rate)
    for packed in (whole, *slots.values()):
        packed.write_back()


def _holds_variables(held: list[Any]) -> bool:
    """Say whether a list holds slots; a variable that is overwritten with its gradient has None for one."""
    return {isinstance(slot, keras.Variable) for slot in held if slot is not None} == {True}


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
