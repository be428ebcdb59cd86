"""`trainer.fit`: the loop alone, for a compiled model and data of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.errors import NameplateError
from trainer.compiling import prepare
from trainer.config.data import Resident
from trainer.data.batches import Batches
from trainer.data.feed import Feed, by_seed, feed_of, in_file_order
from trainer.data.memory import Memory
from trainer.data.source import Source, Stream
from trainer.graph import EvaluationGraph, TrainGraph
from trainer.loop import Loop, Plan
from trainer.replica import Step

Data = Any  # (x, y), (x, y, weight), a tf.data.Dataset of batches, or a Source


def fit(
    model: keras.Model,
    data: Data,
    *,
    validation_data: Data | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    class_weight: Mapping[int, float] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    steps_per_loop: int | None = None,
    xla: bool = False,
    verbose: int = 0,
) -> keras.callbacks.History:
    """Train a compiled model in the current strategy's scope, as `model.fit` would on one device.

    Args:
        model: compiled; variables are created where it has none yet.
        data: arrays `(x, y)` or `(x, y, sample_weight)` with equal leading dimensions, or a source with random
            access, shuffled by the seed; or a `tf.data.Dataset` of batches, over all replicas together, as it comes.
        validation_data: the same kinds; evaluated at the end of each epoch, each example once.
        epochs: passes over the data.
        steps: end after this many steps in all, whatever `epochs` says.
        batch_size: examples a step over all replicas together; 32 where None. A `tf.data.Dataset` has its own.
        callbacks: Keras callbacks; one with a batch hook makes Python run at every step.
        class_weight: class to weight in the loss; absent classes have 1.
        shuffle: a new order each epoch, from `seed`; false: in order. A `tf.data.Dataset` has its own.
        seed: decides the order.
        steps_per_loop: steps a call to the graph makes at most; None: chosen.
        xla: compile each replica's forward and backward pass.
        verbose: 0 silent; 1 or 2 one line an epoch.

    Returns:
        The History of the training, also at `model.history`.

    Raises:
        NameplateError: the model is not compiled, or the data does not divide among the replicas.
        NotFiniteError: the loss of a step is NaN or infinite.
    """
    if not model.compiled:
        raise NameplateError(f"{model.name!r} is not compiled; call model.compile(...) first")
    strategy = model.distribute_strategy
    with strategy.scope():
        source = as_source(data)
        batches = batches_of(source, batch_size or 32, strategy.num_replicas_in_sync)
        prepare(model, example_of(source))
        order = by_seed(seed, batches.size) if shuffle and not isinstance(source, Stream) else in_file_order
        feed = feed_of(source, batches, order, Resident.AUTO)
        step = Step(model, class_weights=class_weights(class_weight), xla=xla)
        loop = Loop(
            model,
            TrainGraph(step, feed),
            EvaluationGraph(step, evaluation_feed(validation_data, batches)) if validation_data is not None else None,
            Plan(
                total_steps=steps or epochs * batches.steps,
                steps_per_epoch=batches.steps,
                examples_per_epoch=batches.size,
                global_batch=batches.batch,
                record_every=steps or epochs * batches.steps,
                steps_per_loop=steps_per_loop,
            ),
            callback_list(model, callbacks, epochs=epochs, steps=batches.steps, verbose=verbose),
        )
        loop.run()
    return model.history


def as_source(data: Data) -> Source | Stream:
    """Return data in any of its forms as a source."""
    if isinstance(data, tf.data.Dataset):
        return Stream(data, batched=True)
    if isinstance(data, tuple | list):
        return Memory(tf.nest.map_structure(np.asarray, tuple(data)))
    if isinstance(data, Source | Stream):
        return data
    raise NameplateError(
        f"data of type {type(data).__name__} cannot be trained on; give (x, y), (x, y, sample_weight), "
        "a tf.data.Dataset of batches, or a source with random access"
    )


def batches_of(source: Source | Stream, batch: int, replicas: int) -> Batches:
    """Return how the source falls into steps; a dataset without a known length is counted, once."""
    if not isinstance(source, Stream):
        _refuse_uneven(batch, replicas)
        return Batches(source.size, batch, replicas)
    if source.batched:
        sizes = [len(tf.nest.flatten(each)[0]) for each in source.dataset]
        if not sizes or any(size != sizes[0] for size in sizes[:-1]):
            raise NameplateError(
                f"the dataset's batches have {sorted(set(sizes))} examples; "
                "all must have the same number, and only the last may have fewer"
            )
        _refuse_uneven(sizes[0], replicas)
        return Batches(sum(sizes), sizes[0], replicas)
    _refuse_uneven(batch, replicas)
    size = source.size if source.size is not None else sum(1 for _ in source.dataset)
    return Batches(size, batch, replicas)


def evaluation_feed(data: Data, batches: Batches) -> Feed:
    """Return the feed of an evaluation, in order, with the training's batch where the data has none of its own."""
    source = as_source(data)
    own = batches_of(source, batches.batch, batches.replicas)
    return feed_of(source, own, in_file_order, Resident.AUTO)


def example_of(source: Source | Stream) -> tuple[Any, ...]:
    """Return the symbolic form of one batch: (x, y[, weight]) of KerasTensors, (None, ...)."""
    return tuple(
        tf.nest.map_structure(lambda leaf: keras.KerasTensor((None, *leaf.shape), leaf.dtype.name), part)
        for part in source.spec()
    )


def class_weights(weights: Mapping[int, float] | None) -> tf.Tensor | None:
    """Return weights by class as a vector, 1 where none is given, and a last 1 for all beyond; None without any."""
    if not weights:
        return None
    vector = np.ones(max(weights) + 2, np.float32)
    vector[list(weights)] = list(weights.values())
    return tf.constant(vector)


def callback_list(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], *, epochs: int, steps: int, verbose: int = 0
) -> keras.callbacks.CallbackList:
    """Return Keras' list of these callbacks and a History, told of the model and the length of the run."""
    logger = [keras.callbacks.LambdaCallback(on_epoch_end=_line)] if verbose else []
    return keras.callbacks.CallbackList(
        [*callbacks, *logger], add_history=True, add_progbar=False, model=model, epochs=epochs, steps=steps, verbose=0
    )


def _line(epoch: int, logs: Mapping[str, float] | None) -> None:
    print(f"epoch {epoch + 1}  " + "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items()))


def _refuse_uneven(batch: int, replicas: int) -> None:
    if batch % replicas:
        below, over = batch // replicas * replicas, -(-batch // replicas) * replicas
        raise NameplateError(
            f"a batch of {batch} does not divide among {replicas} replicas; the nearest: {below or over} or {over}"
        )
