"""Names that a file abbreviates: variables by number, containers omitted, the model's own name in front of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nameplate.graph import keras_private
from nameplate.graph.tree import held_variables, owned_variables, seeds
from nameplate.naming import names
from nameplate.naming.rules import Rule, apply_rules
from nameplate.weights.named import Weights

# Formats whose names are the paths of Keras' variables, which omit the containers of nested graphs.
_BY_PATH = (".h5", "SavedModel", "TensorFlow checkpoint")


def better_names(
    model: keras.Model, file_names: Sequence[str], rules: Sequence[Rule], *, format_: str = ""
) -> dict[str, str]:
    """Return `{name in the file: qualified name}` for the names that the file abbreviates.

    A name that is only similar to one of the model's is left as it is: that needs a rule. Two names of a file may have
    the same qualified name if several layers share the variable.
    """
    saved = _saved_names(model)
    known = {name for name, _, _ in owned_variables(model)}
    better: dict[str, str] = {}
    outer = outermost(model, file_names, format_=format_)
    for old, new in apply_rules(file_names, rules).names.items():
        if new in known:
            continue
        if new in saved:
            better[old] = _before_rules(old, new, saved[new])
        elif old == new and old.removeprefix(outer) in known:
            better[old] = old.removeprefix(outer)
        elif old == new and format_ in _BY_PATH and (inner := _deeper(new, known)):
            better[old] = inner
    return better


def once_each(source: Weights, better: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the better names, each used once, and `{name in the file: the first name with the same array}`.

    A variable that several layers share is in a file once for each. If the values differ, it is unknown which one is
    right: the later ones keep their names and become unexpected.
    """
    first: dict[str, str] = {}
    unique: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for name, new in better.items():
        one = first.setdefault(new, name)
        if one == name:
            unique[name] = new
        elif np.array_equal(source[one], source[name], equal_nan=source[one].dtype.kind == "f"):
            repeated[name] = one
        else:
            unique[name] = name
    return unique, repeated


def seed_states(model: keras.Model) -> set[str]:
    """Return the names of the seed states, which files of other programs do not have."""
    return {names.join(name, "state") for name in seeds(model)}


def _before_rules(old: str, new: str, target: str) -> str:
    """Return the better name in terms of the file's containers, which the rules then turn into the model's."""
    container, leaf = names.split(new)[0], names.split(target)[1]
    return names.join(names.split(old)[0], leaf) if names.split(target)[0] == container else target


def _saved_names(model: keras.Model) -> dict[str, str]:
    """Return `{name in a file: qualified name}`: each variable by name and number, under every layer with it."""
    canonical = {id(variable): name for name, variable, _ in owned_variables(model)}
    without = seed_states(model)
    saved: dict[str, str] = {}
    for owner, layer, held in held_variables(model):
        for key, variable in held:
            name = canonical[id(variable)]
            if name not in without:
                saved[names.join(owner, key)] = name
        for number, variable in _numbered(layer).items():
            if id(variable) in canonical:
                saved[names.join(owner, number)] = canonical[id(variable)]
    return saved


def _numbered(layer: Any) -> dict[str, Any]:
    """Return `{number in a `.weights.h5` file: variable}` for a layer's own variables (`Layer.save_own_variables`).

    Quantized layers save in an order of their own. A kernel with an adapter merged in is a new tensor, which is matched
    with the remaining variable of its shape and dtype.
    """
    store: dict[str, Any] = {}
    try:
        layer.save_own_variables(store)
    except Exception:  # an operator, or a class of the user's that saves differently
        return {}
    own = {id(variable): variable for variable in keras_private.own_variables(layer)}
    numbered = {key: value for key, value in store.items() if id(value) in own}
    saved = {id(value) for value in numbered.values()}
    left = [variable for key, variable in own.items() if key not in saved]
    for key, value in store.items():
        form = (tuple(getattr(value, "shape", ())), keras.backend.standardize_dtype(getattr(value, "dtype", "string")))
        alike = [
            variable
            for variable in left
            if (tuple(variable.shape), variable.dtype) == form and not variable.name.startswith("lora_")
        ]
        if key not in numbered and alike:
            numbered[key] = alike[0]
            left = [variable for variable in left if variable is not alike[0]]
    return numbered


def outermost(model: keras.Model, file_names: Sequence[str], *, format_: str = "") -> str:
    """Return the prefix of every name in the file that is a model's own name, as Keras' paths may have it, or "".

    It is a model's name if it is this model's, if Keras makes up such names for models, or if the format has one.
    """
    known = [name for name, _, _ in owned_variables(model)]
    layers = {names.split(name)[0] for name in [*known, *_saved_names(model)]}
    tops = {name.partition(names.SEPARATOR)[0] for name in file_names}
    top = tops.pop() if len(tops) == 1 else ""
    kinds = ("Functional", "Sequential", "Model", type(model).__name__)
    is_models = format_ in _BY_PATH or top == model.name or any(names.is_automatic(top, kind) for kind in kinds)
    if not top or not is_models or any(layer == top or layer.startswith(f"{top}/") for layer in layers):
        return ""
    return f"{top}/"


def _deeper(name: str, known: set[str]) -> str | None:
    """Return the only variable that matches a name which has just the outermost and the innermost container."""
    top, _, rest = name.partition(names.SEPARATOR)
    if names.SEPARATOR not in rest:
        return None
    matching = [other for other in known if other.startswith(f"{top}/") and other.endswith(f"/{rest}")]
    return matching[0] if len(matching) == 1 else None
