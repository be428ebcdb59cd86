"""The arguments of `nameplate.fit`, which are those of `model.fit`, and which of them are invalid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from nameplate.data.adapters import is_dataset
from nameplate.data.source import Source, Stream, leaves
from nameplate.errors import NameplateError
from nameplate.graph.tree import require_model

_COUNTS = (
    "epochs",
    "steps",
    "steps_per_epoch",
    "batch_size",
    "validation_steps",
    "validation_batch_size",
    "steps_per_loop",
)


@dataclass(frozen=True)
class Arguments:
    """How long and in what batches to train, and by which rules."""

    epochs: int = 1
    initial_epoch: int = 0
    steps: int | None = None  # in all
    steps_per_epoch: int | None = None
    batch_size: int | None = None  # over all replicas together; None: 32, or the dataset's own
    validation_freq: int | Collection[int] = 1  # epochs, or after which
    validation_steps: int | None = None
    validation_batch_size: int | None = None  # None: batch_size
    class_weight: Mapping[int, float] | None = None
    shuffle: bool = True
    seed: int = 0
    steps_per_loop: int | None = None
    xla: bool = False
    verbose: int | str = 0
    max_rollbacks: int = 0  # of a run, because of NaN

    def require_valid(self, model: keras.Model) -> None:
        """Raise `NameplateError` with every invalid argument, before anything is changed."""
        require_model(model)
        problems = [] if model.compiled else [f"{model.name!r} is not compiled; call model.compile(...) first"]
        problems += count_problems({key: getattr(self, key) for key in _COUNTS})
        if isinstance(self.validation_freq, int) or not isinstance(self.validation_freq, Collection):
            problems += count_problems({"validation_freq": self.validation_freq})
        if self.initial_epoch < 0:
            problems.append(f"initial_epoch={self.initial_epoch}: at least 0")
        if not isinstance(self.max_rollbacks, int) or self.max_rollbacks < 0:
            problems.append(f"max_rollbacks={self.max_rollbacks!r}: a whole number, at least 0")
        problems += verbose_problems(self.verbose)
        wrong = [key for key in self.class_weight or {} if not isinstance(key, int | np.integer) or key < 0]
        if wrong:
            problems.append(f"class_weight: classes are numbers from 0, not {', '.join(map(repr, wrong))}")
        if problems:
            raise NameplateError("\n".join(problems))


def count_problems(counts: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with numbers of steps, examples or epochs, by argument; None means the default."""
    given = {key: value for key, value in counts.items() if value is not None}
    whole = {key: isinstance(value, int | np.integer) for key, value in given.items()}
    return [
        f"{key}={value}: at least 1" if whole[key] else f"{key}={value!r}: a whole number, at least 1"
        for key, value in given.items()
        if not whole[key] or value < 1
    ]


def verbose_problems(verbose: Any) -> list[str]:
    """Return what is wrong with `verbose`."""
    return [] if verbose in (0, 1, 2, "auto") else [f"verbose={verbose!r}: 0, 1, 2 or 'auto'"]


def joined(model: keras.Model, data: Any, x: Any, y: Any, sample_weight: Any, *, alone: bool = False) -> Any:
    """Return data in one piece: `data` as it is, or (x, y[, sample_weight]) if they were given separately.

    A tuple or list may be the inputs only, or (x, y[, sample_weight]). The number of the model's inputs decides, if it
    is known; otherwise `data` is inputs if `alone`, and `x` always is, as in Keras.

    Raises:
        NameplateError: something is missing, given twice, or given beside a dataset that holds it.
    """
    alone = alone or data is None
    if (data is None) == (x is None):
        raise NameplateError("give the data as second argument or as x=..., one of the two")
    data = x if data is None else data
    if y is None and sample_weight is None:
        return (data,) if isinstance(data, tuple | list) and _are_inputs(model, data, alone=alone) else data
    if is_dataset(data) or isinstance(data, Source | Stream):
        beside = " and ".join(key for key, each in (("y", y), ("sample_weight", sample_weight)) if each is not None)
        raise NameplateError(
            f"{beside} beside a {type(data).__name__}, which holds its targets and weights itself: (x, y, weight)"
        )
    if sample_weight is not None and not leaves(sample_weight):
        raise NameplateError(f"sample_weight={sample_weight!r:.40}: give an array with the weight of each example")
    if y is None:
        raise NameplateError("sample_weight without y; give x, y and sample_weight")
    return (data, y) if sample_weight is None else (data, y, sample_weight)


def _are_inputs(model: keras.Model, data: Sequence[Any], *, alone: bool) -> bool:
    """Say whether the parts of `data` are the model's inputs; `alone` decides if their number does not."""
    inputs = len(model.inputs) if isinstance(getattr(model, "inputs", None), list) else None
    in_one = len(data) in (2, 3) or (len(data) == 1 and isinstance(data[0], tuple | list | dict))
    if inputs is not None and in_one and len(leaves(data[0])) == inputs:
        return False
    return alone or len(leaves(data)) == inputs
