"""Steps in the graph: one call from Python trains, evaluates or predicts many, on all replicas.

The graph is made without AutoGraph, as Keras makes its own: a model's Python runs as it is written, and a process does
not spend its first second on rewriting functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.batches import Batches, Share
from nameplate.data.feeds import Feed
from nameplate.engine import host_collectives
from nameplate.engine.graph_cache import Graph
from nameplate.engine.one_device import as_one_device
from nameplate.engine.replica import Logs, Step, share_of_this_replica
from nameplate.engine.step_ranges import shares_at, step_ranges
from nameplate.engine.whole_batch import Result, over_whole_steps
from nameplate.errors import NameplateError
from nameplate.graph.global_state import collector_paused

Value = float | np.ndarray  # of a metric: an array if it gives several numbers


class TrainGraph(Graph):
    """Training steps of a feed, from where the run stands."""

    training = True

    def __init__(self, step: Step, feed: Feed) -> None:
        super().__init__(step, feed)
        self._logs = StepLogs()

    def retrace(self) -> None:
        """Trace the step again when it runs next, since other layers train."""
        self.signature = None
        self.trace_again()

    def begin(self, step: int) -> None:
        """Continue at this step of the run."""
        self._iterator = self._feed.begin(step)

    def run(self, epoch: int, first: int, count: int) -> np.ndarray:
        """Train `count` steps of the epoch from step `first`; return the loss of each, (count,) float32."""
        losses = []
        with collector_paused():
            for steps in step_ranges(self._feed.batches, first, count, by_shape=self._step.xla):
                numbers = _int64(epoch), _int64(steps.first), _int64(steps.count)
                losses.append(self._call(self._iterator, *numbers, last=steps.last).numpy())
        return np.concatenate(losses)

    def logs(self) -> dict[str, Value]:
        """Return what the model's own methods logged in the last step, over the examples of all replicas."""
        return self._logs.read() | results_of(self._step.results[True])

    def traces(self) -> int:
        """Return how often the step was traced: once, and once more for a smaller last step that needs its own."""
        return self._graph.experimental_get_tracing_count()

    def _steps(
        self, iterator: Any, epoch: tf.Tensor, first: tf.Tensor, count: tf.Tensor, *, last: bool | None
    ) -> tf.Tensor:
        batches = self._feed.batches
        ahead = self._feed.ahead(epoch, first * batches.batch, _examples(batches, first, count))

        def one(index: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            loss = self._one(iterator, ahead, index, shares_at(batches, first + index, last=last))
            return index + 1, losses.write(tf.cast(index, tf.int32), loss)

        losses = tf.TensorArray(tf.float32, size=tf.cast(count, tf.int32), element_shape=())
        with as_one_device(), over_whole_steps(self._step.model):
            _, losses = tf.while_loop(lambda index, _: index < count, one, (_int64(0), losses))
        return host_collectives.sum_over_workers(losses.stack())

    def _one(self, iterator: Any, ahead: Any, index: tf.Tensor, shares: list[Share]) -> tf.Tensor:
        taken = self._feed.take(iterator, ahead, index)

        def of_replica(*taken: Any) -> tuple[tf.Tensor, Logs]:
            share = share_of_this_replica(shares)
            return self._step.train(self._feed.examples(taken, share), shares)

        loss, logs = self._strategy.run(of_replica, taken)
        self._logs.keep(logs)
        return tf.add_n(self._strategy.experimental_local_results(loss))  # parts of the step's loss


class EvaluationGraph(Graph):
    """One pass over a feed, for its metrics."""

    def __init__(self, step: Step, feed: Feed) -> None:
        super().__init__(step, feed)
        self._logs = StepLogs()

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return self._feed.batches.steps

    def run(self) -> None:
        """Evaluate every example once; the results are in the model's metrics."""
        self.run_steps(0, self.steps)

    def run_steps(self, first: int, count: int) -> None:
        """Evaluate `count` steps from step `first`; the calls of one pass must follow each other."""
        if self._iterator is None:
            self._iterator = self._feed.begin(0)
        with collector_paused():
            for steps in step_ranges(self._feed.batches, first, count):
                self._call(self._iterator, _int64(steps.first), _int64(steps.count), last=steps.last)

    def measured(self) -> dict[str, Value]:
        """Return what was measured, as Keras does: the logs of the model's own methods, or else its metrics."""
        logs = self._logs.read() | results_of(self._step.results[False])
        return logs_or_metrics(metric_values(self._step.model), logs)

    def _steps(self, iterator: Any, first: tf.Tensor, count: tf.Tensor, *, last: bool | None) -> None:
        batches = self._feed.batches
        ahead = self._feed.ahead(_int64(0), first * batches.batch, _examples(batches, first, count))

        def one(index: tf.Tensor) -> tuple[tf.Tensor]:
            self._one(iterator, ahead, index, shares_at(batches, first + index, last=last))
            return (index + 1,)

        with as_one_device(), over_whole_steps(self._step.model):
            tf.while_loop(lambda index: index < count, one, (_int64(0),))

    def _one(self, iterator: Any, ahead: Any, index: tf.Tensor, shares: list[Share]) -> None:
        taken = self._feed.take(iterator, ahead, index)

        def of_replica(*taken: Any) -> Logs:
            share = share_of_this_replica(shares)
            return self._step.evaluate(self._feed.examples(taken, share), shares)

        self._logs.keep(self._strategy.run(of_replica, taken))


class PredictionGraph(Graph):
    """One pass over a feed, for the model's outputs."""

    def run(self, callbacks: keras.callbacks.CallbackList, advanced: Callable[[int], None] | None = None) -> Any:
        """Return the outputs of all examples in their order, arrays of (size, ...) in the model's structure.

        `advanced` gets the number of steps done after each call.
        """
        outputs, model = [], self._step.model
        model.stop_predicting = False
        try:
            for step, output in self._outputs(callbacks):
                outputs.append(output)
                callbacks.on_predict_batch_end(step, {"outputs": output})
                if advanced:
                    advanced(min(step + 1, self._feed.batches.steps))
                if model.stop_predicting:
                    break
        finally:
            self.release()
        return tf.nest.map_structure(lambda *leaves: np.concatenate([leaf.numpy() for leaf in leaves]), *outputs)

    def _outputs(self, callbacks: keras.callbacks.CallbackList) -> Iterator[tuple[int, Any]]:
        """Yield the outputs of as many steps as the model takes in one call, with the index of the last."""
        iterator, per_call = self._feed.begin(0), self._step.model.steps_per_execution
        single = self._single_outputs(iterator)
        for first in range(0, self._feed.batches.steps, per_call):
            callbacks.on_predict_batch_begin(first)
            outputs = list(itertools.islice(single, per_call))
            joined = outputs[0]
            if len(outputs) > 1:
                joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)
            yield first + per_call - 1, joined

    def _single_outputs(self, iterator: Any) -> Iterator[Any]:
        batches = self._feed.batches
        for steps in step_ranges(batches, 0, batches.steps):
            for step in range(steps.first, steps.first + steps.count):
                yield self._call(iterator, _int64(step), last=steps.last)

    def _steps(self, iterator: Any, step: tf.Tensor, *, last: bool | None) -> Any:
        batches = self._feed.batches
        shares = shares_at(batches, step, last=last)
        examples = _examples(batches, step, 1)
        taken = self._feed.take(iterator, self._feed.ahead(_int64(0), step * batches.batch, examples), _int64(0))

        def of_replica(*taken: Any) -> Any:
            return self._step.predict(self._feed.examples(taken, share_of_this_replica(shares)))

        outputs = self._strategy.run(of_replica, taken)
        return tf.nest.map_structure(lambda output: _counted_once(output, shares[0].copies), outputs)


