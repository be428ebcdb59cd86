"""`python -m tests.nameplate.engine.replication.training`: trainings of a table, to a file of arrays.

A process can hold one number of CPU replicas, so each has a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import nameplate
from nameplate.data.batches import shuffled
from nameplate.data.source import Memory
from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.engine.graph import TrainGraph
from nameplate.engine.strategy import make_strategy
from tests.nameplate.engine.replication.cases import BATCH, Training

Numbers = dict[str, np.ndarray]


class OnDisk(Memory):
    """Arrays that are not held on the devices, but loaded by their indices."""

    def arrays(self) -> Any:
        """Return nothing."""
        return None


def main() -> int:
    """Run a table of trainings and write what they give: `<training>/<what>`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="module with TRAININGS")
    parser.add_argument("kind", help="strategy, or keras for model.fit on one device")
    parser.add_argument("replicas", type=int)
    parser.add_argument("file")
    given = parser.parse_args()
    alone = given.kind in ("single", "keras")
    kind = StrategyKind("single" if alone else given.kind)
    strategy = make_strategy(StrategyConfig(kind=kind, replicas=None if alone else given.replicas))
    found: Numbers = {}
    for name, training in importlib.import_module(given.table).TRAININGS.items():
        with strategy.scope():
            numbers = by_keras(training) if given.kind == "keras" else trained(training)
        found |= {f"{name}/{what}": value for what, value in numbers.items()}
    if strategy.num_replicas_in_sync == 1 or strategy.extended.should_checkpoint:
        np.savez(given.file, **found)  # type: ignore[arg-type]
    return 0


def trained(training: Training) -> Numbers:
    """Train, evaluate and predict in the current scope; return every number that comes of it."""
    with _precision(training.dtype), _observed() as seen:
        data, model = _data(training), training.build()
        history = nameplate.fit(
            model,
            OnDisk(data) if training.on_disk else data,
            batch_size=BATCH,
            epochs=training.epochs,
            class_weight=training.class_weight,
            xla=training.xla,
        )
        traces = seen.graph.traces() if seen.graph else 0
        return {
            "losses": np.concatenate(seen.losses),
            "history": _values({name: each[-1] for name, each in history.history.items()}),
            "evaluation": _values(nameplate.evaluate(model, data, batch_size=BATCH)),
            "predictions": _flat(tf.nest.flatten(nameplate.predict(model, data[0], batch_size=BATCH))),
            "weights": _weights(model),
            "traces": np.array(traces - _expected_traces(training)),
        }


def by_keras(training: Training) -> Numbers:
    """Do the same with Keras' own verbs, on one device and in the same order."""
    with _precision(training.dtype):
        data, model = _data(training), training.build()
        history = model.fit(
            functools.reduce(tf.data.Dataset.concatenate, (_batches(data, epoch) for epoch in range(training.epochs))),
            steps_per_epoch=-(-training.size // BATCH),
            epochs=training.epochs,
            # Keras knows no class that it is given no weight of.
            class_weight=dict.fromkeys(range(10), 1.0) | training.class_weight if training.class_weight else None,
            verbose=0,
        )
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        measured = model.evaluate(x, y, sample_weight=weight, batch_size=BATCH, verbose=0, return_dict=True)
        told = {
            "history": _values({name: each[-1] for name, each in history.history.items()}),
            "evaluation": _values(measured),
        }
        return ({} if training.several else told) | {
            "predictions": _flat(tf.nest.flatten(model.predict(x, batch_size=BATCH, verbose=0))),
            "weights": _weights(model),
        }


def _batches(data: Any, epoch: int) -> tf.data.Dataset:
    size = len(tf.nest.flatten(data)[0])
    order = shuffled(tf.range(size, dtype=tf.int64), epoch=epoch, seed=0, size=size).numpy()
    return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda each: each[order], data)).batch(BATCH)


class _Seen:
    graph: TrainGraph | None = None

    def __init__(self) -> None:
        self.losses: list[np.ndarray] = []


@contextmanager
def _observed() -> Iterator[_Seen]:
    """Inside, the loss of every step is written down."""
    seen, original = _Seen(), TrainGraph.run

    def run(graph: TrainGraph, *arguments: int) -> np.ndarray:
        seen.graph = graph
        seen.losses.append(original(graph, *arguments))
        return seen.losses[-1]

    TrainGraph.run = run  # type: ignore[assignment, method-assign]
    try:
        yield seen
    finally:
        TrainGraph.run = original  # type: ignore[method-assign]


@contextmanager
def _precision(dtype: str) -> Iterator[None]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(1)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def _data(training: Training) -> Any:
    floats = np.dtype(training.dtype)
    return tf.nest.map_structure(
        lambda each: each.astype(floats) if each.dtype == "float64" else each, training.data(training.size)
    )


def _values(named: Mapping[str, Any]) -> np.ndarray:
    return np.array([float(np.mean(np.asarray(named[name]))) for name in sorted(named)])


def _weights(model: keras.Model) -> np.ndarray:
    return _flat([each.numpy() for each in model.weights if "seed" not in each.path])


def _flat(arrays: Any) -> np.ndarray:
    return np.concatenate([np.ravel(each) for each in arrays])


def _expected_traces(training: Training) -> int:
    """Return one, or two where a smaller last step needs a trace of its own."""
    last = training.size % BATCH
    fewer = last < tf.distribute.get_strategy().num_replicas_in_sync
    return 2 if training.size > BATCH and last and (fewer or training.xla) else 1


if __name__ == "__main__":
    sys.exit(main())
