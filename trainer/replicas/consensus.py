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


@contextmanager
def in_agreement(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Give every replica the agreed values, and each its own again afterwards."""
    own = []
    named = {str(place): variable for place, variable in enumerate(variables)}
    for name, values in values_on_replicas(named).items():
        if _apart(values):
            own += list(zip(copies(named[name]), _own(named[name]), strict=True))
            named[name].assign(agreed(values))
    try:
        yield
    finally:
        for copy, value in own:
            copy.assign(value)


def _own(variable: keras.Variable) -> list[np.ndarray]:
    return [np.array(copy.numpy()) for copy in copies(variable)]


def _apart(values: list[np.ndarray]) -> bool:
    return any(value.tobytes() != values[0].tobytes() for value in values[1:])
