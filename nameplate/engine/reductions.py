"""Reductions: whether a number that a model's own code makes of a batch is a mean over its examples, a sum, or neither.

Nothing about the number itself says so. The code is therefore called with two parts of a few random examples and with
both at once, on one device, and the three results are compared. `trial` does this for a whole step; `StepPass` then
applies what was found while the step is traced on several replicas.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.engine.loss_scaling import Reduction, current_scale
from nameplate.errors import NameplateError

FIRST, SECOND = 2, 3  # examples of the two parts; unequal, since equal ones would hide how means are weighted
BOTH = FIRST + SECOND
LENGTH = 4  # of a dimension whose length is unknown
TRIALS = 2


def same(one: Any, other: Any, tolerance: float = 1e-4) -> bool:
    """Say whether two values differ by rounding only; in float32 a sum is off by up to 1e-7 of its largest term."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    scale = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=tolerance * scale))


def reduction_of(first: Any, second: Any, both: Any, *, tolerance: float = 1e-4) -> Reduction:
    """Return how the value over both parts follows from those over each; zero, both a mean and a sum, is a mean."""
    first, second, both = (np.asarray(_number(value), np.float64) for value in (first, second, both))
    if not all(np.isfinite(value).all() for value in (first, second, both)):
        return Reduction.OTHER
    sizes = [value.shape[:1] for value in (first, second, both)]
    if sizes == [(FIRST,), (SECOND,), (BOTH,)] and first.shape[1:] == second.shape[1:] == both.shape[1:]:
        return Reduction.ROWS if same(np.concatenate([first, second]), both, tolerance) else Reduction.OTHER
    if not first.shape == second.shape == both.shape:
        return Reduction.OTHER
    if same((FIRST * first + SECOND * second) / BOTH, both, tolerance):
        return Reduction.MEAN
    return Reduction.SUM if same(first + second, both, tolerance) else Reduction.OTHER


def _number(value: Any) -> Any:
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else value  # NumPy has no bfloat16


def reduction_of_function(function: Callable[..., Any], like: Sequence[Any]) -> Reduction:
    """Return the reduction of `function(*like)`; OTHER, too, if it cannot be called with random numbers.

    `like` holds structures of tensors of (rows, ...), and None. Call this outside of a graph.
    """
    reductions = set()
    for trial in range(TRIALS):
        try:
            reductions.add(reduction_of(*(function(*part) for part in random_examples(like, seed=trial))))
        except Exception:  # a user's function may raise anything for numbers that it was not made for
            return Reduction.OTHER
    return reductions.pop() if len(reductions) == 1 else Reduction.OTHER


def random_examples(like: Any, *, seed: int) -> list[Any]:
    """Return two parts of random examples and both at once, in the structure of `like`: FIRST, SECOND and BOTH rows.

    Floats lie between 0.05 and 0.95, so that they can serve as probabilities and have logarithms, and the rows differ
    in size; integers are 0 and 1, which are valid labels for any number of classes.
    """
    generator = np.random.default_rng(seed)
    both = tf.nest.map_structure(lambda leaf: None if leaf is None else _random(leaf, generator), like)
    parts = [slice(0, FIRST), slice(FIRST, BOTH), slice(0, BOTH)]
    return [
        tf.nest.map_structure(lambda leaf, rows=rows: None if leaf is None else tf.constant(leaf[rows]), both)
        for rows in parts
    ]


def _random(leaf: Any, generator: np.random.Generator) -> np.ndarray:
    shape = (BOTH, *(LENGTH if size is None else int(size) for size in leaf.shape[1:]))
    dtype = tf.as_dtype(leaf.dtype)
    if dtype.is_floating:
        scale = generator.permutation(np.linspace(0.2, 1.0, BOTH)).reshape(-1, *[1] * (len(shape) - 1))
        return (0.05 + 0.9 * scale * generator.random(shape)).astype(dtype.as_numpy_dtype)
    if dtype.is_integer or dtype.is_bool:
        return generator.integers(0, 2, shape).astype(dtype.as_numpy_dtype)
    raise TypeError(f"no random examples of {dtype.name}")


AddedLoss = tuple[int, int]  # the identity of a layer, and the index of the loss among those it adds in a step


@dataclass(frozen=True)
class StepReductions:
    """How the numbers that a model's own code makes in a step are reduced over the examples."""

    added: Mapping[AddedLoss, Reduction] = field(default_factory=dict)
    loss: Reduction = Reduction.MEAN  # of the model's own `compute_loss`
    gradients: tuple[Reduction, ...] = ()  # of each call of an optimizer, in order
    logs: Mapping[str, Reduction] = field(default_factory=dict)  # what the step returns, except results of metrics


class UntriedStepError(Exception):
    """A traced step makes numbers whose reductions are unknown; `examples` are a share's, to try the step with."""

    examples: Any = None


class StepPass:
    """One pass through a step on one replica, or through a trial of it: counts what the model's code makes."""

    def __init__(self, known: StepReductions | None, *, is_trial: bool = False) -> None:
        self.known, self.is_trial = known, is_trial
        self.losses: dict[AddedLoss, Any] = {}  # in a trial: as the layers added them
        self.gradients: list[list[Any]] = []  # in a trial: as they reached the optimizers
        self._added: Counter[int] = Counter()
        self._applied = 0

    def restart(self) -> None:
        """Count added losses from the first again: the forward pass is traced once more."""
        self._added.clear()

    def reductions(self) -> StepReductions:
        """Return the known reductions; raise `UntriedStepError` if the step has not been tried."""
        if self.known is None:
            raise UntriedStepError
        return self.known

    def added_loss(self, layer: Any, loss: tf.Tensor) -> tf.Tensor:
        """Return the loss that a layer adds as a mean over the share: Keras scales it as one, whatever it is."""
        key = id(layer), self._added[id(layer)]
        self._added[id(layer)] += 1
        if self.is_trial:
            self.losses[key] = loss
            reduction = self.known.added.get(key, Reduction.MEAN) if self.known else Reduction.MEAN
        else:
            reduction = _known(self.reductions().added, key, f"a loss that the layer {layer.name!r} adds")
        scale = current_scale()
        return loss if scale is None else scale.as_mean(loss, reduction)

    def gradients_reduction(self) -> Reduction:
        """Return the reduction of the gradients in the next call of an optimizer."""
        self._applied += 1
        reductions = dict(enumerate(self.reductions().gradients))
        return _known(reductions, self._applied - 1, "a step of an optimizer")


def _known(reductions: Mapping[Any, Reduction], key: Any, what: str) -> Reduction:
    if key not in reductions:
        raise NameplateError(
            f"{what} was missing when the model was tried with random numbers. On several replicas, what a step does "
            "must not depend on the values or the number of its examples"
        )
    return reductions[key]


class _Current(threading.local):
    """The pass that this thread is in: each replica has a thread of its own."""

    step_pass: StepPass | None = None


_current = _Current()


def require_tried() -> None:
    """Raise `UntriedStepError` in a traced step that has not been tried: it has made a number of its own."""
    if _current.step_pass is not None and not _current.step_pass.is_trial:
        _current.step_pass.reductions()


def current_pass() -> StepPass | None:
    """Return the pass that this thread is in; None outside of a step, and on one replica."""
    return _current.step_pass


@contextmanager
def passing(step_pass: StepPass) -> Iterator[StepPass]:
    """Go through a step, or a trial of it."""
    before, _current.step_pass = _current.step_pass, step_pass
    try:
        yield step_pass
    finally:
        _current.step_pass = before