def _counted_once(output: Any, copies: int) -> tf.Tensor:
    """Return the rows of all replicas, or of one if all have the same; a model may give several rows an example."""
    rows = gathered(output)
    return rows if copies == 1 else rows[: tf.shape(rows)[0] // copies]


def logs_or_metrics(metrics: dict[str, Value], logs: dict[str, Value]) -> dict[str, Value]:
    """Return the logs of a model's own methods, as Keras does, unless there are none or they are just the metrics."""
    return logs if logs and logs.keys() != metrics.keys() else metrics


class StepLogs:
    """What a model's own methods logged in the last step. Make it outside of a graph."""

    def __init__(self) -> None:
        self._ranks: dict[str, int] = {}
        # One vector, since how many there are is known only when the step is traced, too late to make variables.
        self._values = tf.Variable(tf.zeros([0]), shape=[None], trainable=False)
        self._shapes = tf.Variable(tf.zeros([0], tf.int32), shape=[None], trainable=False)

    def keep(self, logs: dict[str, Any]) -> None:
        """Store the replicas' parts of each value, which add up over all of them; in a graph."""
        if not logs:
            return
        local = tf.distribute.get_strategy().experimental_local_results
        values = {name: tf.add_n(local(value)) for name, value in logs.items()}
        self._ranks = {name: len(value.shape) for name, value in values.items()}
        self._values.assign(tf.concat([tf.reshape(value, [-1]) for value in values.values()], 0))
        self._shapes.assign(tf.concat([tf.shape(value) for value in values.values()], 0))

    def read(self) -> dict[str, Value]:
        """Return the values by name; all workers must call this together."""
        if not self._ranks:
            return {}
        values, shapes = host_collectives.gather_numbers(self._values.numpy()).sum(0), list(self._shapes.numpy())
        logs: dict[str, Value] = {}
        for name, rank in self._ranks.items():
            shape, shapes = shapes[:rank], shapes[rank:]
            size = int(np.prod(shape)) if rank else 1
            logs[name] = values[:size].reshape(shape).astype(np.float32) if rank else float(values[0])
            values = values[size:]
        return logs


def results_of(results: Mapping[str, Result]) -> dict[str, Value]:
    """Return the values of metrics' results that a step has returned, by the names that it gave them."""
    values: dict[str, Value] = {}
    for name, (metric, key) in results.items():
        result = metric.result()
        values[name] = as_logged(result if key is None else result[key])
    return values


# The collectives between workers carry these; other dtypes travel as one of them that holds all their values.
_CARRIED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)
_SMALL = (tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16)
_WIDER = {tf.bfloat16: tf.float32, tf.uint32: tf.int64, **dict.fromkeys(_SMALL, tf.int32)}


