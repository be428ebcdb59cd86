"""Collectives between the replicas of a step, in the graph: sums of tensors, of gradients, of embeddings' rows.

Read in this order: `sum_over_replicas` for what a layer or loss asks of the others in the middle of a pass,
`sum_gradients` for what an update needs at its end, `_totals` for the one merge call that both of them make.

Rows of embeddings' gradients (`tf.IndexedSlices`) need care. TensorFlow gathers them with collectives, and within one
call of a graph a collective keeps the shape that it had first: a step with other rows (a smaller last batch, longer
sequences) aborts it, and every later collective of the process. So within a process each replica reads the others'
rows from their devices, and between processes they travel padded to one of a few sizes, each with its own collective.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from nameplate.engine import host_collectives
from nameplate.engine.host_collectives import replica_number
from nameplate.engine.loss_scaling import current_scale, multiplied
from nameplate.engine.private import with_gradient
from nameplate.errors import NameplateError, worded

SIZES = tuple(4**power for power in range(2, 14))  # rows of a replica that travel in one piece, up to 67 million


class CrossesReplicasError(Exception):
    """A computation that is compiled for one replica needs something of the others."""


def other_replicas() -> bool:
    """Say whether this is a replica of several, and the others have a part in what is computed."""
    scale = current_scale()
    if scale is not None and scale.alone:
        return False
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of the replicas' values; its gradient flows back to all of them.

    Raises:
        CrossesReplicasError: the trace is for one replica by itself.
    """
    return sums_over_replicas([value])[0]


def sums_over_replicas(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the sums over the replicas of several tensors, of any dtypes that add up, reduced together.

    Raises:
        CrossesReplicasError: the trace is for one replica by itself.
    """
    if not other_replicas() or not values:
        return list(values)
    scale = current_scale()
    if scale is not None and scale.compiled:
        raise CrossesReplicasError
    totals = list(_totals([tf.stop_gradient(value) for value in values]))
    floating = [index for index, value in enumerate(values) if value.dtype.is_floating]
    connected = with_gradient(
        [totals[index] for index in floating],
        [values[index] for index in floating],
        lambda *upstream: [sum_of_gradients(gradient) for gradient in upstream],
    )
    for index, total in zip(floating, connected, strict=True):
        totals[index] = total
    return totals


def sum_of_gradients(upstream: tf.Tensor) -> tf.Tensor:
    """Return the gradient by what a replica gave to a sum, from every replica's gradient by that sum.

    A sum depends on all replicas' values, and every replica's loss on the sum: so the gradients add up, as parts of the
    step's. Where scaling is deferred they are no such parts yet: each is of a mean over its replica's examples, and is
    scaled here; and what returns is divided by this replica's factor, since it is scaled when it reaches the optimizer.
    """
    scale = current_scale()
    if scale is None or not scale.deferred:
        return sum_over_replicas(upstream)
    return multiplied(sum_over_replicas(scale.scaled(upstream)), 1 / scale.share.part)


def sum_gradients(gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Return the sums over the replicas of gradients that are parts of the step's; None stays None.

    The "gradient" of a variable that is overwritten with it is not a part but a new value: of these the largest over
    the replicas is returned, as Keras takes the largest over accumulated steps. Scales and largest magnitudes of
    float8 are such.
    """
    if not other_replicas():
        return list(gradients)
    overwritten = [is_overwritten(variable) for variable in variables]
    # A maximum by way of a sum: each value in its replica's place among zeros, so that one collective serves for both.
    placed = [in_own_place(value) if whole else value for value, whole in zip(gradients, overwritten, strict=True)]
    summed = iter(packed(_totals, [value for value in placed if value is not None]))
    totals = [None if value is None else next(summed) for value in placed]
    return [tf.reduce_max(total, 0) if whole else total for total, whole in zip(totals, overwritten, strict=True)]


def is_overwritten(variable: Any) -> bool:
    """Say whether a variable's new value comes in the place of its gradient."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def in_own_place(value: tf.Tensor) -> tf.Tensor:
    """Return (replicas, ...), a replica's value in its place and zeros elsewhere: the sum over all holds every one."""
    return _in_place(value, tf.distribute.get_strategy().num_replicas_in_sync, replica_number())


def _totals(values: Sequence[Any]) -> Sequence[Any]:
    """Return the sums over the replicas, one pack a dtype, constant with respect to any gradient.

    `ReplicaContext.all_reduce` would make them differentiable. For that it searches the graph behind them for
    variables, at each call and through all replicas, and tracing takes time quadratic in the depth of the model.
    """
    of_dtype: dict[tf.DType, list[int]] = {}  # TensorFlow's collectives put the tensors of a pack into one
    sparse = [index for index, value in enumerate(values) if isinstance(value, tf.IndexedSlices)]
    for index, value in enumerate(values):
        if index not in sparse:
            of_dtype.setdefault(value.dtype, []).append(index)

    def reduce(strategy: tf.distribute.Strategy, *values: Any) -> Any:
        totals: dict[int, Any] = {index: _rows_of_replicas(strategy, values[index]) for index in sparse}
        for group in of_dtype.values():
            pairs = [(values[index], values[index]) for index in group]
            totals |= zip(group, strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs), strict=True)
        return [totals[index] for index in range(len(values))]

    snapshots = [_LayerTensors(layer) for layer in _own.layers]
    try:
        # This thread waits here until every replica has come as far, while the others run.
        totals = tf.distribute.get_replica_context().merge_call(reduce, args=tuple(values))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise NameplateError(
            "replicas cannot exchange anything inside a tf.function, a condition or a loop of the model's own. Move "
            "the layer with synchronised batch statistics, or the optimizer's step, out of it; or train with "
            + worded(keys="strategy.sync_batch_norm=false", arguments="sync_batch_norm=False")
        ) from error
    for snapshot in snapshots:
        snapshot.put_back()
    return [joined_rows(total) for total in totals]


