"""Numbers that user code makes of a replica's share by itself: what they are, and so how they enter the step's.

`add_loss`, a `compute_loss` or `train_step` of the model's own, a metric that is updated by a number: Keras takes what
comes of the whole batch, and nothing says whether a mean or a sum does. It is found out by `trainer.replicas.trial`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from models.errors import NameplateError
from trainer.replicas.kinds import Kind
from trainer.replicas.part import Part, current, times

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
