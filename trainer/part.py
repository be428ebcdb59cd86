"""What a replica is doing while its step is traced: which part of the step it has, and what it asks of the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf


class CrossesReplicasError(Exception):
    """A computation that was to be compiled for one replica asks the others for something."""


@dataclass(frozen=True)
class Part:
    """How the losses of a replica enter the step's."""

    weight: float  # of a mean over the replica's examples; those of all replicas add up to 1
    copies: int = 1  # replicas that hold the same examples, each of which has one `copies`-th of a sum
    asks: bool = True  # divisors that depend on the data are added up over the replicas
    compiled: bool = False  # for one replica alone: nothing may be asked of the others


class _Traced(threading.local):
    """The part that this thread traces: MirroredStrategy has a thread for each replica, and one runs at a time."""

    part: Part | None = None


_traced = _Traced()


def current() -> Part | None:
    """Return the part that is being traced, None outside of a step."""
    return _traced.part


@contextmanager
def tracing(part: Part) -> Iterator[None]:
    """Trace a replica's part of a step: losses inside are its part of the step's, and add up over the replicas."""
    before, _traced.part = _traced.part, part
    try:
        yield
    finally:
        _traced.part = before


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of the replicas' values; its gradient flows back to all of them.

    Raises:
        CrossesReplicasError: where the trace is for one replica alone.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    part = current()
    if part is not None and part.compiled:
        raise CrossesReplicasError
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
