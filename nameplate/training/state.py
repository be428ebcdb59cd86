"""The state of a training job: everything a resume needs, captured as arrays and restored from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate.checkpoint import tensor_names
from nameplate.checkpoint.tensor_names import require as require_storable
from nameplate.engine import host_collectives
from nameplate.engine.optimizer_state import moving_averages, named_variables
from nameplate.engine.private import copies
from nameplate.engine.statistics import replica_mean, values_on_replicas
from nameplate.engine.whole_batch import is_read_on_first_replica
from nameplate.errors import NameplateError
from nameplate.graph.model_weights import refresh
from nameplate.graph.tree import seeds
from nameplate.naming.names import did_you_mean
from nameplate.naming.rules import parse_rules
from nameplate.training.config_diff import Resets
from nameplate.weights.automatic_names import paired
from nameplate.weights.plan import Form, Line, bridges, forms_of, match

Arrays = dict[str, np.ndarray]


class ResumeError(NameplateError):
    """A checkpoint that does not belong to this model, optimizer or configuration."""


@dataclass(frozen=True)
class TrainState:
    """The variables of a training job under the names that a checkpoint gives them."""

    weights: Mapping[str, keras.Variable]  # qualified variable name -> variable
    slots: Mapping[str, keras.Variable]  # variable@slot -> variable
    shared: Mapping[str, keras.Variable]  # seeds and scalars of the optimizer: the same on every replica
    local: Mapping[str, keras.Variable]  # metrics: each replica has its own value, and the values add up
    apart: Mapping[str, keras.Variable]  # weights without gradients: replicas may differ, and their mean counts
    trained: frozenset[str]  # names of the weights that gradients move
    averaged: frozenset[str] = frozenset()  # names of those of which the optimizer keeps moving averages
    models: tuple[keras.Model, ...] = ()  # whose variables they are

    def require_storable(self) -> None:
        """Raise `StoreError` with every name that a checkpoint cannot hold, before anything is trained."""
        names = (*self.weights, *self.slots, *self.shared, *self.local)
        require_storable(names, where="a checkpoint")

    def capture(self) -> dict[str, Arrays]:
        """Return copies in host memory, by the group of the checkpoint that holds them.

        Moving averages take the place of their weights; see `nameplate.checkpoint.tensor_names`.
        """
        state = _read(self.shared)
        apart = {f"apart/{name}": variable for name, variable in self.apart.items()}
        own = values_on_replicas(dict(self.local) | apart)
        for name, variable in self.local.items():
            if is_read_on_first_replica(variable):  # zeros elsewhere, so that the values add up for any number
                own[name] = [own[name][0], *(np.zeros_like(value) for value in own[name][1:])]
        state |= {f"{name}@replica{i}": value for name, values in own.items() for i, value in enumerate(values)}
        stored, slots = tensor_names.as_stored(self.weights, self.slots, averaged=self.averaged)
        weights = _read(stored) | {name: replica_mean(own[f"apart/{name}"]) for name in self.apart}
        return {"weights": weights, "optimizer": _read(slots), "state": state}

    def restore(
        self,
        weights: Mapping[str, np.ndarray],
        slots: Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        resets: Resets | None = None,
    ) -> list[str]:
        """Write a checkpoint's arrays into the variables, all or none; return a note for each that was reset or left.

        Each replica gets its own values back. With another number of replicas the first one gets the sums of the
        metrics, and every one the mean of its weights.

        Raises:
            ResumeError: with every name that is on one side only and every shape or type that differs, unless `resets`
                allows it.
        """
        resets = resets or Resets()
        shared = {name: value for name, value in state.items() if "@replica" not in name}
        notes: list[str] = []
        weights, slots = tensor_names.as_trained(weights, slots)
        if resets.forget_slots:
            slots = {}
        if resets.slots:  # a moving average starts at the weights
            averages = [name for name in self.slots if name.endswith("@average")]
            slots = {name: weights[name.removesuffix("@average")] for name in averages} | dict(slots)
        given = [weights, _fitting(self.slots, slots, ("",) if resets.slots else (), notes)]
        given.append(_fitting(self.shared, shared, resets.free, notes))
        pairs = list(zip((self.weights, self.slots, self.shared), given, strict=True))
        problems = [text for variables, arrays in pairs for text in _differences(forms_of(variables), forms_of(arrays))]
        problems += self._metric_problems(state, resets)
        if problems:
            raise ResumeError("\n".join(["the checkpoint does not fit this run:", *(f"  {text}" for text in problems)]))
        for variables, arrays in pairs:
            for name, variable in variables.items():
                if not (resets.own and name.startswith(resets.own)):
                    variable.assign(arrays[name])
        for name, variable in self.local.items():
            _restore_sums(variable, _replicas(name, state))
        for name, variable in self.apart.items():
            _restore_own(variable, _replicas(f"apart/{name}", state))
        for model in self.models:
            refresh(model)
        return notes

    def weight_problems(self, weights: Mapping[str, Form]) -> list[str]:
        """Return how a checkpoint's weights differ from this model's, in names, shapes and types."""
        return _differences(forms_of(self.weights), weights)

    def bridges(self, weights: Mapping[str, Form]) -> list[str]:
        """Return the rename rules with which a checkpoint's weights would fit, where they are obvious."""
        own = forms_of(self.weights)
        rules = bridges(weights, own)
        return rules if rules and match(weights, own, rules=parse_rules(rules)).fits else []

    def differs_in_automatic_names(self, weights: Mapping[str, Form]) -> bool:
        """Return whether a checkpoint's weights would fit if automatic names were paired by class and order."""
        own = forms_of(self.weights)
        rules = paired(weights, own)
        return bool(rules) and match(weights, own, rules=rules).fits

    def _metric_problems(self, state: Mapping[str, Any], resets: Resets) -> list[str]:
        if "metrics/" in resets.free:
            return []
        held = {name.partition("@replica")[0] for name in state if name.startswith("metrics/")}
        missing, unexpected = sorted(self.local.keys() - held), sorted(held - self.local.keys())
        problems = [f"{name}: not in the checkpoint.{did_you_mean(name, unexpected)}" for name in missing]
        return problems + [f"{name}: only in the checkpoint.{did_you_mean(name, missing)}" for name in unexpected]


