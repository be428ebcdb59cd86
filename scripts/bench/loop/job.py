"""The default job, the digits on two replicas for 12 epochs, compared with `model.fit` and Keras' callbacks.

The convolutions of its model take most of the time in both. So the same job is also measured with a model that computes
almost nothing: what is left is the cost of the loop, of tracing, checkpoints and logs.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from nameplate.data.registry import open_dataset
from nameplate.data.source import Memory
from nameplate.training.loop import Loop
from scripts.bench.figures import Figure
from scripts.bench.loop.contenders import pipeline, strategy_over
from scripts.bench.loop.host import Times, ratios
from scripts.bench.loop.timing import Taken, best, taken
from trainer.config import run_config
from trainer.config.run_config import RunConfig
from trainer.run import named_model, train

QUIET = ["strategy=cpu_replicas", "strategy.replicas=2", "log.layer_table=false"]


def job(rounds: int) -> tuple[list[Figure], Times]:
    """The whole training on two replicas, with tracing, checkpoints and logs."""
    return _compared([], rounds)


def job_light(rounds: int) -> tuple[list[Figure], Times]:
    """The same job with a model that computes almost nothing."""
    return _compared(["model=mlp"], rounds)


def _compared(options: list[str], rounds: int) -> tuple[list[Figure], Times]:
    with tempfile.TemporaryDirectory() as place:
        config = run_config([f"runs={place}", *QUIET, *options])
        strategy = strategy_over(2)
        times = best(
            {
                "fit, ModelCheckpoint and TensorBoard": lambda: by_fit(config, strategy, Path(place)),
                "ours, checkpoints and logs": lambda: by_us(config),
            },
            rounds=rounds,
            warm=False,
        )
    return ratios(times, "ours, checkpoints and logs", "fit, ModelCheckpoint and TensorBoard", 0.2), times


def by_us(config: RunConfig) -> Taken:
    """Run the job; return the time of its loop."""
    times: list[Taken] = []
    original = Loop.run

    def timed(loop: Loop) -> Any:
        progress: list[Any] = []
        times.append(taken(lambda: progress.append(original(loop))))
        return progress[0]

    with mock.patch.object(Loop, "run", timed), contextlib.redirect_stdout(io.StringIO()):
        train(config)
    return times[0]


def by_fit(config: RunConfig, strategy: tf.distribute.Strategy, place: Path) -> Taken:
    """Train the same model on the same data as a script would; return the time of `fit`."""
    dataset = open_dataset(config.data, seed=config.seed)
    arrays: list[Any] = [part.arrays() for part in (dataset.train, dataset.validation) if isinstance(part, Memory)]
    batch = config.fit.global_batch
    steps = config.fit.epochs * -(-len(arrays[0][0]) // batch)
    with strategy.scope():
        model = named_model(config, dataset)
        rate = keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    train, validation = (pipeline(part, batch=batch, endless=False, whole=True) for part in arrays)
    with tempfile.TemporaryDirectory(dir=place) as logs:
        callbacks = [
            keras.callbacks.ModelCheckpoint(f"{logs}/{{epoch}}.keras"),
            keras.callbacks.TensorBoard(logs, histogram_freq=1),
        ]
        return taken(
            lambda: model.fit(
                train, validation_data=validation, epochs=config.fit.epochs, callbacks=callbacks, verbose=0
            )
        )
