"""Single steps on batches that Python has, of any form and size, for a loop that Keras runs batch by batch.

The steps are those of the graphs in `graph`: each replica takes its share of a batch, in shares that differ by one. A
batch that cannot be divided goes to every replica whole, and counts once. A model that is to run eagerly takes its
steps on one device, and each replica gets the result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight as unpack

from nameplate.data.batches import Share
from nameplate.data.errors import ByBatchError
from nameplate.data.source import leaves, mapped
from nameplate.engine import private, private_loop
from nameplate.engine.graph import (
    StepLogs,
    Value,
    as_logged,
    logs_or_metrics,
    metric_values,
    results_of,
)
from nameplate.engine.graph_cache import graph_of
from nameplate.engine.host_collectives import several_workers
from nameplate.engine.local_updates import updating_locally
from nameplate.engine.one_device import as_one_device
from nameplate.engine.optimizer_state import initialize_averages
from nameplate.engine.reductions import UntriedStepError
from nameplate.engine.replica import Step, flat_logs, share_of_this_replica
from nameplate.engine.whole_batch import over_whole_steps
from nameplate.errors import NameplateError
from nameplate.graph.global_state import collector_paused


@contextmanager
def stepping_by_batch(model: keras.Model) -> Iterator[None]:
    """Inside, Keras' own loops take the model's steps on all replicas of its strategy, with the results of one device.

    Call it in the scope of the model's strategy. Without a strategy Keras' own step is the one on one device.
    """
    if not tf.distribute.has_strategy():
        yield
        return
    if several_workers():
        raise NameplateError(
            "several workers train from data whose order is a function of the position: arrays, a source, or a "
            "tf.data.Dataset of even batches, in a graph; not from a generator, and not with run_eagerly=True"
        )
    kind = EagerSteps if runs_eagerly(model) else BatchSteps
    with private.patched([private.averages_to_weights()]), private_loop.loop_functions(model, kind(model)):
        yield


def runs_eagerly(model: keras.Model) -> bool:
    """Say whether a model's steps are to run as Python, without a graph."""
    return bool(tf.config.functions_run_eagerly() or model.run_eagerly)


def refuse_eager(model: keras.Model) -> None:
    """Raise `ByBatchError` for a model that is to run eagerly."""
    if runs_eagerly(model):
        setting = "tf.config.run_functions_eagerly(True)" if tf.config.functions_run_eagerly() else "run_eagerly=True"
        raise ByBatchError(f"{setting}: leave it out to train in a graph")


