"""The weights of a Keras model: their values as plain arrays, read and written, and which of them train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nameplate.errors import NameplateError
from nameplate.graph.tree import Entry, owned_variables, require_model, variables, walk
from nameplate.naming import names
from nameplate.weights.named import Weights, matches


def read(model: keras.Model) -> dict[str, np.ndarray]:
    """Return a copy of every variable by its qualified name; a mirrored one is read once, from one replica.

    Raises:
        NamingError: when two variables have the same name.
    """
    require_model(model)
    return {name: np.array(variable.numpy()) for name, variable in variables(model).items()}


def write(model: keras.Model, weights: Weights) -> None:
    """Assign every variable of the model, on every replica, from the value under its qualified name.

    Proved: that names, shapes and types agree on both sides. Not proved: what the model computes with them.

    Raises:
        NameplateError: when names are missing or left over, or shapes or dtypes differ; nothing is written
        then.
    """
    targets = variables(model)
    problems = _differences(targets, weights)
    if problems:
        head = f"these weights do not fit {model.name!r}, nothing was written:"
        raise NameplateError("\n".join([head, *(f"  {problem}" for problem in problems)]))
    for name, variable in targets.items():
        variable.assign(weights[name])


def _differences(targets: Mapping[str, Any], weights: Weights) -> list[str]:
    missing = [name for name in targets if name not in weights]
    unexpected = [name for name in weights if name not in targets]
    few = len(missing) * len(unexpected) <= 400  # a hint compares every pair
    problems = [f"missing      {name}{names.did_you_mean(name, unexpected if few else [])}" for name in missing]
    problems += [f"unexpected   {name}{names.did_you_mean(name, missing if few else [])}" for name in unexpected]
    for name, variable in targets.items():
        if name not in weights:
            continue
        value = weights[name]
        wanted = tuple(variable.shape)
        if tuple(value.shape) != wanted:
            problems.append(f"shape        {name}: the model has {wanted}, the weights {tuple(value.shape)}")
        elif value.dtype.name != variable.dtype:
            problems.append(f"dtype        {name}: the model has {variable.dtype}, the weights {value.dtype.name}")
    return problems


def set_trainable(model: keras.Model, patterns: Sequence[str], trainable: bool = False) -> list[str]:
    """Freeze, or thaw, the layers that the patterns name, with all that is in them; return the variables that train.

    A pattern is a layer, a container, or a shell pattern over qualified names. A layer that thaws in a frozen container
    trains, and what else is in the container does not. A frozen BatchNormalization runs with its moving statistics. The
    model itself is changed: do it before it is compiled, since an optimizer keeps to the variables that it began with.

    Nothing but the flags changes, and nothing else is compared.

    Raises:
        NameplateError: with every pattern that names no layer, and the nearest that it has.
    """
    require_model(model)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    entries = walk(model)
    named = [entry.name for entry in entries if isinstance(entry.layer, keras.Layer)]
    idle = [pattern for pattern in patterns if not any(matches(name, pattern) for name in named)]
    if idle:
        lines = "\n".join(f"  {each!r}{names.did_you_mean(each, named)}" for each in idle)
        raise NameplateError(f"these patterns name none of the {len(named)} layers of {model.name!r}:\n{lines}")
    meant = {entry.name for entry in entries if any(matches(entry.name, pattern) for pattern in patterns)}
    _set(model, entries, meant, trainable=trainable)
    return trained(model)


def trained(model: keras.Model) -> list[str]:
    """Return the variables that train, by qualified name."""
    found = {id(each) for each in model.trainable_variables}
    return [name for name, each, _ in owned_variables(model) if id(each) in found]


def _set(model: keras.Model, entries: Sequence[Entry], meant: set[str], *, trainable: bool) -> None:
    """Set the flag of the layers that are meant, and of what contains a thawed one: Keras hands it down, never up."""
    flags = [trainable if entry.name in meant else bool(getattr(entry.layer, "trainable", True)) for entry in entries]
    held = [(each, each.trainable) for _, each, owner in owned_variables(model) if owner not in meant]
    if trainable:
        thawed = {place for place, entry in enumerate(entries) if entry.name in meant}
        for place in range(len(entries) - 1, -1, -1):  # children come after their containers
            if place in thawed:
                flags[place] = True
                thawed.add(entries[place].parent)
        model.trainable = model.trainable or bool(meant)
    for entry, flag in zip(entries, flags, strict=True):
        if isinstance(entry.layer, keras.Layer):
            entry.layer.trainable = flag
    for variable, flag in held:
        variable.trainable = flag
