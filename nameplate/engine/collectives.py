"""Rows of embeddings' gradients (`tf.IndexedSlices`) from all replicas, of any number in any step.

TensorFlow gathers them with collectives, and within one call of a graph a collective keeps the shape that it had first:
a step with other rows (a smaller last batch, longer sequences) aborts it, and every later collective of the process. So
within a process each replica takes the others' rows from their devices, and between processes they travel padded to one
of a few sizes, each with a collective of its own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from nameplate.engine import exchange
from nameplate.engine.exchange import number_of_this_replica
from nameplate.engine.loss_scaling import current, times
from nameplate.engine.packing import in_one_piece
from nameplate.engine.private.tracing import with_gradient
from nameplate.errors import NameplateError

SIZES = tuple(4**power for power in range(2, 14))  # rows of a replica that travel in one piece, up to 67 million


def of_all_replicas(strategy: tf.distribute.Strategy, own: Any) -> Any:
    """Return the rows of every replica, from each replica's own; called between replicas, in a merge call.

    Either a list of all rows by replica, wherever they are, for `joined`; or what `joined` leaves as it is.
    """
    local = strategy.experimental_local_results(own)
    if not exchange.several():
        return list(local)
    if all(each.values.shape.is_fully_defined() for each in local):
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(own, own)])[0]
    return _between_workers(strategy, local)


def joined(rows: Any) -> Any:
    """Return all rows in one, in the order of the replicas; on the device of the replica that asks."""
    if not isinstance(rows, list):
        return rows
    values, indices = (tf.concat([getattr(each, part) for each in rows], 0) for part in ("values", "indices"))
    return tf.IndexedSlices(values, indices, rows[0].dense_shape)


def _between_workers(strategy: tf.distribute.Strategy, own: Sequence[tf.IndexedSlices]) -> list[tf.IndexedSlices]:
    """Return the rows of every replica: as many collectives as TensorFlow makes, and two for equal lengths."""
    count = strategy.num_replicas_in_sync
    lengths = _summed(strategy, [_in_place([tf.size(each.indices)], count, number) for number, each in _numbered(own)])
    enough = tf.reduce_sum(tf.cast(tf.reduce_max(lengths) > tf.constant(SIZES[:-1]), tf.int32))
    travel = [functools.partial(_travelled, strategy, own, size) for size in SIZES]
    values, indices = tf.switch_case(enough, travel)
    shape = own[0].dense_shape
    return [
        tf.IndexedSlices(values[number, : lengths[number, 0]], indices[number, : lengths[number, 0]], shape)
        for number in range(count)
    ]


def _travelled(
    strategy: tf.distribute.Strategy, own: Sequence[tf.IndexedSlices], size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return values (replicas, size, ...) and indices (replicas, size) of all replicas, zero behind their rows."""
    count = strategy.num_replicas_in_sync
    parts: list[tf.Tensor] = []
    for part in ("values", "indices"):
        padded = [(number, _padded(getattr(each, part), size)) for number, each in _numbered(own)]
        parts.append(_summed(strategy, [_in_place(each, count, number) for number, each in padded]))
    return parts[0], parts[1]


def _numbered(own: Sequence[tf.IndexedSlices]) -> list[tuple[int, tf.IndexedSlices]]:
    """Return the rows of this worker's replicas, each with its replica's number among all."""
    return list(enumerate(own, exchange.first()))