def gathered(value: Any) -> tf.Tensor:
    """Return the rows of all replicas, (all of them, ...), from a replica's tensor (rows, ...); between replicas.

    Raises:
        NameplateError: the tensor has no rows, or is of a kind that does not travel between workers.
    """
    strategy = tf.distribute.get_strategy()
    own = strategy.experimental_local_results(value)
    if not own[0].shape.rank:
        raise NameplateError(
            f"the model gives a single number, of shape {own[0].shape}, for a batch; predictions have a row an example"
        )
    if host_collectives.several_workers():
        return _gathered_between_workers(strategy, value, own[0].dtype)
    with tf.device("CPU:0"):  # where it is read, and where tensors of every dtype can be concatenated
        return tf.concat(own, 0) if len(own) > 1 else own[0]


def _gathered_between_workers(strategy: tf.distribute.Strategy, value: Any, dtype: tf.DType) -> tf.Tensor:
    carried = dtype if dtype in _CARRIED else _WIDER.get(dtype)
    if carried is None:
        known = ", ".join(sorted(each.name for each in (*_CARRIED, *_WIDER)))
        raise NameplateError(
            f"predictions of {dtype.name} cannot be gathered from several workers, which exchange {known}; "
            "give one of these, or predict in one process"
        )
    own = strategy.experimental_local_results(value)
    first = host_collectives.first_local_replica()
    wide = strategy.experimental_distribute_values_from_function(
        lambda context: tf.cast(own[context.replica_id_in_sync_group - first], carried)
    )
    return tf.cast(strategy.gather(wide, axis=0), dtype)


def _examples(batches: Batches, first: tf.Tensor, count: Any) -> tf.Tensor:
    """Return how many examples `count` steps of an epoch have, from step `first` on."""
    return tf.minimum((first + count) * batches.batch, batches.size) - first * batches.batch


def _int64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def metric_values(model: keras.Model) -> dict[str, float | np.ndarray]:
    """Return the model's metrics by name, as Keras logs them: an array for one that gives several numbers."""
    return {name: as_logged(value) for name, value in model.get_metrics_result().items()}


def as_logged(value: Any) -> float | np.ndarray:
    """Return a metric's result as a number, or as an array if it is several."""
    if tf.is_tensor(value) or isinstance(value, keras.Variable):
        value = tf.convert_to_tensor(value)
        value = tf.cast(value, tf.float32) if value.dtype.size < 4 else value  # NumPy has no bfloat16
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array
