"""`python -m tests.faults.differential.training KIND REPLICAS`: one case after the other, from JSON lines to arrays.

A process can hold one number of CPU replicas, so each has a process of its own. KIND is `keras` for `model.fit` on one
device, or a strategy. A line is answered by a line: `done FILE`, `refused "why"` or `failed "traceback"`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import nameplate
from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.engine.strategy import make_strategy
from nameplate.errors import NameplateError
from tests.faults.differential.cases import Case, case_of
from tests.faults.differential.parts import callbacks_of, compiled, examples
from tests.faults.differential.structures import structure_of

Numbers = dict[str, np.ndarray]


def main() -> int:
    """Answer each line of standard input until it ends."""
    kind, replicas = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints must not look like an answer
    alone = kind in ("single", "keras")
    strategy = make_strategy(
        StrategyConfig(kind=StrategyKind("single" if alone else kind), replicas=None if alone else replicas)
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            file = Path(folder, f"{number}.npz")
            answers.write(_answer(case_of(json.loads(line)), kind, strategy, file) + "\n")
            keras.backend.clear_session()
            gc.collect()
    return 0


def _answer(case: Case, kind: str, strategy: tf.distribute.Strategy, file: Path) -> str:
    try:
        with strategy.scope():
            numbers = _numbers(case, ours=kind != "keras")
    except NameplateError as refused:
        return f"refused {json.dumps(str(refused))}"
    except Exception:
        return f"failed {json.dumps(traceback.format_exc()[-3000:])}"
    np.savez(file, **numbers)  # type: ignore[arg-type]
    return f"done {file}"


def _numbers(case: Case, *, ours: bool) -> Numbers:
    """Return every number that comes of training, evaluating and predicting, by what it is."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(case.seed)
    model = compiled(case, structure_of(case))
    data, held_out = examples(case, case.size, seed=case.seed), examples(case, case.held_out, seed=case.seed + 1000)
    heard: list[Any] = []
    history: dict[str, list[Any]] = {}
    for _ in range(1 + case.again):
        trained = _fit(case, model, data, held_out, callbacks_of(case, heard), ours=ours)
        for name, values in trained.history.items():
            history.setdefault(name, []).extend(values)
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    if ours:
        measured, predicted = nameplate.evaluate(model, data, batch_size=case.batch), nameplate.predict(model, x)
    else:
        measured = model.evaluate(x, y, sample_weight=weight, batch_size=case.batch, verbose=0, return_dict=True)
        predicted = model.predict(x, verbose=0)
    named = {f"weights/{place} {path}": value for place, (path, value) in enumerate(_weights(model))}
    logs = {f"history/{name}": np.array(values, np.float64) for name, values in history.items()}
    told = {f"evaluation/{name}": np.asarray(value, np.float64) for name, value in measured.items()}
    outputs = {f"predictions/{place}": np.asarray(each) for place, each in enumerate(tf.nest.flatten(predicted))}
    return named | logs | told | outputs | _heard(heard)


def _fit(case: Case, model: keras.Model, data: Any, held_out: Any, callbacks: list[Any], *, ours: bool) -> Any:
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    given: dict[str, Any] = {"x": x, "y": y, "sample_weight": weight, "batch_size": case.batch, "shuffle": False}
    if case.form == "dataset":
        given = {"x": tf.data.Dataset.from_tensor_slices(data).batch(case.batch)}
    given |= {"epochs": case.epochs, "callbacks": callbacks, "verbose": 0}
    given |= {"class_weight": {0: 3.0, 1: 0.0, 2: 1.5}} if case.class_weight else {}
    if case.held_out:
        given |= {"validation_data": held_out, "validation_freq": case.validation_freq}
        given |= {"validation_batch_size": 4}
    return nameplate.fit(model, **given) if ours else model.fit(**given)


def _weights(model: keras.Model) -> list[tuple[str, np.ndarray]]:
    return [(each.path.replace("/", "."), each.numpy()) for each in model.weights if "seed" not in each.path]


def _heard(heard: list[Any]) -> Numbers:
    """Return what callbacks heard: the events by name, and numbers in their order."""
    events = [each for each in heard if isinstance(each, str)]
    numbers = [each for each in heard if not isinstance(each, str)]
    return {"heard/events": np.array(events, dtype="U40"), "heard/numbers": np.array(numbers, np.float64)}


if __name__ == "__main__":
    sys.exit(main())
