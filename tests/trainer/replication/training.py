"""`python -m tests.trainer.replication.training`: the trainings of a table under one strategy, to a file of arrays.

A process can hold one number of CPU replicas, so each has a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.trainer.replication.cases import BATCH, Training
from trainer.build import synchronise_batch_norm
from trainer.compiling import prepare
from trainer.config.data import Resident
from trainer.config.strategy import StrategyConfig, StrategyKind
from trainer.data.feed import by_seed, feed_of, in_file_order
from trainer.fitting import as_source, batches_of, class_weights, example_of
from trainer.graph import EvaluationGraph, PredictionGraph, TrainGraph
from trainer.replica import Step
from trainer.strategy import make_strategy


def main() -> int:
    """Run a table of trainings and write what they give: `<training>/<what>`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="module with TRAININGS")
    parser.add_argument("kind", help="strategy")
    parser.add_argument("replicas", type=int)
    parser.add_argument("file")
    given = parser.parse_args()
    single = given.kind == "single"
    strategy = make_strategy(StrategyConfig(kind=StrategyKind(given.kind), replicas=None if single else given.replicas))
    found: dict[str, np.ndarray] = {}
    for name, training in importlib.import_module(given.table).TRAININGS.items():
        dtype = "float64" if training.precise else "float32"
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        print(name, flush=True)
        with strategy.scope():
            found |= {f"{name}/{what}": value for what, value in trained(training).items()}
    if strategy.num_replicas_in_sync == 1 or strategy.extended.should_checkpoint:
        np.savez(given.file, **found)  # type: ignore[arg-type]
    return 0


def trained(training: Training) -> dict[str, np.ndarray]:
    """Train, evaluate and predict in the current scope; return every number that comes of it."""
    keras.utils.set_random_seed(1)
    data = training.data(training.size)
    if not training.precise:
        data = tf.nest.map_structure(lambda each: each.astype("float32") if each.dtype == "float64" else each, data)
    source = as_source(data)
    batches = batches_of(source, BATCH, tf.distribute.get_strategy().num_replicas_in_sync)
    model = training.build()
    synchronise_batch_norm(model, synchronised=True)
    prepare(model, example_of(source))
    step = Step(model, class_weights=class_weights(training.class_weight))
    graph = TrainGraph(step, feed_of(source, batches, by_seed(0, batches.size), Resident.AUTO))
    graph.begin(0)
    losses = [graph.run(epoch, 0, batches.steps) for epoch in range(training.epochs)]
    counted = measured(model)
    model.reset_metrics()
    feed = feed_of(source, batches, in_file_order, Resident.NEVER)
    EvaluationGraph(step, feed).run()
    outputs = tf.nest.flatten(PredictionGraph(step, feed).run())
    return {
        "losses": np.concatenate(losses),
        "training metrics": counted,
        "evaluation metrics": measured(model),
        "predictions": np.concatenate([np.ravel(each) for each in outputs]),
        "weights": np.concatenate([np.ravel(each.numpy()) for each in model.weights if "seed" not in each.path]),
        "traces": np.array(graph.traces() - 1 - bool(batches.last and batches.full) * 1),
    }


def measured(model: keras.Model) -> np.ndarray:
    """Return the values of all metrics in their order."""
    return np.array([float(np.asarray(value)) for value in model.get_metrics_result().values()])


def variables(model: keras.Model) -> dict[str, Any]:
    """Return the values of all variables by path."""
    return {each.path: each.numpy() for each in model.variables}


if __name__ == "__main__":
    sys.exit(main())