def train_state(model: keras.Model, augmentation: keras.Model | None = None) -> TrainState:
    """Return the named state of a compiled model whose optimizer is built; call it in the strategy's scope."""
    variables = nameplate.variables(model)
    seed_states = {f"{name}/state" for name in seeds(model)}
    optimizer = named_variables(model.optimizer, variables)
    shared = {f"seeds/{name}": variables[name] for name in seed_states & variables.keys()}
    if augmentation is not None:
        drawn = nameplate.variables(augmentation)
        shared |= {f"seeds/augmentation/{name}": variable for name, variable in drawn.items()}
    shared |= {f"optimizer/{name}": variable for name, variable in optimizer.items() if "@" not in name}
    weights = {name: variable for name, variable in variables.items() if name not in seed_states}
    replicated = host_collectives.replica_count() > 1
    trained = {id(variable) for variable in model.trainable_variables}
    apart = {name: variable for name, variable in weights.items() if replicated and id(variable) not in trained}
    return TrainState(
        weights=weights,
        slots={name: variable for name, variable in optimizer.items() if "@" in name},
        shared=dict(sorted(shared.items())),
        local=_metric_variables(model.metrics),
        apart=apart,
        trained=frozenset(name for name, variable in weights.items() if id(variable) in trained),
        averaged=_averaged(model.optimizer, weights),
        models=(model,),
    )


def joint_state(
    models: Mapping[str, keras.Model],
    optimizers: Mapping[str, keras.Optimizer],
    *,
    metrics: Iterable[keras.metrics.Metric] = (),
    variables: Mapping[str, keras.Variable],
) -> TrainState:
    """Return the state of models that a loop of the user's trains: names begin with the key of their model, if any.

    An optimizer belongs to the model of its key and is built. `variables` are what else the loop remembers.
    """
    weights: dict[str, keras.Variable] = {}
    slots: dict[str, keras.Variable] = {}
    shared = {f"variables/{name}": variable for name, variable in variables.items()}
    for key, model in models.items():
        prefix = f"{key}/" if key else ""
        named = {f"{prefix}{name}": variable for name, variable in nameplate.variables(model).items()}
        drawn = {f"{prefix}{name}/state" for name in seeds(model)} & named.keys()
        shared |= {f"seeds/{name}": named[name] for name in drawn}
        weights |= {name: variable for name, variable in named.items() if name not in drawn}
        for name, variable in named_variables(optimizers[key], named).items() if key in optimizers else ():
            (slots if "@" in name else shared)[name if "@" in name else f"optimizer/{prefix}{name}"] = variable
    trained = {id(variable) for model in models.values() for variable in model.trainable_variables}
    return TrainState(
        weights=weights,
        slots=slots,
        shared=dict(sorted(shared.items())),
        local=_metric_variables(metrics),
        apart={},
        trained=frozenset(name for name, variable in weights.items() if id(variable) in trained),
        models=tuple(models.values()),
    )


