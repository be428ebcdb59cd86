"""One value of what the replicas keep apart: statistics that each replica gathers from its own share.

A variable that no gradient moves may differ from replica to replica: batch statistics that are not synchronised, and
whatever a layer of the user's own counts. Training goes on with each replica's own value; what is evaluated and what
is saved as a weight is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np

from trainer.keras_private import copies


def agreed(variable: keras.Variable) -> np.ndarray:
    """Return the mean over the replicas, or the value itself where they agree; of what is not a float, the first's."""
    values = [np.array(copy.numpy()) for copy in copies(variable)]
    if not _apart(values) or not np.issubdtype(values[0].dtype, np.floating):
        return values[0]
    return np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype)


@contextmanager
def in_agreement(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Give every replica the agreed values, and each its own again afterwards."""
    own = []
    for variable in variables:
        held = [(copy, np.array(copy.numpy())) for copy in copies(variable)]
        if _apart([value for _, value in held]):
            own += held
            variable.assign(agreed(variable))
    try:
        yield
    finally:
        for copy, value in own:
            copy.assign(value)


def _apart(values: list[np.ndarray]) -> bool:
    return any(value.tobytes() != values[0].tobytes() for value in values[1:])
