"""How examples reach the replicas: from memory on the devices, or through one tf.data iterator.

A feed is begun once for the whole run. `take` is called in the graph outside the replicas, once a step, and gives
the arguments of a step; `examples` is called with them on each replica and gives that replica's share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from trainer.config.data import Resident
from trainer.data.batches import Batches, Share
from trainer.data.order import shuffled
from trainer.data.source import Source, Stream

RESIDENT_BYTES = 1 << 30  # what a data set kept on the devices may take on each of them

Order = Callable[[tf.Tensor, Any], tf.Tensor]  # (positions, epoch) -> indices of examples
Take = tuple[Any, ...]
SharesFrom = Callable[[int, range], tf.data.Dataset]  # (step of the run, replicas) -> their shares in turn, without end


class Feed(Protocol):
    """Where a step's examples come from."""

    batches: Batches

    def begin(self, step: int) -> Any:
        """Return the iterator that goes on at this step of the run; None where the position alone decides."""

    def take(self, iterator: Any, epoch: tf.Tensor, step: tf.Tensor) -> Take:
        """Return the arguments of one step: `epoch` and `step` within it are int64 scalars."""

    def examples(self, taken: Take, share: Share) -> Any:
        """Return a replica's share, (x, y) or (x, y, weight), of static length; called on the replica."""


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
        return PipelineFeed(functools.partial(_shares_of_stream, source, batches), batches)
    arrays = None if resident is Resident.NEVER else source.arrays()
    if arrays is not None:
        held = sum(array.nbytes for array in tf.nest.flatten(arrays))
        if resident is Resident.ALWAYS or held <= RESIDENT_BYTES:
            return ResidentFeed(arrays, batches, order)
    return PipelineFeed(functools.partial(_shares_of_source, source, batches, order), batches)


class ResidentFeed:
    """All examples in the memory of every device, gathered there in the order of the epoch."""

    def __init__(self, arrays: Any, batches: Batches, order: Order) -> None:
        self.batches = batches
        self._order = order
        self._held = tf.nest.map_structure(lambda each: tf.Variable(each, trainable=False), arrays)

    def begin(self, step: int) -> None:
        """Do nothing: the position is an argument of every step."""
        del step

    def take(self, iterator: Any, epoch: tf.Tensor, step: tf.Tensor) -> Take:
        """Return the epoch, and the position in it of the step's first example."""
        del iterator
        return epoch, step * self.batches.batch

    def examples(self, taken: Take, share: Share) -> Any:
        """Gather this replica's share."""
        epoch, position = taken
        positions = position + share.start + tf.range(share.length, dtype=tf.int64)
        indices = self._order(positions, epoch)
        return tf.nest.map_structure(lambda held: tf.gather(held, indices), self._held)


class PipelineFeed:
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

    def take(self, iterator: Any, epoch: tf.Tensor, step: tf.Tensor) -> Take:
        """Return the next share for each replica."""
        del epoch, step
        return (next(iterator),)

    def examples(self, taken: Take, share: Share) -> Any:
        """Return the share that came, its length made static."""
        (examples,) = taken
        return tf.nest.map_structure(lambda each: tf.ensure_shape(each, [share.length, *each.shape[1:]]), examples)


def _shares_of_source(source: Source, batches: Batches, order: Order, step: int, replicas: range) -> tf.data.Dataset:
    table = tf.constant(_table(batches), tf.int64)
    held = len(replicas)

    def load(number: tf.Tensor) -> Any:
        step, replica = number // held, replicas.start + number % held
        epoch, within = step // batches.steps, step % batches.steps
        share = table[tf.cast(within >= batches.full, tf.int32), tf.cast(replica, tf.int32)]
        positions = within * batches.batch + share[0] + tf.range(share[1], dtype=tf.int64)
        return source.load(order(positions, epoch))

    # Without end, and known to be: a pipeline that may end is asked at every step whether it has.
    numbers = tf.data.Dataset.counter(step * held)
    return numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2 * held)


def _shares_of_stream(stream: Stream, batches: Batches, step: int, replicas: range) -> tf.data.Dataset:
    """Count forward to the step: a stream has no random access, so its beginning is read and passed over."""
    table = tf.constant(_table(batches)[:, replicas.start : replicas.stop], tf.int64)
    whole = stream.dataset if stream.batched else stream.dataset.batch(batches.batch)
    steps = whole.repeat().skip(step)

    def shares(*examples: Any) -> tf.data.Dataset:
        size = tf.shape(tf.nest.flatten(examples)[0], tf.int64)[0]
        rows = table[tf.cast(size < batches.batch, tf.int32)]
        return tf.data.Dataset.from_tensor_slices(rows).map(
            lambda row: tf.nest.map_structure(lambda each: each[row[0] : row[0] + row[1]], examples)
        )

    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return steps.flat_map(shares).apply(endless).prefetch(2 * len(replicas))


def _table(batches: Batches) -> np.ndarray:
    """Return starts and lengths of the shares of a full and of the last step, (2, replicas, 2)."""
    rows = [batches.shares(batches.batch), batches.shares(batches.last or batches.batch)]
    return np.array([[(share.start, share.length) for share in row] for row in rows])