def _averaged(optimizer: keras.Optimizer, weights: Mapping[str, keras.Variable]) -> frozenset[str]:
    """Return the names of the weights of which an optimizer keeps moving averages."""
    held = {id(variable) for variable, _ in moving_averages(optimizer)}
    return frozenset(name for name, variable in weights.items() if id(variable) in held)


def _metric_variables(metrics: Iterable[keras.metrics.Metric]) -> dict[str, keras.Variable]:
    """Return the variables of metrics, nested ones too, by metric and variable name, made unique by a counter.

    Keras' own counters (`auc_1` for the second AUC of a process) depend on what the process did before, so they are
    left out.
    """
    variables: dict[str, keras.Variable] = {}
    for metric in metrics:
        for variable in metric.variables:
            path = re.sub(r"_\d+(?=/)", "", variable.path)
            key, number = f"metrics/{path}", 2
            while key in variables:
                key, number = f"metrics/{path}_{number}", number + 1
            variables[key] = variable
    return variables


def _read(variables: Mapping[str, keras.Variable]) -> Arrays:
    # `numpy()` copies, so training may go on.
    return {name: np.asarray(copies(variable)[0].numpy()) for name, variable in variables.items()}


def _fitting(
    variables: Mapping[str, keras.Variable], arrays: Mapping[str, Any], free: tuple[str, ...], notes: list[str]
) -> dict[str, Any]:
    """Return `arrays` with those under the prefixes `free` made to fit the variables, and note each that changes.

    An array without a variable is left out; a variable without an array of its shape and type keeps its value.
    """
    fitting = dict(arrays)
    for name in [name for name in fitting if free and name.startswith(free) and name not in variables]:
        del fitting[name]
        notes.append(f"{name} is discarded")
    for name, variable in variables.items():
        if free and name.startswith(free) and _is_other(variable, fitting.get(name)):
            fitting[name] = np.asarray(copies(variable)[0].numpy())
            notes.append(f"{name} restarts")
    return fitting


def _is_other(variable: keras.Variable, array: Any) -> bool:
    """Return whether a variable has no array, or one of another shape or type."""
    return array is None or forms_of({"": variable}) != forms_of({"": array})


def _replicas(name: str, state: Mapping[str, Any]) -> list[np.ndarray]:
    values: list[np.ndarray] = []
    while (key := f"{name}@replica{len(values)}") in state:
        values.append(np.asarray(state[key]))
    return values


def _restore_own(variable: keras.Variable, values: list[np.ndarray]) -> None:
    replicas = host_collectives.replica_count()
    if len(values) == replicas:
        for target, value in zip(copies(variable), values[host_collectives.first_local_replica() :], strict=False):
            target.assign(value)


def _restore_sums(variable: keras.Variable, values: list[np.ndarray]) -> None:
    replicas = host_collectives.replica_count()
    if len(values) != replicas:
        total = sum(values, np.zeros_like(values[0])) if values else np.zeros(variable.shape)
        values = [total] + [np.zeros_like(total)] * (replicas - 1)
    for target, value in zip(copies(variable), values[host_collectives.first_local_replica() :], strict=False):
        target.assign(value)


def _differences(own: Mapping[str, Form], stored: Mapping[str, Form]) -> list[str]:
    """Return how the arrays of a checkpoint differ from a run's variables, sorted by kind and name."""
    problems = match(stored, own, label="the checkpoint").problems
    order = {"missing": 0, "unexpected": 1}
    return [_difference(line) for line in sorted(problems, key=lambda line: (order.get(line.verdict, 2), line.name))]


def _difference(line: Line) -> str:
    if line.want is None:
        return f"{line.name}: only in the checkpoint, {line.reason}"
    if line.have is None:
        return f"{line.name}: not in the checkpoint, {line.reason}"
    want, have = (f"{form.shape} {form.dtype}" for form in (line.want, line.have))
    return f"{line.name}: the model has {want}, the checkpoint {have}"
