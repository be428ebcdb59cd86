"""The arguments of `trainer.fit`, as `model.fit` has them, and which cannot be meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.errors import NameplateError
from trainer.data.source import Source, Stream

_COUNTS = (
    "epochs",
    "steps",
    "steps_per_epoch",
    "batch_size",
    "validation_freq",
    "validation_steps",
    "validation_batch_size",
    "steps_per_loop",
)


@dataclass(frozen=True)
class Arguments:
    """How long, in which portions and by which rules to train."""

    epochs: int = 1
    initial_epoch: int = 0
    steps: int | None = None  # in all
    steps_per_epoch: int | None = None
    batch_size: int | None = None  # over all replicas together; None: 32, or the dataset's own
    validation_freq: int = 1  # epochs
    validation_steps: int | None = None
    validation_batch_size: int | None = None  # None: batch_size
    class_weight: Mapping[int, float] | None = None
    shuffle: bool = True
    seed: int = 0
    steps_per_loop: int | None = None
    xla: bool = False
    verbose: int | str = 0

    def refuse_nonsense(self, model: keras.Model) -> None:
        """Raise `NameplateError` with everything that cannot be meant, before anything is touched."""
        problems = [] if model.compiled else [f"{model.name!r} is not compiled; call model.compile(...) first"]
        if model.compiled and model.run_eagerly:
            problems.append("compile(run_eagerly=True): trainer.fit trains in the graph alone; leave it out")
        for key in _COUNTS:
            value = getattr(self, key)
            if value is not None and not isinstance(value, int | np.integer):
                problems.append(f"{key}={value!r}: a whole number, at least 1")
            elif value is not None and value < 1:
                problems.append(f"{key}={value}: at least 1")
        if self.initial_epoch < 0:
            problems.append(f"initial_epoch={self.initial_epoch}: at least 0")
        if self.verbose not in (0, 1, 2, "auto"):
            problems.append(f"verbose={self.verbose!r}: 0, 1, 2 or 'auto'")
        wrong = [key for key in self.class_weight or {} if not isinstance(key, int | np.integer) or key < 0]
        if wrong:
            problems.append(f"class_weight: classes are numbers from 0, not {', '.join(map(repr, wrong))}")
        if problems:
            raise NameplateError("\n".join(problems))


def joined(data: Any, x: Any, y: Any, sample_weight: Any) -> Any:
    """Return data in one piece: as it was given in one, or (x, y[, sample_weight]) of what was given in several.

    Raises:
        NameplateError: something is missing, given twice, or beside a dataset that holds it.
    """
    if (data is None) == (x is None):
        raise NameplateError("give the data as second argument or as x=..., one of the two")
    data = x if data is None else data
    if y is None and sample_weight is None:
        return data
    if isinstance(data, tf.data.Dataset | Source | Stream):
        beside = " and ".join(key for key, each in (("y", y), ("sample_weight", sample_weight)) if each is not None)
        raise NameplateError(
            f"{beside} beside a {type(data).__name__}, which holds its targets and weights itself: (x, y, weight)"
        )
    if y is None:
        raise NameplateError("sample_weight without y; give x, y and sample_weight")
    return (data, y) if sample_weight is None else (data, y, sample_weight)


def split_off(data: Any, share: float) -> tuple[Any, Any]:
    """Return the first examples of arrays, and the last `share` of them to validate on, as `model.fit` splits.

    Raises:
        NameplateError: what is no array, or a share that leaves one side without an example.
    """
    if not isinstance(data, tuple | list):
        raise NameplateError(
            f"validation_split={share}: a {type(data).__name__} cannot be split; give arrays, or validation_data=..."
        )
    arrays = tf.nest.map_structure(np.asarray, tuple(data))
    size = min(len(each) if each.ndim else 0 for each in tf.nest.flatten(arrays))
    first = int(np.floor(size * (1 - share)))
    if not 0 < first < size:
        raise NameplateError(f"validation_split={share} of {size} examples leaves one side without any")
    return (
        tf.nest.map_structure(lambda each: each[:first], arrays),
        tf.nest.map_structure(lambda each: each[first:], arrays),
    )
