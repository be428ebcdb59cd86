"""Batch by batch: what the loop in the graph does not take is trained, evaluated and predicted by Keras' own loop.

That is a model that is to run eagerly, and data of which only Python knows the next batch, or whose batches differ in
size: generators, `keras.utils.PyDataset`, a `DataLoader`, ragged arrays. Each step is one device's, on any number of
replicas (`engine/batch_step.py`). It takes a call from Python for every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import keras

from nameplate.arguments import kind_of, shown
from nameplate.data.adapters import BATCH, as_source, batch_for, batches_of
from nameplate.data.batches import Batches, Epochs
from nameplate.data.errors import ByBatchError, DataError
from nameplate.data.feeds import BySeed, in_file_order
from nameplate.data.ordered_batches import OrderedBatches
from nameplate.data.source import Source, Stream
from nameplate.engine import private_loop
from nameplate.engine.batch_step import stepping_by_batch
from nameplate.engine.statistics import assign_replica_means, at_replica_means, unsynchronised
from nameplate.graph.name_contract import freeze, recheck
from nameplate.training.arguments import Arguments
from nameplate.training.callbacks import TRAIN_HOOKS, listed, use_hooks
from nameplate.training.progress_display import ShownByBatch, ShowPass

_UNKNOWN = "Unrecognized data type"  # Keras' words (trainers/data_adapters)


def fit(
    model: keras.Model,
    data: Any,
    arguments: Arguments,
    *,
    validation_data: Any = None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.History:
    """Train as `nameplate.fit` does, batch by batch; `data` and `validation_data` in one piece or as a source."""
    x, y, weight = _training_data(data, arguments, per_call=model.steps_per_execution)
    callbacks = [_ReplicaMeans(by_batch=use_hooks(callbacks, TRAIN_HOOKS)), *callbacks]
    shown = ShownByBatch(arguments.verbose, initial_epoch=arguments.initial_epoch)
    if arguments.verbose:
        callbacks = [*callbacks, shown]
    if arguments.steps:
        callbacks = [*callbacks, _StopAfter(arguments.steps)]
    held_out = None
    if validation_data is not None:
        batch = arguments.validation_batch_size or arguments.batch_size
        held_out = keras.utils.pack_x_y_sample_weight(*evaluation_data(validation_data, batch))
    if model.built:
        recheck(model)
    with _known(data), stepping_by_batch(model), ExitStack() as stack:
        stack.callback(shown.ended)
        history = private_loop.fit(
            model,
            x=x,
            y=y,
            sample_weight=weight,
            batch_size=arguments.batch_size,
            epochs=arguments.epochs,
            verbose=0,
            callbacks=callbacks,
            validation_data=held_out,
            shuffle=arguments.shuffle and _is_plain(x),
            class_weight=arguments.class_weight,
            initial_epoch=arguments.initial_epoch,
            steps_per_epoch=arguments.steps_per_epoch,
            validation_steps=arguments.validation_steps,
            validation_batch_size=arguments.validation_batch_size,
            validation_freq=arguments.validation_freq,
        )
    freeze(model)
    return history


def evaluate(
    model: keras.Model, data: Any, *, batch_size: int | None, steps: int | None, callbacks: Any, shown: ShowPass
) -> dict[str, Any]:
    """Evaluate as `nameplate.evaluate` does, batch by batch; return the values by name."""
    x, y, weight = evaluation_data(data, batch_size)
    given = {"batch_size": batch_size, "steps": steps, "callbacks": _with_bar(callbacks, shown)}
    with _known(data), stepping_by_batch(model), at_replica_means(model.non_trainable_variables), shown:
        values: dict[str, Any] = private_loop.evaluate(
            model, x=x, y=y, sample_weight=weight, verbose=0, return_dict=True, **given
        )
    return values


def predict(
    model: keras.Model, data: Any, *, batch_size: int | None, steps: int | None, callbacks: Any, shown: ShowPass
) -> Any:
    """Predict as `nameplate.predict` does, batch by batch."""
    x, _, _ = evaluation_data(data, batch_size)
    given = {"batch_size": batch_size, "steps": steps, "callbacks": _with_bar(callbacks, shown)}
    with _known(data), stepping_by_batch(model), at_replica_means(model.non_trainable_variables), shown:
        return private_loop.predict(model, x=x, verbose=0, **given)


def _with_bar(callbacks: Any, shown: ShowPass) -> Any:
    """Return callbacks with one that moves the bar; Keras' own list, which is set up already, as it is."""
    return callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else [*listed(callbacks), shown]


