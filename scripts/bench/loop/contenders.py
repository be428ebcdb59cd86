"""The contenders (`model.fit`, our loop, a step written by hand, PyTorch), and the models and data they train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.engine.strategy import make_strategy
from nameplate.training.arguments import Arguments
from nameplate.training.fit import loop_of
from nameplate.training.progress import Progress
from scripts.bench.loop.timing import Run
from trainer.models import resnet

BATCH = 32
STEPS = 512  # an epoch
Arrays = tuple[np.ndarray, np.ndarray]


def strategy_over(replicas: int) -> tf.distribute.Strategy:
    """Return the strategy of this process: one device, or this many logical CPU devices."""
    kind = StrategyKind.single if replicas == 1 else StrategyKind.cpu_replicas
    return make_strategy(StrategyConfig(kind=kind, replicas=replicas))


def dense(width: int = 16, layers: int = 1, **options: Any) -> keras.Model:
    """Return a compiled perceptron over 16 numbers and 4 classes; call it in the scope."""
    hidden = [keras.layers.Dense(width, activation="relu", name=f"hidden{number}") for number in range(layers)]
    model = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(4, name="logits")], name="dense")
    return compiled(model, **options)


def convolutional(width: int = 16, **options: Any) -> keras.Model:
    """Return a compiled ResNet-18 over 32x32 images and 10 classes."""
    return compiled(resnet.build({"image": (32, 32, 3)}, {"label": 10}, depth=18, width=width), **options)


def compiled(model: keras.Model, **options: Any) -> keras.Model:
    """Compile a classifier with Adam and accuracy, as a script would."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **{"jit_compile": False, **options})
    return model


def numbers(size: int = STEPS * BATCH) -> Arrays:
    """Return examples of 16 numbers in 4 classes."""
    source = np.random.default_rng(0)
    return source.normal(size=(size, 16)).astype(np.float32), source.integers(0, 4, size)


def images(size: int) -> Arrays:
    """Return 32x32 images in 10 classes."""
    source = np.random.default_rng(0)
    return source.random((size, 32, 32, 3), np.float32), source.integers(0, 10, size)


def pipeline(arrays: Arrays, *, batch: int = BATCH, endless: bool = True, whole: bool = False) -> tf.data.Dataset:
    """Return the arrays as a script feeds them: shuffled, batched, prefetched; `whole` keeps a smaller last batch."""
    dataset = tf.data.Dataset.from_tensor_slices(arrays).shuffle(len(arrays[0]), seed=0)
    dataset = dataset.repeat() if endless else dataset
    return dataset.batch(batch, drop_remainder=not whole).prefetch(tf.data.AUTOTUNE)


def by_fit(model: keras.Model, data: Any, **options: Any) -> Run:
    """Return a run of `model.fit` for a number of steps in one epoch."""
    inputs = {"x": data[0], "y": data[1], "batch_size": BATCH} if isinstance(data, tuple) else {"x": data}
    return lambda steps: model.fit(**inputs, steps_per_epoch=steps, epochs=1, verbose=0, **options)


def by_us(model: keras.Model, data: Any, *, steps_per_epoch: int | None = None, **options: Any) -> Run:
    """Return a run of our loop for a number of steps in one epoch; it is traced once, as `model.fit` is."""
    strategy = model.distribute_strategy
    with strategy.scope():
        loop = loop_of(model, data, Arguments(steps_per_epoch=steps_per_epoch, **options))

    def run(steps: int) -> None:
        with strategy.scope():
            loop.progress = Progress()
            loop.plan = replace(loop.plan, total_steps=steps, record_every=steps)
            loop.run()

    return run


def by_hand(model: keras.Model, data: tf.data.Dataset | Arrays) -> Run:
    """Return a run as a TensorFlow expert writes it: all steps in one graph, metrics on the devices until the end."""
    strategy = model.distribute_strategy
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
        mean, accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
        begin, following = _feed_by_hand(data, strategy)

    def of_replica(batch: Any) -> None:
        x, y = batch
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = loss_of(y, predicted) / BATCH
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        mean.update_state(loss * strategy.num_replicas_in_sync)
        accuracy.update_state(y, predicted)

    @tf.function
    def train(source: Any, steps: tf.Tensor) -> None:
        for step in tf.range(steps):
            strategy.run(of_replica, (following(source, step),))

    def run(steps: int) -> None:
        with strategy.scope():
            mean.reset_state()
            accuracy.reset_state()
            train(begin(), tf.constant(steps))
            float(mean.result()), float(accuracy.result())

    return run


def _feed_by_hand(
    data: tf.data.Dataset | Arrays, strategy: tf.distribute.Strategy
) -> tuple[Callable[[], Any], Callable[[Any, Any], Any]]:
    """Return a function that starts the data, and one that returns a step's examples: from an iterator, or slices."""
    if isinstance(data, tf.data.Dataset):
        distributed = strategy.experimental_distribute_dataset(data)
        return lambda: iter(distributed), lambda iterator, _: next(iterator)
    held = tuple(map(tf.constant, data))
    share = BATCH // strategy.num_replicas_in_sync

    def following(order: tf.Tensor, step: tf.Tensor) -> Any:
        def of_replica(context: Any) -> Any:
            begin = step * BATCH + context.replica_id_in_sync_group * share
            return tuple(tf.gather(array, tf.slice(order, [begin], [share])) for array in held)

        return strategy.experimental_distribute_values_from_function(of_replica)

    return lambda: tf.random.shuffle(tf.range(len(data[0]))), following


def by_torch(arrays: Arrays, *, width: int = 16) -> Run | None:
    """Return PyTorch's own loop over the same model, data in memory, no loader; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    x, y = torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])
    model = torch.nn.Sequential(torch.nn.Linear(16, width), torch.nn.ReLU(), torch.nn.Linear(width, 4))
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = torch.nn.CrossEntropyLoss()

    def run(steps: int) -> None:
        order = torch.randperm(len(x))
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for step in range(steps):
            picked = order[step * BATCH : (step + 1) * BATCH]
            batch, target = x[picked], y[picked]
            optimizer.zero_grad()
            predicted = model(batch)
            loss = loss_of(predicted, target)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            right += (predicted.argmax(1) == target).sum()
        float(total), int(right)

    return run
