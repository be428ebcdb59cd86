"""All that a resume needs, as arrays and plain data: out of a training job, and back into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import models
from models.errors import NameplateError
from models.names import did_you_mean
from models.store.keys import require as require_storable
from models.tree import seeds
from trainer.consensus import agreed
from trainer.keras_private import copies
from trainer.slots import named_variables

Arrays = dict[str, np.ndarray]


class ResumeError(NameplateError):
    """A checkpoint that does not belong to this model, optimizer or configuration."""


@dataclass(frozen=True)
class TrainState:
    """The variables of a training job under the names that a checkpoint gives them."""

    weights: Mapping[str, keras.Variable]  # qualified variable name -> variable
    slots: Mapping[str, keras.Variable]  # variable@slot -> variable
    shared: Mapping[str, keras.Variable]  # seeds and scalars of the optimizer: the same on every replica
    local: Mapping[str, keras.Variable]  # metrics: every replica has a value of its own, and they add up
    apart: Mapping[str, keras.Variable]  # weights that no gradient moves: replicas may differ, and their mean counts

    def require_storable(self) -> None:
        """Raise `StoreError` with every name that a checkpoint cannot hold, before anything is trained."""
        names = (*self.weights, *self.slots, *self.shared, *self.local)
        require_storable(names, where="a checkpoint")

    def capture(self) -> dict[str, Arrays]:
        """Return copies in host memory, by the group of the checkpoint that holds them."""
        state = _read(self.shared)
        for name, variable in (dict(self.local) | {f"apart/{key}": each for key, each in self.apart.items()}).items():
            state |= {f"{name}@replica{i}": np.array(copy.numpy()) for i, copy in enumerate(copies(variable))}
        weights = _read(self.weights) | {name: agreed(variable) for name, variable in self.apart.items()}
        return {"weights": weights, "optimizer": _read(self.slots), "state": state}

    def restore(self, weights: Mapping[str, np.ndarray], slots: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write a checkpoint's arrays into the variables, all or none.

        What each replica has of its own goes back to it. Under another number of replicas the metrics of a mid-epoch
        are kept as their sums, on the first, and of weights all get the mean.

        Raises:
            ResumeError: when a name is on one side only or a shape or dtype differs; it lists them all.
        """
        shared = {name: value for name, value in state.items() if "@replica" not in name}
        pairs = [(self.weights, weights), (self.slots, slots), (self.shared, shared)]
        problems = [problem for variables, arrays in pairs for problem in _differences(variables, arrays)]
        if problems:
            raise ResumeError("\n".join(["the checkpoint does not fit this run:", *(f"  {each}" for each in problems)]))
        for variables, arrays in pairs:
            for name, variable in variables.items():
                variable.assign(arrays[name])
        for name, variable in self.local.items():
            _restore_sums(variable, _replicas(name, state))
        for name, variable in self.apart.items():
            _restore_own(variable, _replicas(f"apart/{name}", state))


def train_state(model: keras.Model, augmentation: keras.Model | None = None) -> TrainState:
    """Return the named state of a compiled model whose optimizer is built; call it in the strategy's scope."""
    variables = models.variables(model)
    seed_states = {f"{name}/state" for name in seeds(model)}
    optimizer = named_variables(model.optimizer, variables)
    shared = {f"seeds/{name}": variables[name] for name in seed_states & variables.keys()}
    if augmentation is not None:
        drawn = models.variables(augmentation)
        shared |= {f"seeds/augmentation/{name}": variable for name, variable in drawn.items()}
    shared |= {f"optimizer/{name}": variable for name, variable in optimizer.items() if "@" not in name}
    weights = {name: variable for name, variable in variables.items() if name not in seed_states}
    replicated = tf.distribute.get_strategy().num_replicas_in_sync > 1
    trained = {id(variable) for variable in model.trainable_variables}
    apart = {name: variable for name, variable in weights.items() if replicated and id(variable) not in trained}
    return TrainState(
        weights=weights,
        slots={name: variable for name, variable in optimizer.items() if "@" in name},
        shared=dict(sorted(shared.items())),
        local=_metric_variables(model.metrics),
        apart=apart,
    )


def _metric_variables(metrics: Iterable[keras.metrics.Metric]) -> dict[str, keras.Variable]:
    """Return the variables of metrics, nested ones too, by metric and variable name, made unique by a counter."""
    found: dict[str, keras.Variable] = {}
    for metric in metrics:
        for variable in metric.variables:
            key, number = f"metrics/{variable.path}", 2
            while key in found:
                key, number = f"metrics/{variable.path}_{number}", number + 1
            found[key] = variable
    return found


def _read(variables: Mapping[str, keras.Variable]) -> Arrays:
    return {name: np.array(copies(variable)[0].numpy()) for name, variable in variables.items()}


def _replicas(name: str, state: Mapping[str, Any]) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    while (key := f"{name}@replica{len(found)}") in state:
        found.append(np.asarray(state[key]))
    return found


def _restore_own(variable: keras.Variable, values: list[np.ndarray]) -> None:
    targets = copies(variable)
    if len(values) == len(targets):
        for target, value in zip(targets, values, strict=True):
            target.assign(value)


def _restore_sums(variable: keras.Variable, values: list[np.ndarray]) -> None:
    targets = copies(variable)
    if len(values) != len(targets):
        total = sum(values, np.zeros_like(values[0])) if values else np.zeros(variable.shape)
        values = [total] + [np.zeros_like(total)] * (len(targets) - 1)
    for target, value in zip(targets, values, strict=True):
        target.assign(value)


def _differences(variables: Mapping[str, keras.Variable], arrays: Mapping[str, Any]) -> list[str]:
    missing, unexpected = variables.keys() - arrays.keys(), arrays.keys() - variables.keys()
    found = [f"{name}: not in the checkpoint.{did_you_mean(name, unexpected)}" for name in sorted(missing)]
    found += [f"{name}: only in the checkpoint.{did_you_mean(name, missing)}" for name in sorted(unexpected)]
    for name in sorted(variables.keys() & arrays.keys()):
        variable, array = variables[name], np.asarray(arrays[name])
        want, have = (tuple(variable.shape), str(variable.dtype)), (array.shape, array.dtype.name)
        if want != have:
            found.append(f"{name}: the model has {want[0]} {want[1]}, the checkpoint {have[0]} {have[1]}")
    return found