def _padded(rows: tf.Tensor, size: int) -> tf.Tensor:
    missing = [[0, size - tf.shape(rows)[0]], *[[0, 0]] * (rows.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(rows, missing), [size, *rows.shape[1:]])


def _in_place(value: Any, count: int, number: int) -> tf.Tensor:
    """Return a value at its replica's place among zeros, (count, ...)."""
    value = tf.convert_to_tensor(value)
    return tf.pad(value[None], [[number, count - 1 - number], *[[0, 0]] * value.shape.rank])


def _summed(strategy: tf.distribute.Strategy, own: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the sum over all replicas of the values of this worker's."""
    first = exchange.first()
    value = strategy.experimental_distribute_values_from_function(
        lambda context: own[context.replica_id_in_sync_group - first]
    )
    total = strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, value, destinations=value)
    return strategy.experimental_local_results(total)[0]


class CrossesReplicasError(Exception):
    """A computation that was to be compiled for one replica asks the others for something."""


class _Own(threading.local):
    """What is this thread's alone, and so its replica's: each has a thread, and one of them runs at a time."""

    layers: Sequence[Any] = ()


_own = _Own()


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of the replicas' values; its gradient flows back to all of them.

    Raises:
        CrossesReplicasError: where the trace is for one replica alone.
    """
    return sums_over_replicas([value])[0]


def sums_over_replicas(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the sums over the replicas of several tensors, of any dtypes that add up, asked for together.

    Raises:
        CrossesReplicasError: where the trace is for one replica alone.
    """
    if not over_several() or not values:
        return list(values)
    part = current()
    if part is not None and part.compiled:
        raise CrossesReplicasError
    totals = list(_totals([tf.stop_gradient(value) for value in values]))
    floating = [place for place, value in enumerate(values) if value.dtype.is_floating]
    connected = with_gradient(
        [totals[place] for place in floating],
        [values[place] for place in floating],
        lambda *upstream: [sum_of_gradients(each) for each in upstream],
    )
    for place, total in zip(floating, connected, strict=True):
        totals[place] = total
    return totals


def sum_of_gradients(upstream: tf.Tensor) -> tf.Tensor:
    """Return the gradient by what a replica gave to a sum, from every replica's gradient by the sum.

    Where losses are weighted later, each is a mean over its replica's examples still, and so weighs as many; what
    comes back is weighted by this replica's when it reaches the optimizer.
    """
    part = current()
    if part is None or not part.later:
        return sum_over_replicas(upstream)
    return times(sum_over_replicas(times(upstream, part.weight)), 1 / part.weight)


def over_several() -> bool:
    """Say whether this is a replica and there are others, which have a part in what is computed."""
    part = current()
    if part is not None and part.alone:
        return False
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def added_up(gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Return the sums over the replicas of gradients that are parts of the step's; None stays None.

    What a variable is to be overwritten with is not a part: of that the largest over the replicas is returned, as
    Keras takes the largest over the steps of an accumulation. Scales and largest magnitudes of float8 are such.
    """
    if not over_several():
        return list(gradients)
    largest = [is_overwritten(variable) for variable in variables]
    placed = [in_its_place(value) if of_all else value for value, of_all in zip(gradients, largest, strict=True)]
    summed = iter(in_one_piece(_totals, [value for value in placed if value is not None]))
    totals = [None if value is None else next(summed) for value in placed]
    return [tf.reduce_max(total, 0) if of_all else total for total, of_all in zip(totals, largest, strict=True)]


def is_overwritten(variable: Any) -> bool:
    """Say whether a variable's new value comes in the place of its gradient."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def in_its_place(value: tf.Tensor) -> tf.Tensor:
    """Return (replicas, ...), a replica's value in its place and zeros elsewhere: the sum of all has every one."""
    number, replicas = number_of_this_replica(), tf.distribute.get_strategy().num_replicas_in_sync
    return tf.pad(value[None], [[number, replicas - 1 - number], *[[0, 0]] * value.shape.rank])


@contextmanager
def keeping(layers: Sequence[Any]) -> Iterator[None]:
    """Let the tensors that a replica leaves on these layers be its own, while it waits for the others here.

    Replicas share the layers, and their threads take turns where they exchange something: without this, what `call`
    keeps for `compute_loss` would be another replica's when that comes to it. An exchange of the user's own, with
    `ReplicaContext.all_reduce`, is not looked after.
    """
    before, _own.layers = _own.layers, layers
    try:
        yield
    finally:
        _own.layers = before


def _totals(values: Sequence[Any]) -> Sequence[Any]:
    """Return the sums over the replicas, in one pack a dtype, as constants to any gradient.

    `ReplicaContext.all_reduce` makes them differentiable, for which it looks through the graph behind them for
    variables, at each call and through all of the replicas: tracing took time as the square of the depth so.
    """
    of_dtype: dict[tf.DType, list[int]] = {}  # places: TensorFlow's collectives put a pack's tensors into one
    sparse = [place for place, each in enumerate(values) if isinstance(each, tf.IndexedSlices)]
    for place, each in enumerate(values):
        if place not in sparse:
            of_dtype.setdefault(each.dtype, []).append(place)

    def reduce(strategy: tf.distribute.Strategy, *values: Any) -> Any:
        found: dict[int, Any] = {place: of_all_replicas(strategy, values[place]) for place in sparse}
        for places in of_dtype.values():
            here = [(values[place], values[place]) for place in places]
            found |= zip(places, strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, here), strict=True)
        return [found[place] for place in range(len(values))]

    kept = [_Kept(layer) for layer in _own.layers]
    try:
        totals = tf.distribute.get_replica_context().merge_call(reduce, args=tuple(values))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise NameplateError(
            "replicas can exchange nothing from inside a tf.function, a condition or a loop of the model's own: take "
            "the layer with synchronised batch statistics, or the optimizer's step, out of it; or train with "
            "sync_batch_norm=False, in a run strategy.sync_batch_norm=false"
        ) from error
    for each in kept:
        each.give_back()
    return [joined(total) for total in totals]


class _Kept:
    """The tensors on a layer: its attributes that are one, or a list or dictionary of them, or an empty one."""

    def __init__(self, layer: Any) -> None:
        self._attributes = vars(layer)
        self._held = {name: value for name, value in self._attributes.items() if _is_tensors(value)}
        containers = {name: value for name, value in self._held.items() if isinstance(value, dict | list)}
        self._inside = {name: dict(each) if isinstance(each, dict) else list(each) for name, each in containers.items()}

    def give_back(self) -> None:
        """Put them back where they were, past what Keras does when a layer's attributes change."""
        self._attributes.update(self._held)
        for name, inside in self._inside.items():
            if isinstance(inside, dict):
                dict.clear(self._held[name])
                dict.update(self._held[name], inside)
            else:
                list.__setitem__(self._held[name], slice(None), inside)


def _is_tensors(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        first = next(iter(value.values() if isinstance(value, dict) else value), None)
        return first is None or tf.is_tensor(first)
    return bool(tf.is_tensor(value))