class _Steps:
    """What Keras' loops call: with the iterator of an epoch, or with the batches of a prediction."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._built = False

    def train(self, iterator: Iterator[Any]) -> dict[str, Value]:
        """Train on as many batches as the model takes in one call; return its logs."""
        return self._each(iterator, self._train)

    def test(self, iterator: Iterator[Any]) -> dict[str, Value]:
        """Evaluate as many batches as the model takes in one call; return the logs."""
        return self._each(iterator, self._test)

    def predict(self, batches: list[Any]) -> Any:
        """Return the outputs for the batches."""
        return _joined([self._predict(_without_optionals(batch)) for batch in batches])

    def _each(self, iterator: Iterator[Any], step: Callable[[Any], dict[str, Value]]) -> dict[str, Value]:
        logs = None
        for _ in range(self._model.steps_per_execution):
            try:
                batch = _without_optionals(next(iterator))
            except StopIteration:
                break
            self._build(batch)
            logs = step(batch)
        if logs is None:
            raise StopIteration
        return logs

    def _build(self, batch: Any) -> None:
        """Create the variables of the model, its losses, metrics and optimizer, before a step is traced."""
        if self._built:
            return
        private.build_compiled(self._model, unpack(mapped(private_loop.symbolic, batch)))
        optimizer = self._model.optimizer
        if optimizer is not None and not optimizer.built and self._model.trainable_variables:
            optimizer.build(self._model.trainable_variables)
            initialize_averages(optimizer)
        self._built = True

    def _train(self, batch: Any) -> dict[str, Value]:
        raise NotImplementedError

    def _test(self, batch: Any) -> dict[str, Value]:
        raise NotImplementedError

    def _predict(self, batch: Any) -> Any:
        raise NotImplementedError


class BatchSteps(_Steps):
    """Steps in a graph, which is traced once for batches of all sizes."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._step = Step(model, xla=bool(model.jit_compile))
        self._strategy = tf.distribute.get_strategy()
        self._replicas = self._strategy.num_replicas_in_sync
        self._logs = {True: StepLogs(), False: StepLogs()}
        self._retrace()

    def _retrace(self) -> None:
        self._training, self._testing, self._predicting = map(
            graph_of, (self._train_replicas, self._test_replicas, self._predict_replicas)
        )

    def _train(self, batch: Any) -> dict[str, Value]:
        self._run(lambda: self._training, batch, training=True)
        return self._measured(training=True)

    def _test(self, batch: Any) -> dict[str, Value]:
        self._run(lambda: self._testing, batch, training=False)
        return self._measured(training=False)

    def _predict(self, batch: Any) -> Any:
        if not self._model.built:
            self._step.predict(mapped(private_loop.symbolic, batch))
        size = _rows(batch)
        with collector_paused():
            return self._predicting(batch, _int64(size), whole=self._whole(size))

    def _run(self, graph: Callable[[], Any], batch: Any, *, training: bool) -> None:
        size = _rows(batch)
        arguments: dict[str, Any] = {"whole": self._whole(size)}
        with collector_paused():
            try:
                graph()(batch, _int64(size), **arguments)
            except UntriedStepError as untried:
                self._step.try_out(untried.examples, training=training)
            else:
                return
            self._retrace()
            graph()(batch, _int64(size), **arguments)

    def _whole(self, size: int | None) -> int | None:
        """Return the size of a batch that goes to every replica whole; None of one that is divided."""
        return None if size is not None and size >= self._replicas else size or 1

    def _measured(self, *, training: bool) -> dict[str, Value]:
        logs = self._logs[training].read() | results_of(self._step.results[training])
        return logs_or_metrics(metric_values(self._model), logs)

    def _train_replicas(self, batch: Any, size: tf.Tensor, *, whole: int | None) -> None:
        shares = self._shares(size, whole)

        def of_replica() -> Any:
            return self._step.train(self._share(batch, shares, whole), shares)

        with as_one_device(), over_whole_steps(self._model):
            _, logs = self._strategy.run(of_replica)
        self._logs[True].keep(logs)

    def _test_replicas(self, batch: Any, size: tf.Tensor, *, whole: int | None) -> None:
        shares = self._shares(size, whole)

        def of_replica() -> Any:
            return self._step.evaluate(self._share(batch, shares, whole), shares)

        with as_one_device(), over_whole_steps(self._model):
            self._logs[False].keep(self._strategy.run(of_replica))

    def _predict_replicas(self, batch: Any, size: tf.Tensor, *, whole: int | None) -> Any:
        shares = self._shares(size, whole)

        def of_replica() -> Any:
            return self._step.predict(self._share(batch, shares, whole))

        outputs = self._strategy.run(of_replica)
        with tf.device("CPU:0"):
            return tf.nest.map_structure(lambda output: self._gathered(output, once=bool(whole)), outputs)

    def _gathered(self, output: Any, *, once: bool) -> Any:
        """Return the rows of all replicas, or of one if each has the whole batch."""
        own = list(self._strategy.experimental_local_results(output))
        return own[0] if once or len(own) == 1 else private_loop.concatenated(own)

    def _shares(self, size: tf.Tensor, whole: int | None) -> list[Share]:
        """Return the replicas' shares of a batch, as `Batches.shares` would for a number."""
        count = self._replicas
        if count == 1:
            return [Share(0, size, 1.0, step=size)]
        if whole:
            return [Share(0, whole, 1 / count, count, counts=number == 0, step=whole) for number in range(count)]
        least, more = size // count, size % count
        lengths = [least + tf.cast(number < more, tf.int64) for number in range(count)]
        return [
            Share(number * least + tf.minimum(_int64(number), more), length, _part(length, size), step=size)
            for number, length in enumerate(lengths)
        ]

    def _share(self, batch: Any, shares: list[Share], whole: int | None) -> Any:
        if whole or self._replicas == 1:
            return batch
        share = share_of_this_replica(shares)
        with tf.device("CPU:0"):  # where the batch is: only its own rows go to a replica's device
            return mapped(lambda leaf: _slice(leaf, share), batch)


class EagerSteps(_Steps):
    """Steps as Python, on one device: an operation outside of a replica changes a variable on all of them."""

    def _train(self, batch: Any) -> dict[str, Value]:
        return self._logged(lambda: self._model.train_step(batch))

    def _test(self, batch: Any) -> dict[str, Value]:
        return self._logged(lambda: self._model.test_step(batch))

    def _predict(self, batch: Any) -> Any:
        return _on_one_device(lambda: self._model.predict_step(batch))

    def _logged(self, step: Callable[[], Any]) -> dict[str, Value]:
        return {name: as_logged(value) for name, value in flat_logs(_on_one_device(step))}


def _on_one_device(step: Callable[[], Any]) -> Any:
    """Return what a step returns in no strategy's scope: a new thread is in none."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def in_thread() -> None:
        try:
            with updating_locally():
                results.append(step())
        except BaseException as error:  # a user's step may raise anything, and it is raised again
            errors.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _joined(outputs: list[Any]) -> Any:
    """Return the outputs of several batches in one."""
    if len(outputs) == 1:
        return outputs[0]
    return tf.nest.map_structure(lambda *batches: private_loop.concatenated(list(batches)), *outputs)


def _without_optionals(batch: Any) -> Any:
    """Return a batch with None where `tf.data` has an optional value in the place of None."""
    return keras.tree.map_structure(
        lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, batch, none_is_leaf=False
    )


def _rows(batch: Any) -> int | None:
    """Return the number of examples of a batch; None if its parts do not agree on one."""
    sizes = [leaf.shape[0] if leaf.shape.rank else None for leaf in leaves(batch)]
    return sizes[0] if sizes and all(size == sizes[0] for size in sizes) else None


def _slice(leaf: Any, share: Share) -> Any:
    if isinstance(leaf, tf.SparseTensor):
        rest = leaf.shape.rank - 1
        start = tf.stack([share.start, *[tf.zeros((), tf.int64)] * rest])
        return tf.sparse.slice(leaf, start, tf.concat([[share.length], leaf.dense_shape[1:]], 0))
    return leaf[share.start : share.start + share.length]


def _part(length: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.cast(length, tf.float64) / tf.cast(size, tf.float64)


def _int64(value: int | None) -> tf.Tensor:
    return tf.constant(value or 0, tf.int64)
