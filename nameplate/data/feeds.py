"""How examples reach the replicas: from memory on the devices, or through one tf.data iterator.

`begin` is called once for the whole run. In the graph, outside the replicas, `ahead` is called once for many steps and
`take` once a step, for the arguments of that step; `examples` is called with these on each replica and returns its
share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from nameplate.data.batches import Batches, Share, shuffled
from nameplate.data.config import Resident
from nameplate.data.source import Source, Stream, leaves, mapped

RESIDENT_BYTES = 1 << 30  # limit of what resident data takes on each device

Order = Callable[[tf.Tensor, Any], tf.Tensor]  # (positions, epoch) -> indices of examples
Take = tuple[Any, ...]
StepsFrom = Callable[[int], tf.data.Dataset]  # step of the run -> the examples of each step from there on, forever
SharesFrom = Callable[[int, range], tf.data.Dataset]  # (step of the run, replicas) -> their shares in turn, forever


class Feed(Protocol):
    """Brings each step's examples to the replicas."""

    batches: Batches

    @property
    def signature(self) -> Hashable:
        """What a graph has of the feed once it is traced; equal for feeds that the same graph can serve."""

    def hold(self, place: Any) -> None:
        """Make the examples ready, in the place that a feed of the same signature left, or in one of its own."""

    def begin(self, step: int) -> Any:
        """Return an iterator that starts at this step of the run; None if the position is all that a step needs."""

    def ahead(self, epoch: tf.Tensor, position: tf.Tensor, examples: tf.Tensor) -> Any:
        """Return what is computed once for the `examples` of the epoch from `position` on; arguments int64 scalars."""

    def take(self, iterator: Any, ahead: Any, step: tf.Tensor) -> Take:
        """Return the arguments of one step, int64, counted from the position of `ahead`."""

    def examples(self, taken: Take, share: Share) -> Any:
        """Return a replica's share in the structure of the source's examples; called on the replica."""

    def release(self) -> Any:
        """Free the examples, and return the place where they were; the feed is not used again."""


def in_file_order(positions: tf.Tensor, epoch: Any) -> tf.Tensor:
    """Return the positions unchanged: the order of an evaluation."""
    del epoch
    return positions


@dataclass(frozen=True)
class BySeed:
    """The order of training: each epoch its own permutation, a function of seed, epoch and position."""

    seed: int
    size: int

    def __call__(self, positions: tf.Tensor, epoch: Any) -> tf.Tensor:
        """Return the indices of the examples at these positions."""
        return shuffled(positions, epoch=epoch, seed=self.seed, size=self.size)


def feed_of(source: Source | Stream, batches: Batches, order: Order, resident: Resident) -> Feed:
    """Return the feed that suits a source; call it inside the strategy's scope."""
    if isinstance(source, Stream):
        steps, shares = (functools.partial(make, source, batches) for make in (_steps_of_stream, _shares_of_stream))
        return HostFeed(steps, batches) if _computes_on_host() else PipelineFeed(shares, batches)
    arrays = None if resident is Resident.never else source.arrays()
    if arrays is not None:
        held = sum(array.nbytes for array in leaves(arrays))
        if resident is Resident.always or held <= RESIDENT_BYTES:
            return ResidentFeed(arrays, batches, order)
    steps, shares = (functools.partial(make, source, batches, order) for make in (_steps_of_source, _shares_of_source))
    return HostFeed(steps, batches) if _computes_on_host() else PipelineFeed(shares, batches)


def steps_from(source: Source | Stream, batches: Batches, order: Order, step: int) -> tf.data.Dataset:
    """Return the whole steps from `step` of the run on, epoch after epoch and forever; `order` is not a stream's."""
    if isinstance(source, Stream):
        return _steps_of_stream(source, batches, step)
    return _steps_of_source(source, batches, order, step)


def _computes_on_host() -> bool:
    """Say whether all replicas are in this process and compute on the CPU."""
    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return not several and {device.device_type for device in tf.config.list_logical_devices()} == {"CPU"}