class _Own(threading.local):
    """What belongs to this thread, and so to its replica: each has a thread, and one of them runs at a time."""

    layers: Sequence[Any] = ()


_own = _Own()


@contextmanager
def keeping_tensors_of(layers: Sequence[Any]) -> Iterator[None]:
    """Keep the tensors that a replica leaves on these layers from being replaced by another replica's.

    The replicas share the layers, and their threads take turns at every collective. Without this, what `call` stores
    for `compute_loss` would be another replica's by the time it is read. Collectives that a user's code makes itself,
    with `ReplicaContext.all_reduce`, are not covered.
    """
    before, _own.layers = _own.layers, layers
    try:
        yield
    finally:
        _own.layers = before


class _LayerTensors:
    """The tensors on a layer: its attributes that are a tensor, a list or dictionary of tensors, or an empty one."""

    def __init__(self, layer: Any) -> None:
        self._attributes = vars(layer)
        self._held = {name: value for name, value in self._attributes.items() if _is_tensors(value)}
        containers = {name: value for name, value in self._held.items() if isinstance(value, dict | list)}
        self._inside = {name: dict(each) if isinstance(each, dict) else list(each) for name, each in containers.items()}

    def put_back(self) -> None:
        """Put them back where they were, bypassing what Keras does when a layer's attributes change."""
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


def _rows_of_replicas(strategy: tf.distribute.Strategy, own: Any) -> Any:
    """Return the rows of every replica, from each replica's own; called between replicas, in a merge call.

    The result is a list of all rows by replica, wherever they are, for `joined_rows`; or rows that it leaves as is.
    """
    local = strategy.experimental_local_results(own)
    if not host_collectives.several_workers():
        return list(local)
    if all(rows.values.shape.is_fully_defined() for rows in local):
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(own, own)])[0]
    return _rows_between_workers(strategy, local)


def joined_rows(rows: Any) -> Any:
    """Return all rows in one, in the order of the replicas, on the device of the replica that asks."""
    if not isinstance(rows, list):
        return rows
    values, indices = (tf.concat([getattr(each, part) for each in rows], 0) for part in ("values", "indices"))
    return tf.IndexedSlices(values, indices, rows[0].dense_shape)


