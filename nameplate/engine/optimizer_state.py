"""An optimizer's variables by name: a slot is keyed by its variable and what it holds, `stem_conv/kernel@momentum`.

Keras joins the parts of a slot's name with underscores, so that `a_b/kernel` and `a/b_kernel` collide. Here the pairs
come from the optimizer itself, by watching an equal one being built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from nameplate.engine.private.compiled import copies
from nameplate.engine.private.optimizers import built_for, inner_optimizer, moving_averages
from nameplate.errors import NameplateError
from nameplate.naming.names import is_automatic

_NOT_SLOTS = ("_variables", "_trainable_variables")


def slots(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Return `{slot: variable}` of a built optimizer; `variables` are the model's by qualified name."""
    return {key: variable for key, variable in named_variables(optimizer, variables).items() if "@" in key}


def scalars(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Return what an optimizer keeps that belongs to no variable, by its own name: iteration, learning rate, ..."""
    return {key: variable for key, variable in named_variables(optimizer, variables).items() if "@" not in key}


def named_variables(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Return every variable of a built optimizer by its slot, or by its own name where it is no slot.

    Raises:
        NameplateError: when an optimizer of the user's own keeps variables that no name tells apart.
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
    """Return the name of a variable that is no slot; one that Keras counted up (Nadam's) has that of its attribute."""
    if not is_automatic(variable.name, "Variable"):
        return variable.name
    held = (attribute for attribute, value in vars(optimizer).items() if value is variable)
    return next(held, variable.name).lstrip("_")


def _watched(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[int, str]:
    """Return the slot of each position in `optimizer.variables` that is made from a variable as reference."""
    names = {id(variable): name for name, variable in variables.items()}
    probe = type(optimizer).from_config(optimizer.get_config())
    keys: dict[int, str] = {}

    def watch(reference_variable: Any, name: str | None = None, initializer: Any = "zeros") -> keras.Variable:
        del initializer
        keys[len(probe.variables)] = f"{names[id(reference_variable)]}@{name or 'var'}"
        # A scalar in the slot's place: the probe must not cost the memory of a second set of slots.
        return probe.add_variable(shape=(), dtype=reference_variable.dtype, name=name)

    probe.add_variable_from_reference = watch
    probe.build(built_for(optimizer))
    return keys


def _listed(optimizer: keras.Optimizer, variables: Mapping[str, keras.Variable]) -> dict[int, str]:
    """Return slots that are made otherwise and held in a list with a place for each variable (Adafactor's)."""
    names = {id(variable): name for name, variable in variables.items()}
    trained = [names[id(variable)] for variable in built_for(optimizer)]
    positions = {id(variable): index for index, variable in enumerate(optimizer.variables)}
    return {
        positions[id(slot)]: f"{name}@{attribute.lstrip('_')}"
        for attribute, held in vars(optimizer).items()
        if isinstance(held, list) and len(held) == len(trained) and attribute not in _NOT_SLOTS
        for name, slot in zip(trained, held, strict=True)
        if id(slot) in positions
    }


@contextmanager
def averages_in_place(optimizer: keras.Optimizer) -> Iterator[None]:
    """Inside, weights that the optimizer keeps moving averages of have the averages' values, and these the weights'.

    Training goes on afterwards with the bits that it had. Call it outside of a graph, on all workers alike.
    """
    pairs = moving_averages(optimizer)
    _exchange(pairs)
    try:
        yield
    finally:
        _exchange(pairs)


def _exchange(pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    """Exchange the values of variables on each replica; no more than one is held twice at a time."""
    for variable, average in pairs:
        for one, other in zip(copies(variable), copies(average), strict=True):
            held = tf.identity(one)
            one.assign(other)
            other.assign(held)