class ResidentFeed:
    """All examples in the memory of every device, gathered there in the order of the epoch."""

    def __init__(self, arrays: Any, batches: Batches, order: Order) -> None:
        self.batches = batches
        self._order, self._arrays = order, arrays
        self._held: Any = None
        self._shapes = repr(mapped(lambda array: f"{array.shape} {array.dtype}", arrays))

    @property
    def signature(self) -> Hashable:
        """Graphs have the variables, whose shapes are fixed, and the order."""
        return type(self), self.batches, self._order, self._shapes

    def hold(self, place: Any) -> None:
        """Copy the examples to the devices: into the variables of an earlier feed, which its graphs know."""
        if place is not None:
            self._held = place
            for variable, array in zip(leaves(self._held), leaves(self._arrays), strict=True):
                _assign(variable, array)
        else:
            self._held = mapped(lambda array: tf.Variable(array, trainable=False), self._arrays)
        self._arrays = None

    def begin(self, step: int) -> None:
        """Do nothing: every call gets the position."""
        del step

    def ahead(self, epoch: tf.Tensor, position: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        """Return the indices of the examples, (examples,) int64."""
        return self._order(position + tf.range(examples, dtype=tf.int64), epoch)

    def take(self, iterator: Any, ahead: Any, step: tf.Tensor) -> Take:
        """Return the indices, and the place among them where the step begins."""
        del iterator
        return ahead, step * self.batches.batch

    def examples(self, taken: Take, share: Share) -> Any:
        """Gather this replica's share."""
        indices, begin = taken
        own = tf.slice(indices, [begin + share.start], [share.length])
        return mapped(lambda held: tf.gather(held, own), self._held)

    def release(self) -> Any:
        """Empty the variables on every device: graphs keep them alive."""
        for variable in leaves(self._held):
            _assign(variable, tf.zeros([0], variable.dtype))
        return self._held


def _assign(variable: tf.Variable, value: Any) -> None:
    """Set every replica's copy to a value of any shape."""
    for copy in tf.distribute.get_strategy().experimental_local_results(variable):
        with tf.device(copy.device):
            tf.raw_ops.AssignVariableOp(resource=copy.handle, value=tf.constant(value, copy.dtype))


class _IteratorFeed:
    """A feed through one iterator, whose state is the position of the run."""

    batches: Batches

    @property
    def signature(self) -> Hashable:
        """Graphs get the iterator as an argument."""
        return type(self), self.batches

    def hold(self, place: Any) -> None:
        """Do nothing: the examples come when they are asked for."""

    def ahead(self, epoch: tf.Tensor, position: tf.Tensor, examples: tf.Tensor) -> None:
        """Do nothing: the iterator has the position."""
        del epoch, position, examples

    def take(self, iterator: Any, ahead: Any, step: tf.Tensor) -> Take:
        """Return the next element: the examples of a step, or a share for each replica."""
        del ahead, step
        return (iterator.get_next(),)

    def release(self) -> None:
        """Do nothing: the iterator is freed with its owner."""


class HostFeed(_IteratorFeed):
    """Whole steps through one tf.data iterator, for replicas that compute in host memory.

    Moving each share to its device, as `PipelineFeed` does, would cost more than a small step takes.
    """

    def __init__(self, steps_from: StepsFrom, batches: Batches) -> None:
        self.batches = batches
        self._steps_from = steps_from

    def begin(self, step: int) -> Any:
        """Start the pipeline at this step of the run."""
        return iter(self._steps_from(step))

    def examples(self, taken: Take, share: Share) -> Any:
        """Return this replica's slice of the step."""
        (examples,) = taken
        if self.batches.replicas == 1:
            return mapped(lambda leaf: _of_length(leaf, share.length), examples)
        return mapped(lambda leaf: _slice(leaf, share), examples)


class PipelineFeed(_IteratorFeed):
    """Shares through one tf.data iterator, in the order in which the replicas take them, epoch after epoch."""

    def __init__(self, shares_from: SharesFrom, batches: Batches) -> None:
        self.batches = batches
        self._shares_from = shares_from

    def begin(self, step: int) -> Any:
        """Start the pipeline at this step of the run; each worker's serves its own replicas."""

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            held = self.batches.replicas // context.num_input_pipelines
            first = held * context.input_pipeline_id
            return self._shares_from(step, range(first, first + held))

        return iter(tf.distribute.get_strategy().distribute_datasets_from_function(of_worker))

    def examples(self, taken: Take, share: Share) -> Any:
        """Return the share that came, once its length is checked."""
        (examples,) = taken
        return mapped(lambda leaf: _of_length(leaf, share.length), examples)


def _of_length(examples: tf.Tensor, length: Any) -> tf.Tensor:
    """Check the number of examples and return them; a `length` that is a number becomes part of their shape."""
    if isinstance(length, tf.Tensor):
        tf.debugging.assert_equal(
            tf.shape(examples, tf.int64)[0],
            length,
            message="the pipeline returned a step with the wrong number of examples",
        )
        return examples
    return tf.ensure_shape(examples, [length, *examples.shape[1:]])


def _slice(examples: tf.Tensor, share: Share) -> tf.Tensor:
    rest = examples.shape.rank - 1
    begin = tf.convert_to_tensor([share.start, *[0] * rest], tf.int64)
    size = tf.convert_to_tensor([share.length, *[-1] * rest], tf.int64)
    length = None if isinstance(share.length, tf.Tensor) else share.length
    return tf.ensure_shape(tf.slice(examples, begin, size), [length, *examples.shape[1:]])


def _steps_of_source(source: Source, batches: Batches, order: Order, step: int) -> tf.data.Dataset:
    def load(number: tf.Tensor) -> Any:
        epoch, within = number // batches.steps, number % batches.steps
        length = tf.where(within < batches.full, batches.batch, batches.last)
        positions = within * batches.batch + tf.range(tf.cast(length, tf.int64))
        return source.load(order(positions, epoch))

    # `counter` is known to be infinite. Of a pipeline that may end, every step has to ask whether it has.
    numbers = tf.data.Dataset.counter(step)
    return numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def _shares_of_source(source: Source, batches: Batches, order: Order, step: int, replicas: range) -> tf.data.Dataset:
    table = tf.constant(_table(batches), tf.int64)
    held = len(replicas)

    def load(number: tf.Tensor) -> Any:
        step, replica = number // held, replicas.start + number % held
        epoch, within = step // batches.steps, step % batches.steps
        share = table[tf.cast(within >= batches.full, tf.int32), tf.cast(replica, tf.int32)]
        positions = within * batches.batch + share[0] + tf.range(share[1], dtype=tf.int64)
        return source.load(order(positions, epoch))

    numbers = tf.data.Dataset.counter(step * held)
    return numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2 * held)


