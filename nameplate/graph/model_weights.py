"""The weights of a Keras model: read and written as plain arrays, frozen and thawed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.errors import NameplateError, as_names
from nameplate.graph.tree import Entry, owned_variables, require_model, variables, walk
from nameplate.naming import names
from nameplate.weights.named import Weights, matches


@checked
def read(model: keras.Model) -> dict[str, np.ndarray]:
    """Return a copy of every variable by its qualified name; a mirrored variable is read from one replica.

    Args:
        model: any Keras model; one that is not built has no weights yet.

    Raises:
        NamingError: if two variables have the same name.
    """
    require_model(model)
    return {name: np.array(variable.numpy()) for name, variable in variables(model).items()}


@checked
def write(model: keras.Model, weights: Weights) -> None:
    """Assign every variable of the model, on every replica, the array under its qualified name.

    Proved: that names, shapes and dtypes agree on both sides. Not proved: what the model computes with them.

    Args:
        model: a built model; its variables are changed.
        weights: `{qualified variable name: array}`, all of them, as `read` returns them.

    Raises:
        NameplateError: if names are missing or left over, or shapes or dtypes differ; then nothing is written.
    """
    targets = variables(model)
    if not isinstance(weights, Mapping):
        raise NameplateError(f"weights={weights!r:.80}: give {{variable name: array}}, as nameplate.read returns it")
    problems = _differences(targets, weights)
    if problems:
        head = f"these weights do not fit {model.name!r}, nothing was written:"
        raise NameplateError("\n".join([head, *(f"  {problem}" for problem in problems)]))
    for name, variable in targets.items():
        variable.assign(weights[name])
    refresh(model)


def refresh(model: keras.Model) -> None:
    """Bring what layers keep of their variables as constants up to date, after variables were assigned.

    A Normalization computes with copies of its mean and variance, which Keras renews only where it loads a file itself
    (`finalize_state`, keras 3.15.1); what Keras has traced holds the copies too, and is traced again.
    """
    every = [model, *(entry.layer for entry in walk(model))]
    stale = [layer for layer in every if isinstance(layer, keras.layers.Normalization) and _is_stale(layer)]
    for layer in stale:
        layer.finalize_state()
    for holder in every if stale else ():
        for name in ("train_function", "test_function", "predict_function"):
            if getattr(holder, name, None) is not None:
                setattr(holder, name, None)


def _is_stale(layer: keras.layers.Normalization) -> bool:
    if not layer.built or layer.input_mean is not None:
        return False
    pairs = ((layer.mean, layer.adapt_mean), (layer.variance, layer.adapt_variance))
    return any(
        not np.array_equal(_flat(constant), _flat(keras.ops.cast(variable, layer.compute_dtype)), equal_nan=True)
        for constant, variable in pairs
    )


def _flat(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype(np.float64).reshape(-1)


@checked
def set_trainable(model: keras.Model, patterns: Sequence[str], trainable: bool = False) -> list[str]:
    """Freeze or thaw the layers that the patterns match, with all that they contain; return the trainable variables.

    A layer that is thawed inside a frozen container trains, the rest of the container does not. A frozen
    BatchNormalization uses its moving statistics. The model itself is changed. Call this before compile, since an
    optimizer keeps the list of variables it was built with. Nothing but the flags changes.

    Args:
        model: any Keras model, not compiled yet.
        patterns: names of layers or containers, or shell patterns over whole qualified names; one may be a string.
        trainable: False freezes, True thaws.

    Raises:
        NameplateError: with every pattern that matches no layer, and the nearest name.
    """
    require_model(model)
    patterns = as_names(patterns, "patterns")
    entries = walk(model)
    layer_names = [entry.name for entry in entries if isinstance(entry.layer, keras.Layer)]
    unmatched = [pattern for pattern in patterns if not any(matches(name, pattern) for name in layer_names)]
    if unmatched:
        lines = "\n".join(f"  {pattern!r}{names.did_you_mean(pattern, layer_names)}" for pattern in unmatched)
        raise NameplateError(f"these patterns name none of the {len(layer_names)} layers of {model.name!r}:\n{lines}")
    selected = {entry.name for entry in entries if any(matches(entry.name, pattern) for pattern in patterns)}
    _set_flags(model, entries, selected, trainable=trainable)
    return trained(model)


def trained(model: keras.Model) -> list[str]:
    """Return the qualified names of the trainable variables."""
    trainable = {id(variable) for variable in model.trainable_variables}
    return [name for name, variable, _ in owned_variables(model) if id(variable) in trainable]


def _set_flags(model: keras.Model, entries: Sequence[Entry], selected: set[str], *, trainable: bool) -> None:
    """Set the flag of the selected layers, and of the containers of a thawed one.

    Keras passes a flag down to all that a container holds and never up, so every other flag is set to what it was.
    """
    flags = [
        trainable if entry.name in selected else bool(getattr(entry.layer, "trainable", True)) for entry in entries
    ]
    others = [(variable, variable.trainable) for _, variable, owner in owned_variables(model) if owner not in selected]
    if trainable:
        thawed = {index for index, entry in enumerate(entries) if entry.name in selected}
        for index in range(len(entries) - 1, -1, -1):  # children come after their containers
            if index in thawed:
                flags[index] = True
                thawed.add(entries[index].parent)
        model.trainable = model.trainable or bool(selected)
    for entry, flag in zip(entries, flags, strict=True):
        if isinstance(entry.layer, keras.Layer):
            entry.layer.trainable = flag
    for variable, flag in others:
        variable.trainable = flag


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
