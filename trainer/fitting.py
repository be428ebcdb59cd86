"""`trainer.fit`: the loop alone, for a compiled model and data of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.errors import NameplateError
from models.tree import layers
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
    sync_batch_norm: bool = True,
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
        sync_batch_norm: take batch statistics over all replicas' shares, as one device would; false: each its own.
        verbose: 0 silent; 1 or 2 one line an epoch.

    Returns:
        The History of the training, also at `model.history`.

    Raises:
        NameplateError: the model is not compiled, the data does not fit it or does not divide among the replicas.
        NotFiniteError: the loss of a step is NaN or infinite.
    """
    _refuse_nonsense(
        model, epochs=epochs, steps=steps, batch_size=batch_size, steps_per_loop=steps_per_loop, weights=class_weight
    )
    strategy = strategy_of(model)
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    with strategy.scope(), _synchronised(model, sync_batch_norm=sync_batch_norm):
        source = as_source(data)
        held_out = None if validation_data is None else as_source(validation_data, "validation_data")
        _refuse_unlike(source, held_out)
        batches = batches_of(source, batch_size or 32, strategy.num_replicas_in_sync, steps=steps)
        prepare(model, example_of(source))
        order = by_seed(seed, batches.size) if shuffle and not isinstance(source, Stream) else in_file_order
        feed = feed_of(source, batches, order, Resident.AUTO)
        step = Step(model, class_weights=class_weights(class_weight), xla=xla)
        loop = Loop(
            model,
            TrainGraph(step, feed),
            EvaluationGraph(step, evaluation_feed(held_out, batches)) if held_out is not None else None,
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


def as_source(data: Data, name: str = "data") -> Source | Stream:
    """Return data in any of its forms as a source; `name` is what an error calls it.

    Raises:
        NameplateError: it is none of these forms, holds no examples, or its parts differ in length.
    """
    if isinstance(data, tf.data.Dataset):
        return Stream(data, batched=True)
    if isinstance(data, tuple | list):
        arrays = tf.nest.map_structure(np.asarray, tuple(data))
        lengths = [len(array) if array.ndim else 0 for array in tf.nest.flatten(arrays)]
        if len(arrays) not in (2, 3) or not lengths or len(set(lengths)) != 1 or not lengths[0]:
            raise NameplateError(
                f"{name}: {len(arrays)} parts whose arrays have {lengths} examples; "
                "give (x, y) or (x, y, sample_weight), all of the same length, at least 1"
            )
        return Memory(arrays)
    if isinstance(data, Source | Stream):
        return data
    raise NameplateError(
        f"{name}: {type(data).__name__} cannot be trained on; give (x, y), (x, y, sample_weight), "
        "a tf.data.Dataset of batches, or a source with random access"
    )


def batches_of(
    source: Source | Stream, batch: int, replicas: int, *, steps: int | None = None, even: bool = True
) -> Batches:
    """Return how the source falls into steps; a dataset without a known length is counted, once.

    Of a dataset without end an epoch is `steps` steps. Where `even`, a step divides among the replicas.

    Raises:
        NameplateError: batches of different sizes, or that do not divide; no examples; no end and no `steps`.
    """
    size, batch = _size_and_batch(source, batch, steps)
    if even:
        _refuse_uneven(batch, replicas)
    if not size:
        raise NameplateError("the dataset has no examples")
    return Batches(size, batch, replicas)


def evaluation_feed(source: Source | Stream, batches: Batches) -> Feed:
    """Return the feed of an evaluation, in order, with the training's batch where the data has none of its own."""
    own = batches_of(source, batches.batch, batches.replicas, even=False)
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


def strategy_of(model: keras.Model) -> tf.distribute.Strategy:
    """Return the strategy that a model was made in; refuse another one that is entered now."""
    own = model.distribute_strategy
    inside = own.extended.variable_created_in_scope
    entered = tf.distribute.has_strategy() and tf.distribute.get_strategy() is not own
    optimizers = [] if getattr(model, "optimizer", None) is None else model.optimizer.variables
    if entered or not all(inside(variable.value) for variable in [*model.variables, *optimizers]):
        raise NameplateError(
            f"{model.name!r} was made outside of the strategy's scope that it is used in; "
            "build and compile it inside: with strategy.scope(): ..."
        )
    return own


def callback_list(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], *, epochs: int, steps: int, verbose: int = 0
) -> keras.callbacks.CallbackList:
    """Return Keras' list of these callbacks and a History, told of the model and the length of the run."""
    logger = [keras.callbacks.LambdaCallback(on_epoch_end=_line)] if verbose else []
    return keras.callbacks.CallbackList(
        [*callbacks, *logger], add_history=True, add_progbar=False, model=model, epochs=epochs, steps=steps, verbose=0
    )


