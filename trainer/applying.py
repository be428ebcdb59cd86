"""`trainer.evaluate` and `trainer.predict`: a model over data on all replicas, each example once, in order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.errors import NameplateError
from trainer.config.data import Resident
from trainer.data.feed import Feed, feed_of, in_file_order
from trainer.data.memory import Memory
from trainer.data.source import Source, Stream
from trainer.fitting import strategy_of
from trainer.given import Data, as_source, batches_of, example_of
from trainer.replicas.consensus import in_agreement
from trainer.replicas.graph import EvaluationGraph, PredictionGraph
from trainer.replicas.private.compiled import build_compiled, metric_values
from trainer.replicas.replica import Step

BATCH = 32  # examples a step, over all replicas together, where nothing is said


def evaluate(model: keras.Model, data: Data, *, batch_size: int | None = None) -> dict[str, float]:
    """Return loss and metrics of a compiled model over the data, as one device would measure them.

    `data` is what `trainer.fit` takes; `batch_size` counts the examples of a step over all replicas together and need
    not divide among them. What replicas keep apart, such as batch statistics of their own, is averaged meanwhile.

    Raises:
        NameplateError: the model is not compiled, or the data cannot be evaluated.
    """
    if not model.compiled:
        raise NameplateError(f"{model.name!r} is not compiled; call model.compile(...) first")
    strategy = strategy_of(model)
    with strategy.scope():
        source = as_source(data)
        build_compiled(model, example_of(source))
        model.reset_metrics()
        with in_agreement(model.non_trainable_variables):
            EvaluationGraph(Step(model), _feed(source, batch_size, strategy)).run()
        return metric_values(model)


def predict(model: keras.Model, data: Any, *, batch_size: int | None = None) -> Any:
    """Return the model's outputs for all examples in their order: arrays of (size, ...) in the model's structure.

    `data` is an array, a dict of arrays by input, a `tf.data.Dataset` of batches of them, or whatever `trainer.fit`
    takes, of which the targets are not looked at. `batch_size` counts over all replicas together.

    Raises:
        NameplateError: the data cannot be predicted on.
    """
    strategy = strategy_of(model)
    with strategy.scope():
        source = _inputs(data)
        if not model.built:
            model(example_of(source)[0])
        with in_agreement(model.non_trainable_variables):
            return PredictionGraph(Step(model), _feed(source, batch_size, strategy)).run()


def _feed(source: Source | Stream, batch_size: int | None, strategy: tf.distribute.Strategy) -> Feed:
    if batch_size is not None and batch_size < 1:
        raise NameplateError(f"batch_size={batch_size}: at least 1")
    if isinstance(source, Stream) and source.endless:
        raise NameplateError("the dataset has no end; give one that ends, e.g. dataset.take(100)")
    batches = batches_of(source, batch_size or BATCH, strategy.num_replicas_in_sync, even=False)
    return feed_of(source, batches, in_file_order, Resident.AUTO)


def _inputs(data: Any) -> Source | Stream:
    """Return inputs as a source of examples (x,), and what has targets as it is."""
    if isinstance(data, tf.data.Dataset):
        bare = not isinstance(data.element_spec, tuple)
        return Stream(data.map(lambda x: (x,)) if bare else data, batched=True)
    if isinstance(data, tuple | list | Source | Stream):
        return as_source(data)
    arrays = tf.nest.map_structure(np.asarray, data)
    lengths = {len(array) if array.ndim else 0 for array in tf.nest.flatten(arrays)}
    if len(lengths) != 1 or not min(lengths):
        raise NameplateError(
            f"data: arrays with {sorted(lengths) or 'no'} examples; all must be of the same length, at least 1"
        )
    return Memory((arrays,))
