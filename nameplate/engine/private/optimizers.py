"""Optimizers that update each replica's copies, small variables as one, and some at rates of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.optimizers.base_optimizer import BaseOptimizer

from nameplate.engine.packing import Together, flat, is_small

# What TFOptimizer sends through cross-replica updates, and BaseOptimizer does with plain assignments.
_UPDATES = (
    "_apply_weight_decay",
    "_backend_increment_gradient_accumulators",
    "_overwrite_model_variables_with_average_value",
)
# Their update is one formula for every element of every variable, whatever its shape.
_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)
_APPLYING = (BaseOptimizer, keras.optimizers.LossScaleOptimizer, keras.optimizers.MultiOptimizer)  # have an `apply`
_NO_SLOTS = ("_variables", "_trainable_variables", "_accumulated_gradients", "_model_variables_moving_average")


@contextmanager
def updating_locally() -> Iterator[None]:
    """While steps are traced, let each replica apply the updates of every optimizer to its own copies.

    The gradients that reach `apply` must already be summed over the replicas: then each replica computes the same
    update, no second collective is needed, and a condition around an update (loss scaling, accumulation) is an
    ordinary condition. Through TFOptimizer each would be a merge call, which no branch may hold. Afterwards the
    optimizers are Keras' own again: one that went through it works in `model.fit` and in a custom loop.
    """
    held: dict[int, tuple[Any, Any]] = {}  # variables of optimizers, and the aggregation that each has otherwise
    before = [(place, name, getattr(place, name)) for place, name, _ in _local(held)]
    try:
        for place, name, changed in _local(held):
            setattr(place, name, changed)
        yield
    finally:
        for place, name, original in before:
            setattr(place, name, original)
        for value, aggregation in held.values():
            value._aggregation = aggregation


def _local(held: dict[int, tuple[Any, Any]]) -> list[tuple[Any, str, Any]]:
    """Return the methods that change while updates are local: where they are, their names, and what they become."""
    plain = [(TFOptimizer, name, getattr(BaseOptimizer, name)) for name in _UPDATES]
    applying = [(kind, "apply", _with_own_copies(kind.apply, held)) for kind in _APPLYING]
    scaling = (keras.optimizers.LossScaleOptimizer, "_tf_apply", keras.optimizers.LossScaleOptimizer._common_apply)
    return [*plain, (TFOptimizer, "_backend_update_step", _update_step), *applying, scaling]


def _with_own_copies(original: Any, held: dict[int, tuple[Any, Any]]) -> Any:
    """Assign an optimizer's variables where they are, on each replica; one that is not built yet is built first."""

    def apply(optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
        if not optimizer.built and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(trainable_variables)
        for variable in optimizer.variables:
            value = variable._value
            held.setdefault(id(value), (value, getattr(value, "_aggregation", None)))
            value._aggregation = tf.VariableAggregation.NONE
        return original(optimizer, grads, trainable_variables)

    return apply


def _update_step(optimizer: Any, gradients: list[Any], variables: list[Any], learning_rate: Any) -> None:
    """Update all variables with one reading of the step's number and of the learning rate, small ones as one.

    Keras reads both anew for every variable. With 50 small layers Adam's update has a third of the operations so, and
    tracing it takes a third of the time.
    """
    iterations = optimizer._iterations
    if isinstance(learning_rate, keras.Variable):
        learning_rate = tf.convert_to_tensor(learning_rate.value)
    vars(optimizer)["_iterations"] = tf.convert_to_tensor(iterations.value)
    try:
        rest = _update_small(optimizer, gradients, variables, learning_rate)
        gradients, variables = [gradients[place] for place in rest], [variables[place] for place in rest]
        BaseOptimizer._backend_update_step(optimizer, gradients, variables, learning_rate)
    finally:
        vars(optimizer)["_iterations"] = iterations


def _update_small(optimizer: Any, gradients: list[Any], variables: list[Any], learning_rate: Any) -> list[int]:
    """Update small variables as one, in their place the optimizer's slots too; return the places of the others."""
    everywhere = list(range(len(variables)))
    if type(optimizer) not in _ELEMENTWISE or "update_step" in vars(optimizer):
        return everywhere
    small = [
        place
        for place in everywhere
        if is_small(gradients[place]) and gradients[place].dtype == tf.float32 and variables[place].dtype == "float32"
    ]
    if len(small) < 2:
        return everywhere
    indices = [optimizer._get_variable_index(variables[place]) for place in small]
    slots = {
        attribute: held
        for attribute, held in vars(optimizer).items()
        if attribute not in _NO_SLOTS and _holds_slots(held, len(optimizer._trainable_variables))
    }
    together = {attribute: Together([held[index] for index in indices]) for attribute, held in slots.items()}
    whole = Together([variables[place] for place in small])
    vars(optimizer).update({attribute: [each] for attribute, each in together.items()})
    optimizer._get_variable_index = lambda _: 0
    try:
        optimizer.update_step(flat([gradients[place] for place in small]), whole, learning_rate)
    finally:
        vars(optimizer).update(slots)
        del vars(optimizer)["_get_variable_index"]
    for each in (whole, *together.values()):
        each.write_back()
    return [place for place in everywhere if place not in small]


def _holds_slots(held: Any, count: int) -> bool:
    # TensorFlow keeps its bookkeeping in lists on the same object, which may happen to be as long. A variable that is
    # overwritten with its gradient has None for a slot.
    if not isinstance(held, list) or len(held) != count:
        return False
    return {isinstance(slot, keras.Variable) for slot in held if slot is not None} == {True}


def scale_updates(optimizer: keras.Optimizer, factors: Sequence[tuple[keras.Variable, float]]) -> None:
    """Let an optimizer take its steps for some variables at a multiple of its learning rate, their decay with them.

    Every optimizer of Keras computes an update in `update_step(gradient, variable, learning_rate)`, and decays weights
    in `_apply_weight_decay(variables)` at its own rate (optimizers/base_optimizer.py). Variables reach both as Keras'
    or as TensorFlow's, so they are told apart by the optimizer's own index.
    """
    of_index = {optimizer._get_variable_index(variable): factor for variable, factor in factors if factor != 1.0}
    update, usual = optimizer.update_step, optimizer.weight_decay

    def factor_of(variable: Any) -> float:
        return of_index.get(optimizer._get_variable_index(variable), 1.0)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = factor_of(variable)
        update(gradient, variable, learning_rate if factor == 1.0 else learning_rate * factor)

    def apply_weight_decay(variables: Sequence[Any]) -> None:
        if usual is None:
            return
        try:
            for factor in dict.fromkeys(map(factor_of, variables)):
                optimizer.weight_decay = usual * factor
                alike = [variable for variable in variables if factor_of(variable) == factor]
                type(optimizer)._apply_weight_decay(optimizer, alike)  # looked up now: see `updating_locally`
        finally:
            optimizer.weight_decay = usual

    optimizer.update_step, optimizer._apply_weight_decay = update_step, apply_weight_decay


@contextmanager
def learning_at(optimizer: keras.Optimizer, learning_rate: Any) -> Iterator[None]:
    """Let an optimizer have another learning rate or schedule in the block, as its configuration tells it.

    The public setter refuses a number where there was a schedule (optimizers/base_optimizer.py, keras 3.15.1).
    """
    held = optimizer._learning_rate
    vars(optimizer)["_learning_rate"] = learning_rate
    try:
        yield
    finally:
        vars(optimizer)["_learning_rate"] = held


def learning_rate_of(optimizer: keras.Optimizer) -> Any:
    """Return an optimizer's learning rate as it was given: a schedule, a variable or a callable."""
    return optimizer._learning_rate


def inner_optimizer(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Return the optimizer that holds the slots: the one inside a LossScaleOptimizer, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def moving_averages(optimizer: keras.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return the variables that a built optimizer keeps moving averages of (`use_ema`), each with its average."""
    inner = inner_optimizer(optimizer)
    parts = getattr(inner, "optimizers", [inner])  # of a MultiOptimizer
    averaging = [each for each in parts if each.use_ema and hasattr(each, "_model_variables_moving_average")]
    pairs = [
        pair
        for each in averaging
        for pair in zip(each._trainable_variables, each._model_variables_moving_average, strict=True)
    ]
    return [(variable, average) for variable, average in pairs if average is not None]


def begin_averages(optimizer: keras.Optimizer) -> None:
    """Let moving averages be the weights until the first step, where Keras has zeros; the first step begins them."""
    if int(np.asarray(optimizer.iterations)) == 0:
        for variable, average in moving_averages(optimizer):
            average.assign(variable)


def finalize(optimizer: keras.Optimizer) -> None:
    """Set the final values of weights, as Keras does at the end of `fit`: averages become the weights.

    TFOptimizer does not expect a variable without an average, such as a scale of float8.
    """
    original = TFOptimizer._overwrite_model_variables_with_average_value
    TFOptimizer._overwrite_model_variables_with_average_value = (
        BaseOptimizer._overwrite_model_variables_with_average_value
    )
    try:
        optimizer.finalize_variable_values(built_for(inner_optimizer(optimizer)))
    finally:
        TFOptimizer._overwrite_model_variables_with_average_value = original


def built_for(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for, in its order."""
    return list(optimizer._trainable_variables)
