"""An optimizer's variables by name: the key of a slot is its variable and what it holds, `stem_conv/kernel@momentum`.

Keras joins the parts of a slot's name with underscores, so that `a_b/kernel` and `a/b_kernel` collide. Here the pairs
come from the optimizer itself: an equal one is built, and each slot that it asks for is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.engine import private
from nameplate.errors import NameplateError
from nameplate.naming.names import is_automatic


def inner_optimizer(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Return the optimizer that holds the slots: the one inside a LossScaleOptimizer, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def slots(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Return `{slot: variable}` of a built optimizer; `variables` are the model's by qualified name."""
    return {key: variable for key, variable in named_variables(optimizer, variables).items() if "@" in key}


def scalars(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Return an optimizer's variables that belong to no other, by their own names: iteration, learning rate, ..."""
    return {key: variable for key, variable in named_variables(optimizer, variables).items() if "@" not in key}


def named_variables(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Return every variable of a built optimizer by its slot, or by its own name if it is not a slot.

    Raises:
        NameplateError: a user's optimizer keeps variables that have the same name.
    """
    inner = inner_optimizer(optimizer)
    held = {id(each) for each in inner.variables}
    outer = [each for each in optimizer.variables if id(each) not in held]
    found = {f"loss_scale/{each.name}": each for each in outer}
    keys = _listed(inner, variables) | _watched(inner, variables)
    for index, variable in enumerate(inner.variables):
        found[keys.get(index) or _own_name(inner, variable)] = variable
    if len(found) != len(held) + len(outer):
        names = ", ".join(sorted(variable.name for variable in inner.variables))
        raise NameplateError(
            f"{type(inner).__name__} keeps {len(held)} variables that cannot be told apart by name ({names}); "
            "its state could not be resumed. Create slots with add_variable_from_reference, as Keras' own do."
        )
    return found


def _own_name(optimizer: keras.Optimizer, variable: keras.Variable) -> str:
    """Return the name of a variable that is not a slot; its attribute's if Keras has numbered it, as Nadam's."""
    if not is_automatic(variable.name, "Variable"):
        return variable.name
    held = (attribute for attribute, value in vars(optimizer).items() if value is variable)
    return next(held, variable.name).lstrip("_")


def _watched(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[int, str]:
    """Return the slot at each position of `optimizer.variables` that is created from a variable as reference."""
    names = {id(variable): name for name, variable in variables.items()}
    config = optimizer.get_config()
    if "learning_rate" in config:  # else Keras would look for the class of a schedule of the user's own
        config["learning_rate"] = 1.0
    probe = type(optimizer).from_config(config)
    keys: dict[int, str] = {}

    def watch(reference_variable: Any, name: str | None = None, initializer: Any = "zeros") -> keras.Variable:
        del initializer
        keys[len(probe.variables)] = f"{names[id(reference_variable)]}@{name or 'var'}"
        # A scalar instead of the slot: the probe must not cost the memory of a second set of slots.
        return probe.add_variable(shape=(), dtype=reference_variable.dtype, name=name)

    probe.add_variable_from_reference = watch
    probe.assign = lambda variable, value: None  # ScheduleFreeAdamW's slots begin as the weights, the scalars as zeros
    probe.build(private.built_for(optimizer))
    return keys


def _listed(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[int, str]:
    """Return slots that are created otherwise and held in a list with an entry for each variable (Adafactor's)."""
    names = {id(variable): name for name, variable in variables.items()}
    trained = [names[id(variable)] for variable in private.built_for(optimizer)]
    positions = {id(variable): index for index, variable in enumerate(optimizer.variables)}
    return {
        positions[id(slot)]: f"{name}@{attribute.lstrip('_')}"
        for attribute, held in private.lists_by_variable(optimizer).items()
        for name, slot in zip(trained, held, strict=True)
        if id(slot) in positions
    }


def moving_averages(optimizer: keras.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return the variables that a built optimizer keeps moving averages of (`use_ema`), each with its average."""
    inner = inner_optimizer(optimizer)
    parts = getattr(inner, "optimizers", [inner])  # of a MultiOptimizer
    pairs = [
        pair
        for part in parts
        if (averages := private.averages(part)) is not None
        for pair in zip(private.built_for(part), averages, strict=True)
    ]
    return [(variable, average) for variable, average in pairs if average is not None]


def initialize_averages(optimizer: keras.Optimizer) -> None:
    """Set moving averages to the weights until the first step; Keras leaves zeros, and replaces them in that step."""
    if int(np.asarray(optimizer.iterations)) == 0:
        for variable, average in moving_averages(optimizer):
            average.assign(variable)


def finalize(optimizer: keras.Optimizer) -> None:
    """Set the final values of weights, as Keras does at the end of `fit`: averages become the weights."""
    with private.patched([private.averages_to_weights()]):
        optimizer.finalize_variable_values(private.built_for(inner_optimizer(optimizer)))


@contextmanager
def averages_in_place(optimizer: keras.Optimizer) -> Iterator[None]:
    """Inside, weights and their moving averages, if the optimizer keeps any, have exchanged values.

    Training continues afterwards with the bits that it had. Call it outside of a graph, on all workers alike.
    """
    pairs = moving_averages(optimizer)
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


def _swap(pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    """Swap the values of variables on each replica; no more than one value is held twice at a time."""
    for variable, average in pairs:
        for one, other in zip(private.copies(variable), private.copies(average), strict=True):
            held = tf.identity(one)
            one.assign(other)
            other.assign(held)