def _steps_of_stream(stream: Stream, batches: Batches, step: int) -> tf.data.Dataset:
    """Return the steps from `step` on: without random access, the earlier ones are read and skipped."""
    whole = stream.dataset if stream.batched else stream.dataset.batch(batches.batch)
    if stream.endless and stream.batched and not stream.batch:  # .batch(8).repeat(): one batch an epoch may be smaller
        whole = whole.rebatch(batches.batch, drop_remainder=True)
    steps = _endless(whole.repeat().skip(step - stream.first))
    # A second prefetch would be one more thread that each step passes through (class name of tensorflow 2.21).
    return steps if "Prefetch" in type(stream.dataset).__name__ else steps.prefetch(2)


def _shares_of_stream(stream: Stream, batches: Batches, step: int, replicas: range) -> tf.data.Dataset:
    table = tf.constant(_table(batches)[:, replicas.start : replicas.stop], tf.int64)

    def shares(*parts: Any) -> tf.data.Dataset:
        examples = parts if isinstance(stream.dataset.element_spec, tuple) else parts[0]
        size = tf.shape(leaves(examples)[0], tf.int64)[0]
        rows = table[tf.cast(size < batches.batch, tf.int32)]
        return tf.data.Dataset.from_tensor_slices(rows).map(
            lambda row: mapped(lambda leaf: leaf[row[0] : row[0] + row[1]], examples)
        )

    return _endless(_steps_of_stream(stream, batches, step).flat_map(shares)).prefetch(2 * len(replicas))


def _endless(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Declare that a pipeline is infinite: otherwise every step asks whether it has ended."""
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _table(batches: Batches) -> np.ndarray:
    """Return starts and lengths of the shares of a full and of the last step, (2, replicas, 2)."""
    rows = [batches.shares(batches.batch), batches.shares(batches.last or batches.batch)]
    return np.array([[(share.start, share.length) for share in row] for row in rows])
