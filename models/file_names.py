"""Names that a file leaves to the model: numbered variables, containers left out, the model's own name in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models import mapping, names
from models.mapping import NameRule
from models.tree import owned_variables, seeds

# Formats whose names are the paths of Keras' variables, in which the containers of nested graphs do not occur.
_BY_PATH = (".h5", "SavedModel", "TensorFlow checkpoint")


def better_names(
    model: keras.Model, found: Sequence[str], rules: Sequence[NameRule], *, format_: str = ""
) -> dict[str, str]:
    """Return `{name in the file: better name}` where a file numbers variables, or its format leaves out containers.

    What is only near a name stays as it is: that it is the same variable is for a rule to say.
    """
    variables = _leaves(model)
    known = {names.join(layer, leaf) for layer, leaves in variables.items() for leaf in leaves}
    better: dict[str, str] = {}
    outer = _outermost(model, found, variables, by_path=format_ in _BY_PATH)
    for old, new in mapping.apply(found, rules).names.items():
        layer, own = names.split(new)
        leaves = variables.get(layer, [])
        if new in known:
            continue
        if own.isdigit() and int(own) < len(leaves) and names.split(old)[1] == own:
            better[old] = names.join(names.split(old)[0], leaves[int(own)])
        elif old == new and old.removeprefix(outer) in known:
            better[old] = old.removeprefix(outer)
        elif old == new and format_ in _BY_PATH and (inner := _deeper(new, known)):
            better[old] = inner
    return better


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


def _leaves(model: keras.Model) -> dict[str, list[str]]:
    """Return the variables of each layer itself, in the order in which Keras saves them."""
    found: dict[str, list[str]] = {}
    drawn = seed_states(model)
    for name, _, owner in owned_variables(model):
        if name not in drawn:
            found.setdefault(owner, []).append(name.removeprefix(f"{owner}/") if owner else name)
    return found


def seed_states(model: keras.Model) -> set[str]:
    """Return the names of the states of random generators, which no file of others has."""
    return {names.join(name, "state") for name in seeds(model)}
