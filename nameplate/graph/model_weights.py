"""Between a Keras model and its weights as plain arrays: the only crossing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from nameplate.errors import NameplateError
from nameplate.graph.tree import require_model, variables
from nameplate.naming import names
from nameplate.weights.named import Weights


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