@contextmanager
def _known(data: Any) -> Iterator[None]:
    """Raise a `DataError` for data of a kind that Keras does not know."""
    try:
        yield
    except ValueError as error:
        if _UNKNOWN not in str(error):
            raise
        raise DataError(
            f"data={shown(data)}: {kind_of(data)}, not data; give arrays, a tf.data.Dataset of batches, a generator, a "
            "keras.utils.PyDataset, a DataLoader, or a source with random access"
        ) from None


def _training_data(data: Any, arguments: Arguments, *, per_call: int) -> tuple[Any, Any, Any]:
    """Return x, y and weight as Keras' loop takes them; a source comes in its own order."""
    source = _source_of(data)
    if not isinstance(source, Source):
        return _apart(data, source)
    batches = batches_of(source, batch_for(source, arguments.batch_size, arguments.steps_per_epoch), 1)
    limits = [steps for steps in (arguments.steps_per_epoch, keras.config.max_steps_per_epoch()) if steps]
    order = BySeed(arguments.seed, source.size) if arguments.shuffle else in_file_order
    epochs = Epochs(batches.steps, min(limits, default=None), arguments.initial_epoch, per_call)
    return OrderedBatches(source, batches, order, epochs), None, None


def evaluation_data(data: Any, batch_size: int | None) -> tuple[Any, Any, Any]:
    """Return x, y and weight as Keras' loops take them, in file order."""
    source = _source_of(data)
    if not isinstance(source, Source):
        return _apart(data, source)
    return OrderedBatches(source, Batches(source.size, batch_size or BATCH, 1), in_file_order), None, None


def _source_of(data: Any) -> Source | Stream | None:
    try:
        return as_source(data)
    except ByBatchError:
        return None


def _apart(data: Any, source: Source | Stream | None) -> tuple[Any, Any, Any]:
    """Return x, y and weight of data that has no random access."""
    if isinstance(data, Stream):
        return (data.dataset if data.batched else data.dataset.batch(BATCH)), None, None
    if isinstance(source, Stream) or not isinstance(data, tuple | list):
        return data, None, None
    parts: tuple[Any, Any, Any] = keras.utils.unpack_x_y_sample_weight(tuple(data))
    return parts


def _is_plain(x: Any) -> bool:
    """Say whether Keras shuffles x without a warning: arrays and a PyDataset of the user's."""
    plain = hasattr(x, "shape") or isinstance(x, keras.utils.PyDataset | tuple | list | dict)
    return plain and not isinstance(x, OrderedBatches)


class _StopAfter(keras.callbacks.Callback):
    """Ends a training after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the steps of a call."""
        self._left -= self.model.steps_per_execution
        if self._left <= 0:
            self.model.stop_training = True


class _ReplicaMeans(keras.callbacks.Callback):
    """The first callback: while others look at the model, what differs between replicas has the mean over them."""

    def __init__(self, *, by_batch: bool) -> None:
        super().__init__()
        self._by_batch = by_batch
        self._means: AbstractContextManager[None] | None = None

    def _enter(self) -> None:
        if self._means is None:
            self._means = at_replica_means(unsynchronised(self.model))
            self._means.__enter__()

    def _leave(self) -> None:
        means, self._means = self._means, None
        if means is not None:
            means.__exit__(None, None, None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go on with each replica's own values."""
        self._leave()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Go on with each replica's own values."""
        self._leave()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take the means if a callback acts at batches."""
        if self._by_batch:
            self._enter()

    def on_test_begin(self, logs: Any = None) -> None:
        """Validate with the means."""
        self._enter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take the means."""
        self._enter()

    def on_train_end(self, logs: Any = None) -> None:
        """Take the means for good."""
        self._leave()
        assign_replica_means(unsynchronised(self.model))
