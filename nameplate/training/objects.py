"""A whole run of live objects: a model, data, a loss, as `nameplate.train` takes them instead of a configuration."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import keras

from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean
from nameplate.training.config import CheckpointConfig
from nameplate.training.fit import fit
from nameplate.training.monitor import numbers
from nameplate.training.remote_run import local_run
from nameplate.training.report import Report
from nameplate.training.run_record import RunRecord

_COMPILED = ("loss", "optimizer", "metrics", "loss_weights", "weighted_metrics")
_FITTED = tuple(name for name in inspect.signature(fit).parameters if name not in ("model", "data"))


def train_objects(model: Any, data: Any, **objects: Any) -> Report:
    """Compile a model if a loss is among the objects, train it in its run, and return what came of it.

    Raises:
        NameplateError: with every object that is missing or unknown; and as `fit`.
    """
    _require_usable(model, data, objects)
    compiled = {key: objects.pop(key) for key in _COMPILED if key in objects}
    if compiled:
        with model.distribute_strategy.scope():
            model.compile(**{"optimizer": "adam", **compiled})
    history = fit(model, data, **objects)
    path, checkpoint = Path(objects["run"]), objects.get("checkpoint") or CheckpointConfig()
    return _report(local_run(path.parent, path.name, checkpoint.remote_cache), model, history)


def _require_usable(model: Any, data: Any, objects: dict[str, Any]) -> None:
    known = [*_COMPILED, *_FITTED]
    problems = [
        f"{key}=...: there is no such argument.{did_you_mean(key, known)}" for key in objects if key not in known
    ]
    if not isinstance(model, keras.Model):
        problems.append(f"model: {type(model).__name__} is not a keras.Model")
    elif "loss" not in objects and not model.compiled:
        problems.append(f"loss: {model.name!r} is not compiled; give a loss, or call model.compile(...) first")
    if data is None and objects.get("x") is None:
        problems.append("data: missing; give (x, y), a tf.data.Dataset, or x=...")
    if objects.get("run") is None:
        problems.append("run: missing; give the path of a directory, e.g. run='runs/mine'")
    if problems:
        raise NameplateError("\n".join(problems))


def _report(path: Path, model: keras.Model, history: keras.callbacks.History) -> Report:
    values = numbers({name: series[-1] for name, series in history.history.items() if series})
    with store.open(RunRecord(path).latest) as checkpoint:
        steps, best = checkpoint.step, checkpoint.manifest.about["best"]
    value = None if best["value"] is None else float(best["value"])
    return Report(path, steps, best["monitor"], value, values, dict(history.history), model)
