"""Names that a file leaves to the model: numbered variables, containers left out, the model's own name in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models import mapping, names
from models.mapping import NameRule
from models.tree import owned_variables, seeds


def better_names(model: keras.Model, found: Sequence[str], rules: Sequence[NameRule]) -> dict[str, str]:
    """Return `{name in the file: better name}` where a file numbers variables, or leaves out inner containers."""
    variables = _leaves(model)
    known = {names.join(layer, leaf) for layer, leaves in variables.items() for leaf in leaves}
    better: dict[str, str] = {}
    outer = _outermost(found, variables)
    for old, new in mapping.apply(found, rules).names.items():
        layer, own = names.split(new)
        leaves = variables.get(layer, [])
        if new in known:
            continue
        if own.isdigit() and int(own) < len(leaves) and names.split(old)[1] == own:
            better[old] = names.join(names.split(old)[0], leaves[int(own)])
        elif old == new and old.removeprefix(outer) in known:
            better[old] = old.removeprefix(outer)
        elif old == new and (inner := _deeper(new, known)):
            better[old] = inner
    return better


def _outermost(found: Sequence[str], layers: Mapping[str, Any]) -> str:
    """Return what stands in front of every name and is no layer: a model's own name, as Keras' paths may have it."""
    tops = {name.partition(names.SEPARATOR)[0] for name in found}
    top = tops.pop() if len(tops) == 1 else ""
    return f"{top}/" if top and not any(layer == top or layer.startswith(f"{top}/") for layer in layers) else ""


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
