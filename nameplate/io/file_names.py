"""Names that a file leaves to the model: numbered variables, containers left out, the model's own name in front."""

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

# Formats whose names are the paths of Keras' variables, in which the containers of nested graphs do not occur.
_BY_PATH = (".h5", "SavedModel", "TensorFlow checkpoint")


def better_names(
    model: keras.Model, found: Sequence[str], rules: Sequence[Rule], *, format_: str = ""
) -> dict[str, str]:
    """Return `{name in the file: better name}` where a file numbers variables, or its format leaves out containers.

    What is only near a name stays as it is: that it is the same variable is for a rule to say. Two names of a file have
    one better name where they are of one variable, which several layers hold.
    """
    saved = _saved(model)
    known = {name for name, _, _ in owned_variables(model)}
    places = {names.split(name)[0]: None for name in [*known, *saved]}
    better: dict[str, str] = {}
    outer = _outermost(model, found, places, by_path=format_ in _BY_PATH)
    for old, new in apply_rules(found, rules).names.items():
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
    """Return the better names, each given once; and `{name in the file: another}` of what is there again.

    A variable that several layers hold is in a file once for each. Where the values differ nobody knows which is meant:
    what comes later keeps the name that it has, and is unexpected.
    """
    first: dict[str, str] = {}
    left: dict[str, str] = {}
    again: dict[str, str] = {}
    for name, new in better.items():
        one = first.setdefault(new, name)
        if one == name:
            left[name] = new
        elif np.array_equal(source[one], source[name], equal_nan=source[one].dtype.kind == "f"):
            again[name] = one
        else:
            left[name] = name
    return left, again


def seed_states(model: keras.Model) -> set[str]:
    """Return the names of the states of random generators, which no file of others has."""
    return {names.join(name, "state") for name in seeds(model)}


def _before_rules(old: str, new: str, target: str) -> str:
    """Return the better name as it stands before rules turn a file's containers into the model's."""
    container, leaf = names.split(new)[0], names.split(target)[1]
    return names.join(names.split(old)[0], leaf) if names.split(target)[0] == container else target


def _saved(model: keras.Model) -> dict[str, str]:
    """Return `{name in a file: qualified name}` of variables by all layers that hold them, by name and by number."""
    canonical = {id(variable): name for name, variable, _ in owned_variables(model)}
    drawn = seed_states(model)
    found: dict[str, str] = {}
    for owner, layer, held in held_variables(model):
        for key, variable in held:
            name = canonical[id(variable)]
            if name not in drawn:
                found[names.join(owner, key)] = name
        for number, variable in _numbered(layer).items():
            if id(variable) in canonical:
                found[names.join(owner, number)] = canonical[id(variable)]
    return found


def _numbered(layer: Any) -> dict[str, Any]:
    """Return `{number in a `.weights.h5` file: variable}` of a layer itself (`Layer.save_own_variables`).

    Layers that are quantized save in an order of their own; a kernel with an adapter merged in is new each time, and
    stands for the one variable of its form that is left.
    """
    store: dict[str, Any] = {}
    try:
        layer.save_own_variables(store)
    except Exception:  # an operator, or a class of the user's that saves otherwise
        return {}
    own = {id(each): each for each in keras_private.own_variables(layer)}
    found = {key: value for key, value in store.items() if id(value) in own}
    left = [each for key, each in own.items() if key not in {id(value) for value in found.values()}]
    for key, value in store.items():
        form = (tuple(getattr(value, "shape", ())), keras.backend.standardize_dtype(getattr(value, "dtype", "string")))
        alike = [each for each in left if (tuple(each.shape), each.dtype) == form and not each.name.startswith("lora_")]
        if key not in found and alike:
            found[key] = alike[0]
            left = [each for each in left if each is not alike[0]]
    return found


def _outermost(model: keras.Model, found: Sequence[str], layers: Mapping[str, Any], *, by_path: bool) -> str:
    """Return what stands in front of every name and is no layer: a model's own name, as Keras' paths may have it.

    That it is a model's is known where it is this model's, where Keras made it up for one, or where the format has it.
    """
    tops = {name.partition(names.SEPARATOR)[0] for name in found}
    top = tops.pop() if len(tops) == 1 else ""
    kinds = ("Functional", "Sequential", "Model", type(model).__name__)
    is_models = by_path or top == model.name or any(names.is_automatic(top, kind) for kind in kinds)
    if not top or not is_models or any(layer == top or layer.startswith(f"{top}/") for layer in layers):
        return ""
    return f"{top}/"


def _deeper(name: str, known: set[str]) -> str | None:
    """Return the one variable that a name means which has the outermost and the innermost container only."""
    top, _, rest = name.partition(names.SEPARATOR)
    if names.SEPARATOR not in rest:
        return None
    found = [each for each in known if each.startswith(f"{top}/") and each.endswith(f"/{rest}")]
    return found[0] if len(found) == 1 else None