def _rows_between_workers(strategy: tf.distribute.Strategy, own: Sequence[tf.IndexedSlices]) -> list[tf.IndexedSlices]:
    """Return the rows of every replica, with as many collectives as TensorFlow makes, and two for equal lengths."""
    count = strategy.num_replicas_in_sync
    lengths = _summed(strategy, [_in_place([tf.size(rows.indices)], count, number) for number, rows in _numbered(own)])
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
        padded = [(number, _padded(getattr(rows, part), size)) for number, rows in _numbered(own)]
        parts.append(_summed(strategy, [_in_place(rows, count, number) for number, rows in padded]))
    return parts[0], parts[1]


def _numbered(own: Sequence[tf.IndexedSlices]) -> list[tuple[int, tf.IndexedSlices]]:
    """Return the rows of this worker's replicas, each with its replica's number among all."""
    return list(enumerate(own, host_collectives.first_local_replica()))


def _padded(rows: tf.Tensor, size: int) -> tf.Tensor:
    missing = [[0, size - tf.shape(rows)[0]], *[[0, 0]] * (rows.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(rows, missing), [size, *rows.shape[1:]])


def _in_place(value: Any, count: int, number: int) -> tf.Tensor:
    """Return a value at its replica's place among zeros, (count, ...)."""
    value = tf.convert_to_tensor(value)
    return tf.pad(value[None], [[number, count - 1 - number], *[[0, 0]] * value.shape.rank])


def _summed(strategy: tf.distribute.Strategy, own: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the sum over all replicas of values of which this worker's replicas have `own`."""
    first = host_collectives.first_local_replica()
    value = strategy.experimental_distribute_values_from_function(
        lambda context: own[context.replica_id_in_sync_group - first]
    )
    total = strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, value, destinations=value)
    return strategy.experimental_local_results(total)[0]


# ---- small tensors as one vector ------------------------------------------------------------------------------------

SMALL = 1 << 16  # elements; copying a larger tensor into a vector costs more than handling it by itself


def packed(change: Callable[[list[Any]], Sequence[Any]], values: Sequence[Any]) -> list[Any]:
    """Return `change(values)`, for an elementwise function that is called with fewer, larger tensors.

    Large tensors, `tf.IndexedSlices` and tensors of unknown shape pass as they are.
    """
    groups = _groups(values)
    grouped = {index for group in groups for index in group}
    rest = [index for index in range(len(values)) if index not in grouped]
    vectors = [as_vector([values[index] for index in group]) for group in groups]
    changed = list(change([*vectors, *(values[index] for index in rest)]))
    results: dict[int, Any] = dict(zip(rest, changed[len(groups) :], strict=True))
    for group, vector in zip(groups, changed, strict=False):
        results |= zip(group, from_vector(vector, [values[index].shape for index in group]), strict=True)
    return [results[index] for index in range(len(values))]


def as_vector(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the elements of all the tensors, (n,), in their order."""
    return tf.concat([value if value.shape.rank == 1 else tf.reshape(value, [-1]) for value in values], 0)


def from_vector(vector: tf.Tensor, shapes: Sequence[tf.TensorShape]) -> list[tf.Tensor]:
    """Return the tensors of these shapes that `as_vector` was made from."""
    pieces = tf.split(vector, [shape.num_elements() for shape in shapes])
    return [piece if shape.rank == 1 else tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def is_small(value: Any) -> bool:
    """Say whether a tensor has few elements, and a known shape."""
    if isinstance(value, tf.IndexedSlices) or not value.shape.is_fully_defined():
        return False
    return 0 < value.shape.num_elements() <= SMALL


def _groups(values: Sequence[Any]) -> list[list[int]]:
    """Return the indices of small tensors by dtype, where there are several of one."""
    of_dtype: dict[tf.DType, list[int]] = {}
    for index, value in enumerate(values):
        if is_small(value):
            of_dtype.setdefault(value.dtype, []).append(index)
    return [group for group in of_dtype.values() if len(group) > 1]
