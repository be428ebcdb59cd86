"""How examples reach the replicas: from memory on the devices, or through one tf.data iterator.

A feed is begun once for the whole run. In the graph, outside the replicas, `ahead` is called once for many steps and
`take` once a step, for the arguments of that step; `examples` is called with them on each replica and gives its share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from nameplate.data.batches import Batches, Share, shuffled
from nameplate.data.config import Resident
from nameplate.data.source import Source, Stream, leaves, mapped

RESIDENT_BYTES = 1 << 30  # what a data set kept on the devices may take on each of them

Order = Callable[[tf.Tensor, Any], tf.Tensor]  # (positions, epoch) -> indices of examples
Take = tuple[Any, ...]
StepsFrom = Callable[[int], tf.data.Dataset]  # step of the run -> the examples of each step from there on, without end
SharesFrom = Callable[[int, range], tf.data.Dataset]  # (step of the run, replicas) -> their shares in turn, without end


class Feed(Protocol):
    """Where a step's examples come from."""

    batches: Batches

    def begin(self, step: int) -> Any:
        """Return the iterator that goes on at this step of the run; None where the position alone decides."""

    def ahead(self, epoch: tf.Tensor, position: tf.Tensor, examples: tf.Tensor) -> Any:
        """Return what can be made at once for so many examples of the epoch from `position` on; int64 scalars."""

    def take(self, iterator: Any, ahead: Any, step: tf.Tensor) -> Take:
        """Return the arguments of one step, int64, counted from the position of `ahead`."""

    def examples(self, taken: Take, share: Share) -> Any:
        """Return a replica's share, in the structure of the source's examples; called on the replica."""

    def release(self) -> None:
        """Let go of the examples; the feed is over."""


def in_file_order(positions: tf.Tensor, epoch: Any) -> tf.Tensor:
    """Leave the examples as they come: the order of an evaluation."""
    del epoch
    return positions


def by_seed(seed: int, size: int) -> Order:
    """Return the order of training: each epoch a permutation of its own, a function of seed, epoch and position."""

    def order(positions: tf.Tensor, epoch: Any) -> tf.Tensor:
        return shuffled(positions, epoch=epoch, seed=seed, size=size)

    return order


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


def _computes_on_host() -> bool:
    """Say whether the replicas of this process, all there are, compute on the CPU."""
    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return not several and {device.device_type for device in tf.config.list_logical_devices()} == {"CPU"}