def _size_and_batch(source: Source | Stream, batch: int, steps: int | None) -> tuple[int, int]:
    """Return the examples of an epoch and of a step; batches of the source's own are what they are."""
    if not isinstance(source, Stream):
        return source.size, batch
    if source.endless:
        if steps is None:
            raise NameplateError("the dataset has no end: say how many steps to train, steps=... or fit.steps=...")
        batch = len(tf.nest.flatten(next(iter(source.dataset)))[0]) if source.batched else batch
        return steps * batch, batch
    if not source.batched:
        return source.size if source.size is not None else sum(1 for _ in source.dataset), batch
    sizes = [len(tf.nest.flatten(each)[0]) for each in source.dataset]
    if not sizes or any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
        raise NameplateError(
            f"the dataset's batches have {sorted(set(sizes)) or 'no'} examples; "
            "all must have the same number, and only the last may have fewer"
        )
    return sum(sizes), sizes[0]


def _refuse_nonsense(
    model: keras.Model,
    *,
    epochs: int,
    steps: int | None,
    batch_size: int | None,
    steps_per_loop: int | None,
    weights: Mapping[int, float] | None,
) -> None:
    problems = [] if model.compiled else [f"{model.name!r} is not compiled; call model.compile(...) first"]
    counts = {"epochs": epochs, "steps": steps, "batch_size": batch_size, "steps_per_loop": steps_per_loop}
    problems += [f"{key}={value}: at least 1" for key, value in counts.items() if value is not None and value < 1]
    wrong = [key for key in weights or {} if not isinstance(key, int | np.integer) or key < 0]
    if wrong:
        problems.append(f"class_weight: classes are numbers from 0, not {', '.join(map(repr, wrong))}")
    if problems:
        raise NameplateError("\n".join(problems))


def _refuse_unlike(source: Source | Stream, held_out: Source | Stream | None) -> None:
    """Refuse validation data of another form than the training data: it would fail only after an epoch."""
    if held_out is None:
        return
    forms = [
        tf.nest.map_structure(lambda leaf: (tuple(leaf.shape), leaf.dtype.name), tuple(each.spec())[:2])
        for each in (source, held_out)
    ]
    trained, validated = (str(form) for form in forms)
    if [shape for shape, _ in _leaves(forms[0])] != [shape for shape, _ in _leaves(forms[1])]:
        raise NameplateError(f"validation_data has examples of {validated}, the training data of {trained}")


def _leaves(form: Any) -> list[tuple[Any, str]]:
    if isinstance(form, dict):
        return [leaf for key in sorted(form) for leaf in _leaves(form[key])]
    if isinstance(form, tuple) and len(form) == 2 and isinstance(form[1], str):
        return [form]
    return [leaf for each in form for leaf in _leaves(each)]


@contextmanager
def _synchronised(model: keras.Model, *, sync_batch_norm: bool) -> Iterator[None]:
    """Let batch statistics be taken over all replicas while the model trains; its layers are left as they were."""
    norms = [each for each in layers(model).values() if isinstance(each, keras.layers.BatchNormalization)]
    before = [norm.synchronized for norm in norms]
    for norm in norms:
        norm.synchronized = norm.synchronized or sync_batch_norm
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm.synchronized = own


def _line(epoch: int, logs: Mapping[str, float] | None) -> None:
    print(f"epoch {epoch + 1}  " + "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items()))


def _refuse_uneven(batch: int, replicas: int) -> None:
    if batch % replicas:
        below, over = batch // replicas * replicas, -(-batch // replicas) * replicas
        raise NameplateError(
            f"a batch of {batch} does not divide among {replicas} replicas; the nearest: {below or over} or {over}"
        )
