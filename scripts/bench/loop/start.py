"""From the call to the end of the first step: building the optimizer, tracing, starting the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf

import nameplate
from scripts.bench.figures import Figure
from scripts.bench.loop.host import Times, ratios
from scripts.bench.loop.subjects import dense, numbers, pipeline, strategy_over
from scripts.bench.loop.timing import Taken, best

LAYERS = 50
Train = Callable[[keras.Model, list[keras.callbacks.Callback]], object]


def start(rounds: int) -> tuple[list[Figure], Times]:
    """Start to first step, Adam, 50 layers, on two replicas."""
    return _started(2, rounds)


def start_alone(rounds: int) -> tuple[list[Figure], Times]:
    """Start to first step, Adam, 50 layers, on one device."""
    return _started(1, rounds)


def _started(replicas: int, rounds: int) -> tuple[list[Figure], Times]:
    strategy = strategy_over(replicas)
    dataset = pipeline(numbers())
    contenders: dict[str, Train] = {
        "fit": lambda model, callbacks: model.fit(dataset, steps_per_epoch=2, callbacks=callbacks, verbose=0),
        "ours": lambda model, callbacks: nameplate.fit(model, dataset, steps_per_epoch=2, callbacks=callbacks),
    }
    started = {name: partial(_to_first_step, train, strategy) for name, train in contenders.items()}
    times = best(started, rounds=rounds, warm=False)
    return ratios(times, "ours", "fit", 0.6), times


def _to_first_step(train: Train, strategy: tf.distribute.Strategy) -> Taken:
    with strategy.scope():
        model = dense(layers=LAYERS)
    ended: list[tuple[float, float]] = []

    def at_end(batch: int, logs: Any) -> None:
        ended.append((time.perf_counter(), time.process_time()))
        model.stop_training = True

    begun = (time.perf_counter(), time.process_time())
    train(model, [keras.callbacks.LambdaCallback(on_train_batch_end=at_end)])
    return Taken(ended[0][0] - begun[0], ended[0][1] - begun[1])
