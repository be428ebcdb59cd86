"""The best model of a run as a `.keras` file that plain Keras loads: its names, its weights, its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import models
from models import bridge, store
from models.custom import custom_objects
from models.errors import NameplateError
from models.tree import seeds, walk

EXAMPLES = 2  # that are shown to both models
# Both compute the same in float32, but not always by the same kernels: a replica's copy may be fused otherwise.
TOLERANCE = 1e-4


class ExportError(NameplateError):
    """A model that plain Keras would not load as it is; nothing was left at its path."""


def export_best(model: keras.Model, checkpoints: Path, path: Path, *, example: Any) -> Path:
    """Write the weights of the best checkpoint, or the last where none is best, as a whole model to `path`.

    `example` has the model's inputs as KerasTensors, (None, ...).
    The file appears by one rename, after plain Keras has loaded it and both gave the same outputs for the same inputs.
    The model has its own weights again afterwards.

    Raises:
        ExportError: the loaded model has other names, or computes something else.
        NameplateError: the model cannot be saved as it is.
    """
    held = bridge.read(model)
    draft = path.with_name(f".saving-{path.name}")
    try:
        with store.open(_best(checkpoints)) as checkpoint:
            bridge.write(model, held | checkpoint.weights.load())
        models.save(model, draft)
        _prove(model, draft, _numbers(example))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
        bridge.write(model, held)
    return path


def _best(checkpoints: Path) -> Path:
    return store.resolve(checkpoints, "best") or store.checkpoints(checkpoints)[-1]


def _prove(model: keras.Model, path: Path, inputs: Any) -> None:
    """Load the file as anyone with Keras alone would, and compare names and outputs."""
    objects = custom_objects([model, *(entry.layer for entry in walk(model))])
    copy = keras.saving.load_model(path, custom_objects=objects, compile=False, safe_mode=False)
    drawn = {f"{name}/state" for name in seeds(model)}
    names, loaded = ({name for name in models.variables(each) if name not in drawn} for each in (model, copy))
    if names != loaded:
        differing = ", ".join(sorted(names ^ loaded)[:5])
        raise ExportError(f"{model.name!r} would have other names when plain Keras loads it: {differing}")
    before, after = (keras.tree.flatten(_call(each, inputs)) for each in (model, copy))
    for one, other in zip(before, after, strict=True):
        if not np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            gap = float(np.nanmax(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))))
            raise ExportError(f"{model.name!r} would compute something else when plain Keras loads it: {gap:.3g} away")


def _call(model: keras.Model, inputs: Any) -> Any:
    return keras.tree.map_structure(lambda each: np.asarray(each), model(inputs, training=False))


def _numbers(example: Any) -> Any:
    """Return numbers from 0 to 1 in the shapes of the inputs, unknown sizes taken as one; whole ones are 0."""
    source = np.random.default_rng(0)

    def numbers(tensor: Any) -> np.ndarray:
        shape = (EXAMPLES, *(size or 1 for size in tensor.shape[1:]))
        return source.random(shape).astype(str(tensor.dtype))

    return keras.tree.map_structure(numbers, example)
