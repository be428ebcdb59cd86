"""How what a function makes of a batch comes from what it makes of the batch's parts: found by trying it.

A number that user code makes of examples says nothing of what it is: a mean, a sum, or neither. So the function is
called with two parts of a few random examples and with both at once, on one device.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.engine.loss_scaling import Part, current, times
from nameplate.errors import NameplateError

FIRST, SECOND = 2, 3  # examples of the two parts: unequal, since equal ones hide how means are weighted
BOTH = FIRST + SECOND
LENGTH = 4  # of a dimension whose length is not known
TRIALS = 2


class Kind(Enum):
    """What a value over examples is, with respect to the values over parts of them."""

    ROWS = "a row an example"
    MEAN = "their mean, weighted by examples, or the same for any examples"
    SUM = "their sum"
    OTHER = "something else"


def same(one: Any, other: Any, tolerance: float = 1e-4) -> bool:
    """Say whether two values differ by rounding alone, which is up to 1e-7 of the largest a sum, in float32."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    scale = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=tolerance * scale))


def kind_of(first: Any, second: Any, both: Any, *, tolerance: float = 1e-4) -> Kind:
    """Return what the value over both parts is; a value that is both a mean and a sum (zero) counts as a mean."""
    first, second, both = (np.asarray(_number(value), np.float64) for value in (first, second, both))
    if not all(np.isfinite(value).all() for value in (first, second, both)):
        return Kind.OTHER
    sizes = [value.shape[:1] for value in (first, second, both)]
    if sizes == [(FIRST,), (SECOND,), (BOTH,)] and first.shape[1:] == second.shape[1:] == both.shape[1:]:
        return Kind.ROWS if same(np.concatenate([first, second]), both, tolerance) else Kind.OTHER
    if not first.shape == second.shape == both.shape:
        return Kind.OTHER
    if same((FIRST * first + SECOND * second) / BOTH, both, tolerance):
        return Kind.MEAN
    return Kind.SUM if same(first + second, both, tolerance) else Kind.OTHER


def _number(value: Any) -> Any:
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else value  # NumPy knows no bfloat16


def found_kind(function: Callable[..., Any], like: Sequence[Any]) -> Kind:
    """Return of which kind `function(*like)` is; OTHER, too, where it cannot be called with random numbers.

    `like` are structures of tensors of (rows, ...), and None. Call it outside of a graph.
    """
    found = set()
    for trial in range(TRIALS):
        try:
            found.add(kind_of(*(function(*part) for part in examples(like, seed=trial))))
        except Exception:  # a user's function may raise anything of numbers that it was not made for
            return Kind.OTHER
    return found.pop() if len(found) == 1 else Kind.OTHER


def examples(like: Any, *, seed: int) -> list[Any]:
    """Return two parts of random examples and both at once, in the structure of `like`: FIRST, SECOND, BOTH rows.

    Floats lie between 0.05 and 0.95, so that they may be logarithms' and probabilities, and rows are of unlike size;
    integers are 0 and 1, which are labels of any number of classes.
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


AddedLoss = tuple[int, int]  # a layer, by its identity, and the how-manieth that it adds in a step


@dataclass(frozen=True)
class Scalars:
    """What the numbers of a model's own code are in a step."""

    added: Mapping[AddedLoss, Kind] = field(default_factory=dict)
    loss: Kind = Kind.MEAN  # of the model's own `compute_loss`
    gradients: tuple[Kind, ...] = ()  # as they reach an optimizer, one after the other
    logs: Mapping[str, Kind] = field(default_factory=dict)  # what the step returns, but for results of metrics


class UnknownScalarsError(Exception):
    """A step that is traced makes numbers of which it is not known what they are; `examples` are those of a share."""

    examples: Any = None


class Walk:
    """One way through a step of one replica, or a trial of it."""

    def __init__(self, known: Scalars | None, *, is_trial: bool = False) -> None:
        self.known, self.is_trial = known, is_trial
        self.losses: dict[AddedLoss, Any] = {}  # as they were added, in a trial
        self.gradients: list[list[Any]] = []  # as they reached an optimizer, in a trial
        self._added: Counter[int] = Counter()
        self._applied = 0

    def begin_pass(self) -> None:
        """Go forward again from the beginning."""
        self._added.clear()

    def scalars(self) -> Scalars:
        """Return what is known; raise `UnknownScalarsError` where nothing is yet."""
        if self.known is None:
            raise UnknownScalarsError
        return self.known

    def added(self, layer: Any, loss: tf.Tensor) -> tf.Tensor:
        """Return a loss that a layer adds as a mean over the share's examples that enters the step's as it should."""
        key = id(layer), self._added[id(layer)]
        self._added[id(layer)] += 1
        if self.is_trial:
            self.losses[key] = loss
            kind = self.known.added.get(key, Kind.MEAN) if self.known else Kind.MEAN
        else:
            kind = _known(self.scalars().added, key, f"a loss that the layer {layer.name!r} adds")
        return as_mean(loss, kind)

    def gradients_kind(self) -> Kind:
        """Return what the gradients are that reach an optimizer next."""
        self._applied += 1
        kinds = dict(enumerate(self.scalars().gradients))
        return _known(kinds, self._applied - 1, "a step of an optimizer")


def as_mean(value: tf.Tensor, kind: Kind) -> tf.Tensor:
    """Return a number over the share's examples as one that is weighted, later or at once, as a mean over them is."""
    part = current()
    return value if kind is not Kind.SUM or part is None else times(value, 1 / (part.weight * part.copies))


def weight_of(kind: Kind, part: Part) -> float | tf.Tensor:
    """Return by what a number over a share's examples is multiplied so that those of all replicas are the step's."""
    return 1 / part.copies if kind is Kind.SUM else part.weight


def _known(kinds: Mapping[Any, Kind], key: Any, what: str) -> Kind:
    if key not in kinds:
        raise NameplateError(
            f"{what} was not there when the model was tried with random numbers: what a step does must not depend on "
            "the values or the number of its examples where it trains on several replicas"
        )
    return kinds[key]


class _Walking(threading.local):
    """What this thread is on: each replica has a thread of its own."""

    walk: Walk | None = None


_walking = _Walking()


def require_known() -> None:
    """Raise `UnknownScalarsError` in a step whose numbers have not been tried yet, and that has made one."""
    if _walking.walk is not None and not _walking.walk.is_trial:
        _walking.walk.scalars()


def walk() -> Walk | None:
    """Return the way that this thread is on; None outside of a step, and on one replica."""
    return _walking.walk


@contextmanager
def walking(walk: Walk) -> Iterator[Walk]:
    """Go through a step, or a trial of it."""
    before, _walking.walk = _walking.walk, walk
    try:
        yield walk
    finally:
        _walking.walk = before
