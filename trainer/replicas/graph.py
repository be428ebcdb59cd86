"""Steps in the graph: one call from Python trains or evaluates many, on all replicas."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.batches import Share
from trainer.data.feed import Feed
from trainer.replicas.keras_private import as_one_device
from trainer.replicas.own_logs import OwnLogs
from trainer.replicas.replica import Step, share_of_this_replica
from trainer.replicas.tracing import uncollected
from trainer.workers import exchange


class TrainGraph:
    """Training steps of a feed, from where the run stands."""

    def __init__(self, step: Step, feed: Feed) -> None:
        self._step, self._feed = step, feed
        self._strategy = tf.distribute.get_strategy()
        self._iterator: Any = None
        self._own_logs = OwnLogs()
        self.renew()

    def renew(self) -> None:
        """Trace the step anew when it runs next, since other layers train."""
        self._full = tf.function(self._train, reduce_retracing=True)
        self._last = tf.function(self._train_last, reduce_retracing=True)

    def begin(self, step: int) -> None:
        """Go on at this step of the run."""
        self._iterator = self._feed.begin(step)

    def run(self, epoch: int, first: int, count: int) -> np.ndarray:
        """Train `count` steps of the epoch from step `first`; return the loss of each, (count,) float32.

        The smaller last step of an epoch, where there is one, has shapes of its own and so a trace of its own.
        """
        full = min(count, self._feed.batches.full - first)
        losses = []
        with uncollected():
            if full > 0:
                losses.append(self._full(self._iterator, _int64(epoch), _int64(first), _int64(full)).numpy())
            if count > max(full, 0):
                losses.append(self._last(self._iterator, _int64(epoch)).numpy()[None])
        return np.concatenate(losses)

    def own_logs(self) -> dict[str, float]:
        """Return what the model's own `train_step` said of the last step, averaged over the examples."""
        return self._own_logs.read()

    def traces(self) -> int:
        """Return how often the step was traced: once, and once more for a smaller last step."""
        return self._full.experimental_get_tracing_count() + self._last.experimental_get_tracing_count()

    def _train(self, iterator: Any, epoch: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        batch = self._feed.batches.batch
        shares = self._feed.batches.shares(batch)
        losses = tf.TensorArray(tf.float32, size=tf.cast(count, tf.int32))
        ahead = self._feed.ahead(epoch, first * batch, count * batch)
        with as_one_device():
            for index in tf.range(count):
                loss = self._one(iterator, ahead, index, shares)
                losses = losses.write(tf.cast(index, tf.int32), loss)
        return exchange.summed(losses.stack())

    def _train_last(self, iterator: Any, epoch: tf.Tensor) -> tf.Tensor:
        batches = self._feed.batches
        ahead = self._feed.ahead(epoch, _int64(batches.full * batches.batch), _int64(batches.last))
        with as_one_device():
            loss = self._one(iterator, ahead, _int64(0), batches.shares(batches.last))
        return exchange.summed(loss)

    def _one(self, iterator: Any, ahead: Any, step: tf.Tensor, shares: list[Share]) -> tf.Tensor:
        taken = self._feed.take(iterator, ahead, step)

        def of_replica(*taken: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            share = share_of_this_replica(shares)
            return self._step.train(self._feed.examples(taken, share), shares)

        loss, logs = self._strategy.run(of_replica, taken)
        self._own_logs.keep(logs)
        return tf.add_n(self._strategy.experimental_local_results(loss))


class EvaluationGraph:
    """One pass over a feed, for its metrics."""

    def __init__(self, step: Step, feed: Feed) -> None:
        self._step, self._feed = step, feed
        self._strategy = tf.distribute.get_strategy()
        self._iterator: Any = None
        self._part = tf.function(self._evaluate, reduce_retracing=True)

    def run(self) -> None:
        """Evaluate every example once; the results are in the model's metrics."""
        self.part(0, self._feed.batches.steps)

    def part(self, first: int, count: int) -> None:
        """Evaluate `count` steps from step `first`; one pass is made of parts that follow each other."""
        if self._iterator is None:
            self._iterator = self._feed.begin(0)
        full = self._feed.batches.full
        with_last = first + count > full
        with uncollected():
            self._part(self._iterator, _int64(first), _int64(min(count, full - first)), with_last=with_last)

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return self._feed.batches.steps

    def _evaluate(self, iterator: Any, first: tf.Tensor, count: tf.Tensor, *, with_last: bool) -> None:
        batches = self._feed.batches
        examples = count * batches.batch + (batches.last if with_last else 0)
        ahead = self._feed.ahead(_int64(0), first * batches.batch, examples)
        with as_one_device():
            for index in tf.range(count):
                self._one(iterator, ahead, index, batches.shares(batches.batch))
            if with_last:
                self._one(iterator, ahead, count, batches.shares(batches.last))

    def _one(self, iterator: Any, ahead: Any, step: tf.Tensor, shares: list[Share]) -> None:
        taken = self._feed.take(iterator, ahead, step)

        def of_replica(*taken: Any) -> None:
            share = share_of_this_replica(shares)
            self._step.evaluate(self._feed.examples(taken, share), shares)

        self._strategy.run(of_replica, taken)


class PredictionGraph:
    """One pass over a feed, for what the model makes of it."""

    def __init__(self, step: Step, feed: Feed) -> None:
        self._step, self._feed = step, feed
        self._strategy = tf.distribute.get_strategy()
        self._full = tf.function(self._predict, reduce_retracing=True)
        self._last = tf.function(self._predict_last, reduce_retracing=True)

    def run(self) -> Any:
        """Return the outputs of all examples in their order, arrays of (size, ...) in the model's structure."""
        batches, iterator = self._feed.batches, self._feed.begin(0)
        parts = [self._full(iterator, _int64(step)) for step in range(batches.full)]
        parts += [self._last(iterator)] if batches.last else []
        return tf.nest.map_structure(lambda *each: np.concatenate([part.numpy() for part in each]), *parts)

    def _predict(self, iterator: Any, step: tf.Tensor) -> Any:
        batch = self._feed.batches.batch
        return self._one(iterator, step * batch, self._feed.batches.shares(batch))

    def _predict_last(self, iterator: Any) -> Any:
        batches = self._feed.batches
        return self._one(iterator, _int64(batches.full * batches.batch), batches.shares(batches.last))

    def _one(self, iterator: Any, position: tf.Tensor, shares: list[Share]) -> Any:
        examples = sum(share.length for share in shares if share.counts)
        ahead = self._feed.ahead(_int64(0), position, _int64(examples))
        taken = self._feed.take(iterator, ahead, _int64(0))

        def of_replica(*taken: Any) -> Any:
            return self._step.predict(self._feed.examples(taken, share_of_this_replica(shares)))

        outputs = self._strategy.run(of_replica, taken)
        return tf.nest.map_structure(lambda each: self._strategy.gather(each, axis=0)[:examples], outputs)


def _int64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)
