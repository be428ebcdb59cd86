"""One value of what the replicas keep apart: statistics that each replica gathers from its own share.

A variable that no gradient moves may differ from replica to replica: batch statistics that are not synchronised, and
whatever a layer of the user's own counts. Training goes on with each replica's own value; what is evaluated and what
is saved as a weight is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from models.tree import layers
from trainer.replicas.private.compiled import copies
from trainer.workers.exchange import of_all_replicas


def values_on_replicas(variables: Mapping[str, keras.Variable]) -> dict[str, list[np.ndarray]]:
    """Return what each replica has of its own, by name, in the order of all replicas; all workers ask together."""
    return of_all_replicas({name: _own(variable) for name, variable in variables.items()})


def agreed(values: list[np.ndarray]) -> np.ndarray:
    """Return the mean over the replicas, or the value itself where they agree; of what is not a float, the first's."""
    if not _apart(values) or not np.issubdtype(values[0].dtype, np.floating):
        return values[0]
    return np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype)


def unsynchronised(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that replicas may keep apart; none on one replica."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return []
    every = [layer for layer in layers(model).values() if isinstance(layer, keras.Layer)]  # operations hold nothing
    alike = {id(variable) for layer in every if _is_alike(layer) for variable in layer.variables}
    return [variable for variable in model.non_trainable_variables if id(variable) not in alike]


def settle(variables: Iterable[keras.Variable]) -> None:
    """Give every replica the agreed values, for good."""
    for variable, _, value in _disagreeing(variables):
        variable.assign(value)


@contextmanager
def in_agreement(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Give every replica the agreed values, and each its own again afterwards, unless they were changed meanwhile."""
    held = []
    for variable, own, value in _disagreeing(variables):
        held.append((variable, own, value))
        variable.assign(value)
    try:
        yield
    finally:
        for variable, own, value in held:
            for copy, its in zip(copies(variable), own, strict=True):
                if copy.numpy().tobytes() == value.tobytes():
                    copy.assign(its)


def _disagreeing(
    variables: Iterable[keras.Variable],
) -> Iterator[tuple[keras.Variable, list[np.ndarray], np.ndarray]]:
    """Yield what differs between replicas, with its values on those of this process and the agreed one."""
    named = {str(place): variable for place, variable in enumerate(variables)}
    for name, values in values_on_replicas(named).items():
        if _apart(values):
            yield named[name], _own(named[name]), agreed(values)


def _is_alike(layer: keras.Layer) -> bool:
    """Say whether nothing that a layer gathers in training is a replica's own: Keras' layers gather nothing else."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.synchronized)
    holds_others = isinstance(layer, keras.Model | keras.layers.Wrapper | keras.layers.RNN)
    return type(layer).__module__.startswith("keras.") and not holds_others


def _own(variable: keras.Variable) -> list[np.ndarray]:
    return [np.array(copy.numpy()) for copy in copies(variable)]


def _apart(values: list[np.ndarray]) -> bool:
    return any(value.tobytes() != values[0].tobytes() for value in values[1:])
