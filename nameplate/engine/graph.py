"""Steps in the graph: one call from Python trains or evaluates many, on all replicas.

The graph is made without AutoGraph, as Keras makes its own: a model's Python runs as it is written, and a process does
not spend its first second on rewriting functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.batches import Batches, Share
from nameplate.data.feeds import Feed
from nameplate.engine import exchange
from nameplate.engine.gather import OwnLogs, Value, gathered
from nameplate.engine.private.compiled import as_logged, metric_values
from nameplate.engine.private.one_device import as_one_device
from nameplate.engine.private.tracing import graph_of
from nameplate.engine.replica import Logs, Step, share_of_this_replica
from nameplate.engine.scalars import UnknownScalarsError
from nameplate.engine.step_ranges import shares_at, stretches
from nameplate.engine.whole_batch import Result, over_the_step
from nameplate.graph.global_state import collector_paused


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
        self._steps = graph_of(self._train)

    def begin(self, step: int) -> None:
        """Go on at this step of the run."""
        self._iterator = self._feed.begin(step)

    def run(self, epoch: int, first: int, count: int) -> np.ndarray:
        """Train `count` steps of the epoch from step `first`; return the loss of each, (count,) float32."""
        losses = []
        with collector_paused():
            for each in stretches(self._feed.batches, first, count, apart=self._step.xla):
                numbers = _int64(epoch), _int64(each.first), _int64(each.count)
                losses.append(self._run(*numbers, last=each.last).numpy())
        return np.concatenate(losses)

    def _run(self, *numbers: tf.Tensor, last: bool | None) -> tf.Tensor:
        try:
            return self._steps(self._iterator, *numbers, last=last)
        except UnknownScalarsError as unknown:
            self._step.try_out(unknown.examples, training=True)
        self.renew()
        return self._steps(self._iterator, *numbers, last=last)

    def own_logs(self) -> dict[str, Value]:
        """Return what the model's own methods said of the last step, over the examples of all replicas."""
        return self._own_logs.read() | _read(self._step.results[True])

    def traces(self) -> int:
        """Return how often the step was traced: once, and once more for a smaller last step that needs its own."""
        return self._steps.experimental_get_tracing_count()

    def release(self) -> None:
        """Let go of the data, which a graph keeps until Python collects cycles; nothing can be run afterwards."""
        self._iterator = None
        self._feed.release()

    def _train(
        self, iterator: Any, epoch: tf.Tensor, first: tf.Tensor, count: tf.Tensor, *, last: bool | None
    ) -> tf.Tensor:
        batches = self._feed.batches
        ahead = self._feed.ahead(epoch, first * batches.batch, _examples(batches, first, count))

        def one(index: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            loss = self._one(iterator, ahead, index, shares_at(batches, first + index, last=last))
            return index + 1, losses.write(tf.cast(index, tf.int32), loss)

        losses = tf.TensorArray(tf.float32, size=tf.cast(count, tf.int32), element_shape=())
        with as_one_device(), over_the_step(self._step.model):
            _, losses = tf.while_loop(lambda index, _: index < count, one, (_int64(0), losses))
        return exchange.summed(losses.stack())

    def _one(self, iterator: Any, ahead: Any, index: tf.Tensor, shares: list[Share]) -> tf.Tensor:
        taken = self._feed.take(iterator, ahead, index)

        def of_replica(*taken: Any) -> tuple[tf.Tensor, Logs]:
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
        self._own_logs = OwnLogs()
        self._steps = graph_of(self._evaluate)

    def run(self) -> None:
        """Evaluate every example once; the results are in the model's metrics."""
        self.part(0, self._feed.batches.steps)

    def part(self, first: int, count: int) -> None:
        """Evaluate `count` steps from step `first`; one pass is made of parts that follow each other."""
        if self._iterator is None:
            self._iterator = self._feed.begin(0)
        with collector_paused():
            for each in stretches(self._feed.batches, first, count):
                self._run(_int64(each.first), _int64(each.count), last=each.last)

    def measured(self) -> dict[str, Value]:
        """Return what was measured, as Keras does: what the model's own methods told last, or else its metrics."""
        return told_or(metric_values(self._step.model), self._own_logs.read() | _read(self._step.results[False]))

    def _run(self, *numbers: tf.Tensor, last: bool | None) -> None:
        try:
            self._steps(self._iterator, *numbers, last=last)
        except UnknownScalarsError as unknown:
            self._step.try_out(unknown.examples, training=False)
        else:
            return
        self._steps = graph_of(self._evaluate)
        self._steps(self._iterator, *numbers, last=last)

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return self._feed.batches.steps

    def release(self) -> None:
        """Let go of the data, which a graph keeps until Python collects cycles; nothing can be run afterwards."""
        self._iterator = None
        self._feed.release()

    def _evaluate(self, iterator: Any, first: tf.Tensor, count: tf.Tensor, *, last: bool | None) -> None:
        batches = self._feed.batches
        ahead = self._feed.ahead(_int64(0), first * batches.batch, _examples(batches, first, count))

        def one(index: tf.Tensor) -> tuple[tf.Tensor]:
            self._one(iterator, ahead, index, shares_at(batches, first + index, last=last))
            return (index + 1,)

        with as_one_device(), over_the_step(self._step.model):
            tf.while_loop(lambda index: index < count, one, (_int64(0),))

    def _one(self, iterator: Any, ahead: Any, index: tf.Tensor, shares: list[Share]) -> None:
        taken = self._feed.take(iterator, ahead, index)

        def of_replica(*taken: Any) -> Logs:
            share = share_of_this_replica(shares)
            return self._step.evaluate(self._feed.examples(taken, share), shares)

        self._own_logs.keep(self._strategy.run(of_replica, taken))


class PredictionGraph:
    """One pass over a feed, for what the model makes of it."""

    def __init__(self, step: Step, feed: Feed) -> None:
        self._step, self._feed = step, feed
        self._strategy = tf.distribute.get_strategy()
        self._steps = graph_of(self._predict)

    def run(self, callbacks: keras.callbacks.CallbackList) -> Any:
        """Return the outputs of all examples in their order, arrays of (size, ...) in the model's structure."""
        outputs, model = [], self._step.model
        model.stop_predicting = False
        try:
            for step, output in enumerate(self._each_step(callbacks)):
                outputs.append(output)
                callbacks.on_predict_batch_end(step, {"outputs": output})
                if model.stop_predicting:
                    break
        finally:
            self._feed.release()
        return tf.nest.map_structure(lambda *each: np.concatenate([output.numpy() for output in each]), *outputs)

    def _each_step(self, callbacks: keras.callbacks.CallbackList) -> Iterator[Any]:
        batches, iterator = self._feed.batches, self._feed.begin(0)
        for stretch in stretches(batches, 0, batches.steps):
            for step in range(stretch.first, stretch.first + stretch.count):
                callbacks.on_predict_batch_begin(step)
                yield self._steps(iterator, _int64(step), last=stretch.last)

    def _predict(self, iterator: Any, step: tf.Tensor, *, last: bool | None) -> Any:
        batches = self._feed.batches
        shares = shares_at(batches, step, last=last)
        examples = _examples(batches, step, 1)
        taken = self._feed.take(iterator, self._feed.ahead(_int64(0), step * batches.batch, examples), _int64(0))

        def of_replica(*taken: Any) -> Any:
            return self._step.predict(self._feed.examples(taken, share_of_this_replica(shares)))

        outputs = self._strategy.run(of_replica, taken)
        return tf.nest.map_structure(lambda each: self._once(each, shares[0].copies), outputs)

    def _once(self, output: Any, copies: int) -> tf.Tensor:
        """Return the rows of all replicas, or of one where each has the same; a model may give several an example."""
        rows = gathered(output)
        return rows if copies == 1 else rows[: tf.shape(rows)[0] // copies]


def told_or(measured: dict[str, Value], own: dict[str, Value]) -> dict[str, Value]:
    """Return what a model's own methods tell, as Keras: it counts, unless it is the metrics."""
    return own if own and own.keys() != measured.keys() else measured


def _read(results: Mapping[str, Result]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, (metric, key) in results.items():
        result = metric.result()
        found[name] = as_logged(result if key is None else result[key])
    return found


def _examples(batches: Batches, first: tf.Tensor, count: Any) -> tf.Tensor:
    """Return how many examples `count` steps of an epoch have, from step `first` on."""
    return tf.minimum((first + count) * batches.batch, batches.size) - first * batches.batch


def _int64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)
