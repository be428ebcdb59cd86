"""Host time: the cost of a step with almost nothing to compute, of an epoch besides its steps, of the first step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import tensorflow as tf

import nameplate
from nameplate.training.arguments import Arguments
from nameplate.training.fit import loop_of
from nameplate.training.progress import Progress
from scripts.bench.figures import Figure
from scripts.bench.loop.contenders import (
    BATCH,
    STEPS,
    by_fit,
    by_hand,
    by_torch,
    by_us,
    dense,
    numbers,
    pipeline,
    strategy_over,
)
from scripts.bench.loop.timing import Run, Taken, best, marginal

Times = dict[str, Taken]


def steps(rounds: int) -> tuple[list[Figure], Times]:
    """A step on two replicas, through tf.data and from arrays on the devices."""
    strategy = strategy_over(2)
    arrays = numbers()
    dataset = pipeline(arrays)
    with strategy.scope():
        models = [dense() for _ in range(6)]
    contenders = {
        "fit, tf.data": by_fit(models[0], dataset),
        "fit, arrays": by_fit(models[1], arrays),
        "ours, tf.data": by_us(models[2], dataset, steps_per_epoch=STEPS),
        "ours, arrays": by_us(models[3], arrays, batch_size=BATCH),
        "by hand, tf.data": by_hand(models[4], dataset),
        "by hand, arrays": by_hand(models[5], arrays),
    }
    times = marginal(contenders, few=50, many=450, rounds=rounds)
    return [
        *ratios(times, "ours, tf.data", "fit, tf.data", 0.25),
        *ratios(times, "ours, arrays", "fit, tf.data", 0.15),
        *ratios(times, "ours, arrays", "fit, arrays", None),
        *ratios(times, "ours, tf.data", "by hand, tf.data", 1.05),
        *ratios(times, "ours, arrays", "by hand, arrays", 1.05),
    ], times


def alone(rounds: int) -> tuple[list[Figure], Times]:
    """A step on one device, compared with plain PyTorch and with fit at 20 steps an execution."""
    strategy_over(1)
    arrays = numbers()
    dataset = pipeline(arrays)
    contenders: dict[str, Run] = {
        "fit, steps_per_execution=20": by_fit(dense(steps_per_execution=20), dataset),
        "fit, steps_per_execution=20, arrays": by_fit(dense(steps_per_execution=20), arrays),
        "ours, 20 steps a call": by_us(dense(), dataset, steps_per_epoch=STEPS, steps_per_loop=20),
        "ours, 20 steps a call, arrays": by_us(dense(), arrays, batch_size=BATCH, steps_per_loop=20),
        "fit, tf.data": by_fit(dense(), dataset),
        "ours, tf.data": by_us(dense(), dataset, steps_per_epoch=STEPS),
        "ours, arrays": by_us(dense(), arrays, batch_size=BATCH),
    }
    if torch := by_torch(arrays):
        contenders["PyTorch"] = torch
    else:
        print("  torch is not installed (the extra `torch`): not compared")
    times = marginal(contenders, few=100, many=500, rounds=rounds)
    figures = [
        *ratios(times, "ours, 20 steps a call", "fit, steps_per_execution=20", 0.8),
        *ratios(times, "ours, 20 steps a call, arrays", "fit, steps_per_execution=20, arrays", 0.8),
        *ratios(times, "ours, tf.data", "fit, tf.data", None),
    ]
    return figures + (ratios(times, "ours, arrays", "PyTorch", 1.0) if torch else []), times


def epochs(rounds: int) -> tuple[list[Figure], Times]:
    """An epoch of one step with one step of validation, on two replicas: almost only fixed cost."""
    strategy = strategy_over(2)
    arrays = numbers(BATCH)
    once = pipeline(arrays, endless=False)
    with strategy.scope():
        models = [dense() for _ in range(3)]
    contenders: dict[str, Run] = {
        "fit": lambda count: models[0].fit(once, validation_data=once, epochs=count, verbose=0),
        "ours, tf.data": _epochs_by_us(models[1], once),
        "ours, arrays": _epochs_by_us(models[2], arrays),
    }
    times = marginal(contenders, few=2, many=12, rounds=rounds)
    return [*ratios(times, "ours, tf.data", "fit", 0.1), *ratios(times, "ours, arrays", "fit", 0.1)], times


def ratios(times: Times, ours: str, other: str, at_most: float | None) -> list[Figure]:
    """Return the ratio of wall times with its limit, and the ratio of CPU times."""
    return [
        Figure(f"{ours} / {other}", times[ours].wall / times[other].wall, at_most),
        Figure(f"{ours} / {other}, CPU time", times[ours].cpu / times[other].cpu),
    ]


def _epochs_by_us(model: keras.Model, data: Any) -> Run:
    strategy: tf.distribute.Strategy = model.distribute_strategy
    with strategy.scope():
        loop = loop_of(model, data, Arguments(batch_size=BATCH), validation_data=data)

    def run(count: int) -> None:
        with strategy.scope():
            loop.progress = Progress()
            loop.plan = replace(loop.plan, total_steps=count, record_every=count)
            loop.run()

    return run


WIDTHS = (16, 256, 1024)


def replicas_1(rounds: int) -> tuple[list[Figure], Times]:
    """A step of models of three sizes on one device."""
    return _by_size(1, rounds)


def replicas_2(rounds: int) -> tuple[list[Figure], Times]:
    """A step of models of three sizes on two replicas."""
    return _by_size(2, rounds)


def replicas_4(rounds: int) -> tuple[list[Figure], Times]:
    """A step of models of three sizes on four replicas."""
    return _by_size(4, rounds)


def _by_size(replicas: int, rounds: int) -> tuple[list[Figure], Times]:
    strategy = strategy_over(replicas)
    arrays = numbers()
    dataset = pipeline(arrays)
    figures: list[Figure] = []
    times: Times = {}
    for width in WIDTHS:
        with strategy.scope():
            models = [dense(width, layers=2) for _ in range(2)]
        size = f"{models[0].count_params()} parameters"
        contenders = {
            f"fit, {size}": by_fit(models[0], dataset),
            f"ours, {size}": by_us(models[1], arrays, batch_size=BATCH),
        }
        times |= marginal(contenders, few=10, many=110, rounds=rounds)
        figures.append(Figure(f"ours / fit, {size}", times[f"ours, {size}"].wall / times[f"fit, {size}"].wall))
    return figures, times


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
        "ours": lambda model, callbacks: nameplate.fit(
            model, dataset, steps_per_epoch=2, callbacks=callbacks, verbose=0
        ),
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
