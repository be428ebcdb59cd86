"""A user's script with `nameplate.fit(run=...)`, killed or stopped where a test says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import nameplate
from tests.jobs import CONTEXT

CLASSES, WIDTH = 3, 8


def examples(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0)
    return drawn.normal(size=(count, WIDTH)).astype("float32"), drawn.integers(0, CLASSES, count)


def network(*, hidden: str = "hidden", activation: str = "relu", rate: float = 1e-2, **compiled: Any) -> keras.Model:
    """Return a compiled classifier; call it in a strategy's scope."""
    keras.utils.set_random_seed(1)
    x = keras.Input((WIDTH,), name="x")
    inner = keras.layers.Dense(16, activation, name=hidden)(x)
    inner = keras.layers.Dropout(0.2, seed=3, name="drop")(inner)
    model = keras.Model(x, keras.layers.Dense(CLASSES, "softmax", name="classes")(inner), name="net")
    model.compile(keras.optimizers.Adam(rate, **compiled), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class At(keras.callbacks.Callback):
    """Call a function after the batch of this number, counted from the start of the process."""

    def __init__(self, batch: int, act: Any) -> None:
        super().__init__()
        self.numbers = iter(range(1, 1000))  # not a number, which a resume would restore
        self.at, self.act = batch, act

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if next(self.numbers) == self.at:
            self.act()


def train(
    run: Path | str | None, *more: keras.callbacks.Callback, model: keras.Model | None = None, **given: Any
) -> Any:
    """Return the History and the model of a training of 4 epochs of 6 steps."""
    model = model or network()
    x, y = examples()
    given = {"epochs": 4, "batch_size": 16, "validation_split": 0.2, "checkpoint": CHECKPOINT, "log": LOG} | given
    callbacks = [*more, keras.callbacks.ReduceLROnPlateau(patience=0, factor=0.5)]
    if run is None:
        given = {key: value for key, value in given.items() if key not in ("checkpoint", "log")}
    history = nameplate.fit(model, x, y, run=run, callbacks=callbacks, **given)
    return history, model


CHECKPOINT = nameplate.Checkpoint(every_steps=4)
LOG = nameplate.Log(every_steps=2, tensorboard=False)


def in_process(run: Path, *, kill_at: int | None = None, signal: int = 9) -> int:
    """Run the script in a process of its own, and return its exit code; a signal is negative."""
    process = CONTEXT.Process(target=_script, args=(run, kill_at, signal))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _script(run: Path, kill_at: int | None, signal: int) -> None:
    import tensorflow as tf

    with Path(f"{run}.said").open("a", encoding="utf-8") as sys.stderr:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        with strategy.scope():
            train(run, At(kill_at or 0, lambda: os.kill(os.getpid(), signal)))