class ResidentFeed:
    """All examples in the memory of every device, gathered there in the order of the epoch."""

    def __init__(self, arrays: Any, batches: Batches, order: Order) -> None:
        self.batches = batches
        self._order = order
        self._held = mapped(lambda each: tf.Variable(each, trainable=False), arrays)

    def begin(self, step: int) -> None:
        """Do nothing: the position is an argument of every call."""
        del step

    def ahead(self, epoch: tf.Tensor, position: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        """Return the indices of the examples, (examples,) int64."""
        return self._order(position + tf.range(examples, dtype=tf.int64), epoch)

    def take(self, iterator: Any, ahead: Any, step: tf.Tensor) -> Take:
        """Return the indices, and where among them the step begins."""
        del iterator
        return ahead, step * self.batches.batch

    def examples(self, taken: Take, share: Share) -> Any:
        """Gather this replica's share."""
        indices, begin = taken
        own = tf.slice(indices, [begin + share.start], [share.length])
        return mapped(lambda held: tf.gather(held, own), self._held)

    def release(self) -> None:
        """Empty the memory on every device: graphs hold on to it until Python collects cycles, which may take long."""
        for variable in leaves(self._held):
            for copy in tf.distribute.get_strategy().experimental_local_results(variable):
                tf.raw_ops.AssignVariableOp(resource=copy.handle, value=tf.zeros([0], copy.dtype))


class _IteratorFeed:
    """What comes through one iterator, which is where the run is."""

    def ahead(self, epoch: tf.Tensor, position: tf.Tensor, examples: tf.Tensor) -> None:
        """Do nothing: the iterator is where the run is."""
        del epoch, position, examples

    def take(self, iterator: Any, ahead: Any, step: tf.Tensor) -> Take:
        """Return what comes next: the examples of a step, or a share for each replica."""
        del ahead, step
        return (iterator.get_next(),)

    def release(self) -> None:
        """Do nothing: the iterator ends with whoever has it."""


class HostFeed(_IteratorFeed):
    """Whole steps through one tf.data iterator, for replicas that compute in the memory where it puts them.

    To move each share into the memory of its device, as `PipelineFeed` does, would cost more than a small step.
    """

    def __init__(self, steps_from: StepsFrom, batches: Batches) -> None:
        self.batches = batches
        self._steps_from = steps_from

    def begin(self, step: int) -> Any:
        """Start the pipeline at this step of the run."""
        return iter(self._steps_from(step))

    def examples(self, taken: Take, share: Share) -> Any:
        """Cut this replica's share out."""
        (examples,) = taken
        if self.batches.replicas == 1:
            return mapped(lambda each: _of_length(each, share.length), examples)
        return mapped(lambda each: _slice(each, share), examples)


class PipelineFeed(_IteratorFeed):
    """Shares through one tf.data iterator, in the order in which the replicas take them, epoch after epoch."""

    def __init__(self, shares_from: SharesFrom, batches: Batches) -> None:
        self.batches = batches
        self._shares_from = shares_from

    def begin(self, step: int) -> Any:
        """Start the pipeline at this step of the run, in each worker for its own replicas."""

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            held = self.batches.replicas // context.num_input_pipelines
            first = held * context.input_pipeline_id
            return self._shares_from(step, range(first, first + held))

        return iter(tf.distribute.get_strategy().distribute_datasets_from_function(of_worker))

    def examples(self, taken: Take, share: Share) -> Any:
        """Return the share that came, once its length is as it should be."""
        (examples,) = taken
        return mapped(lambda each: _of_length(each, share.length), examples)


def _of_length(examples: tf.Tensor, length: Any) -> tf.Tensor:
    """Return the examples when there are so many; a length that is a number is in their shape then."""
    if isinstance(length, tf.Tensor):
        tf.debugging.assert_equal(
            tf.shape(examples, tf.int64)[0],
            length,
            message="the pipeline gave a step of another number of examples than its steps have",
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

    # Without end, and known to be: a pipeline that may end is asked at every step whether it has.
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
    """Count forward to the step: a stream has no random access, so its beginning is read and passed over."""
    whole = stream.dataset if stream.batched else stream.dataset.batch(batches.batch)
    if stream.endless and stream.batched and not stream.batch:  # .batch(8).repeat(): one in an epoch may be smaller
        whole = whole.rebatch(batches.batch, drop_remainder=True)
    steps = _endless(whole.repeat().skip(step - stream.first))
    # A second prefetch would be a thread more for each step to pass through (the class is tensorflow 2.21's).
    return steps if "Prefetch" in type(stream.dataset).__name__ else steps.prefetch(2)


def _shares_of_stream(stream: Stream, batches: Batches, step: int, replicas: range) -> tf.data.Dataset:
    table = tf.constant(_table(batches)[:, replicas.start : replicas.stop], tf.int64)

    def shares(*parts: Any) -> tf.data.Dataset:
        examples = parts if isinstance(stream.dataset.element_spec, tuple) else parts[0]
        size = tf.shape(leaves(examples)[0], tf.int64)[0]
        rows = table[tf.cast(size < batches.batch, tf.int32)]
        return tf.data.Dataset.from_tensor_slices(rows).map(
            lambda row: mapped(lambda each: each[row[0] : row[0] + row[1]], examples)
        )

    return _endless(_steps_of_stream(stream, batches, step).flat_map(shares)).prefetch(2 * len(replicas))


def _endless(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Let a pipeline that has no end be known to have none: else every step asks whether it has ended."""
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _table(batches: Batches) -> np.ndarray:
    """Return starts and lengths of the shares of a full and of the last step, (2, replicas, 2)."""
    rows = [batches.shares(batches.batch), batches.shares(batches.last or batches.batch)]
    return np.array([[(share.start, share.length) for share in row] for row in rows])
