"""Which layers train, by pattern."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from models.errors import NameplateError
from models.names import did_you_mean
from models.tree import variables, walk
from models.weights import matches


def set_trainable(model: keras.Model, patterns: Sequence[str], trainable: bool = False) -> list[str]:
    """Freeze, or thaw, the layers that the patterns name, with all that is in them; return the variables that train.

    A pattern is a layer, a container, or a shell pattern over qualified names. A frozen BatchNormalization runs with
    its moving statistics. The model itself is changed: do it before it is compiled, since an optimizer keeps to the
    variables that it began with.

    Raises:
        NameplateError: with every pattern that names no layer, and the nearest that it has.
    """
    entries = [entry for entry in walk(model) if isinstance(entry.layer, keras.Layer)]
    known = [entry.name for entry in entries]
    idle = [pattern for pattern in patterns if not any(matches(name, pattern) for name in known)]
    if idle:
        lines = "\n".join(f"  {each!r}{did_you_mean(each, known)}" for each in idle)
        raise NameplateError(f"these patterns name none of the {len(known)} layers of {model.name!r}:\n{lines}")
    for entry in entries:
        if any(matches(entry.name, pattern) for pattern in patterns):
            entry.layer.trainable = trainable
    trained = {id(each) for each in model.trainable_variables}
    return [name for name, each in variables(model).items() if id(each) in trained]
