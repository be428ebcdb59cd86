"""The best model of a run as a `.keras` file that plain Keras loads: its names, weights, outputs and optimizer."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint import durable
from nameplate.engine.learning_rate import WarmupDecay, keras_schedule
from nameplate.engine.optimizer_state import inner_optimizer, named_variables
from nameplate.engine.private import learning_at, learning_rate_of
from nameplate.errors import NameplateError
from nameplate.graph import model_weights
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import seeds, walk

EXAMPLES = 2  # on which both models are compared
# Both compute the same in float32, but not always with the same kernels: a graph may be fused differently.
TOLERANCE = 1e-4
SAME_RATE = 1e-5  # of the highest: how far two formulas for one curve are apart in float32
_KERAS = ("keras", "builtins", "")  # packages whose classes plain Keras knows


class BestModelError(NameplateError):
    """Plain Keras would not load the model as it is; nothing was written to its path."""


@dataclass(frozen=True)
class Exported:
    """A file for plain Keras, and what a user must know to load it."""

    path: Path
    needs: tuple[str, ...]  # modules to import first, for classes that are not Keras' own
    code: bool  # it holds the Python code of a Lambda, which Keras runs only with safe_mode=False
    rate_gap: float  # the largest distance of its learning rate from the run's, as a fraction of the highest
    one_rate: bool  # rates by pattern are left out: its optimizer has a single one

    def notes(self) -> str:
        """Return what a user should know before loading it."""
        notes = [f"the best model is also in {self.path}, for plain Keras"]
        if self.needs:
            notes.append(f"first import {', '.join(self.needs)}, which has classes of the model")
        if self.code:
            notes.append("load it with safe_mode=False, for the Python function of a Lambda layer")
        if self.rate_gap > SAME_RATE:
            notes.append(f"its learning rate is within {100 * self.rate_gap:.2g} % of the highest of the run's curve")
        if self.one_rate:
            notes.append("its optimizer has one learning rate: Keras' files cannot hold optimizer.rates")
        return "; ".join(notes)


def export_best(
    model: keras.Model, checkpoints: Path, path: Path, *, example: Any, steps: int = 0, rates: bool = False
) -> Exported:
    """Write the model with the weights of the best checkpoint, or of the last if none is best, to `path`.

    A compiled model is compiled in the file too, with the optimizer's state of that checkpoint and a learning rate of
    Keras' own over the run's `steps`; `rates` says that some variables learn at other rates. `example` holds the
    model's inputs as KerasTensors, (None, ...). The file appears by one rename, once plain Keras has loaded it and both
    models have given the same outputs for the same inputs.
    The model has its own weights and state again afterwards.

    Raises:
        BestModelError: the loaded model has other names, or computes something else.
        NameplateError: the model cannot be saved as it is.
    """
    rate, schedule = _rates(model, steps)
    # One fixed name: the draft of a killed run is overwritten by the next.
    with (
        durable.replacement(path, temporary=path.with_name(f".saving-{path.name}")) as draft,
        _as_best(model, _best(checkpoints)),
        _learning_at(model, schedule),
    ):
        nameplate.save(model, draft)
        needs, code = _foreign(draft)
        _prove(model, draft, _numbers(example), plain=not (needs or code))
    return Exported(path, needs, code, _gap(rate, schedule, steps), rates)


@contextmanager
def _as_best(model: keras.Model, best: Path) -> Iterator[None]:
    """Inside, a model and its optimizer have the values of a checkpoint."""
    optimizer = getattr(model, "optimizer", None)
    own = named_variables(optimizer, nameplate.variables(model)) if optimizer is not None and optimizer.built else {}
    held, state = model_weights.read(model), {name: np.array(variable.numpy()) for name, variable in own.items()}
    try:
        with store.open(best) as checkpoint:
            model_weights.write(model, held | checkpoint.weights.load())
            saved = checkpoint.optimizer.load()
            saved |= {name.removeprefix("optimizer/"): value for name, value in checkpoint.state.load().items()}
        for name in own.keys() & saved.keys():
            own[name].assign(saved[name])
        yield
    finally:
        model_weights.write(model, held)
        for name, variable in own.items():
            variable.assign(state[name])


def _rates(model: keras.Model, steps: int) -> tuple[Any, Any]:
    """Return the learning rate of a model's optimizer, and the same in a form that plain Keras can load."""
    optimizer = getattr(model, "optimizer", None)
    rate = learning_rate_of(inner_optimizer(optimizer)) if optimizer is not None else None
    return rate, keras_schedule(rate, steps=steps)


def _learning_at(model: keras.Model, schedule: Any) -> Any:
    return nullcontext() if schedule is None else learning_at(inner_optimizer(model.optimizer), schedule)


def _gap(rate: Any, schedule: Any, steps: int) -> float:
    """Return the largest distance of two learning rates over the steps of a run, as a fraction of the highest."""
    if not isinstance(rate, WarmupDecay):
        return 0.0
    places = np.unique(np.linspace(0, max(steps - 1, 0), 256).astype(np.int64))
    found = [float(schedule(int(step))) if callable(schedule) else float(schedule) for step in places]
    return float(np.abs(rate.values(places) - np.array(found)).max()) / rate.rate


def _foreign(path: Path) -> tuple[tuple[str, ...], bool]:
    """Return the modules of classes in a `.keras` file that are not Keras' own, and whether it holds Python code."""
    with zipfile.ZipFile(path) as archive:
        waiting = [json.loads(archive.read("config.json"))]
    found, code = set(), False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            code = code or value.get("class_name") == "__lambda__"
            module = str(value.get("module") or "") if "class_name" in value else ""
            if module.partition(".")[0] not in _KERAS:
                found.add(module)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return tuple(sorted(found)), code


def _best(checkpoints: Path) -> Path:
    return store.best(checkpoints, lambda *_: None) or store.checkpoints(checkpoints)[-1]


def _prove(model: keras.Model, path: Path, inputs: Any, *, plain: bool) -> None:
    """Load the file as anyone would with plain Keras, and compare names and outputs."""
    objects = None if plain else custom_objects([model, *(entry.layer for entry in walk(model))])
    copy = keras.saving.load_model(path, custom_objects=objects, compile=False, safe_mode=plain)
    drawn = {f"{name}/state" for name in seeds(model)}
    names, loaded = ({name for name in nameplate.variables(each) if name not in drawn} for each in (model, copy))
    if names != loaded:
        differing = ", ".join(sorted(names ^ loaded)[:5])
        raise BestModelError(f"{model.name!r} would have other names when plain Keras loads it: {differing}")
    before, after = (keras.tree.flatten(_call(each, inputs)) for each in (model, copy))
    for one, other in zip(before, after, strict=True):
        if not np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            gap = float(np.nanmax(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))))
            raise BestModelError(
                f"{model.name!r} would compute something else when plain Keras loads it: {gap:.3g} away"
            )


def _call(model: keras.Model, inputs: Any) -> Any:
    return keras.tree.map_structure(lambda each: np.asarray(each), model(inputs, training=False))


def _numbers(example: Any) -> Any:
    """Return numbers from 0 to 1 in the shapes of the inputs, with 1 for unknown sizes; integers are 0."""
    source = np.random.default_rng(0)

    def numbers(tensor: Any) -> np.ndarray:
        shape = (EXAMPLES, *(size or 1 for size in tensor.shape[1:]))
        return source.random(shape).astype(str(tensor.dtype))

    return keras.tree.map_structure(numbers, example)
