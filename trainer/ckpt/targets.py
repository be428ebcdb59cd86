"""What the editing commands write: a plain safetensors file, or a run with one checkpoint; never over anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models import store
from models.store import layout
from models.weights import Weights
from trainer.places import CHECKPOINTS, PlaceError
from trainer.sources import SUFFIX, Source


def write(
    target: str,
    source: Source,
    *,
    weights: Weights,
    optimizer: Weights,
    state: Weights,
    edit: Mapping[str, Any],
    classes: Mapping[str, str] | None = None,
) -> Path:
    """Write arrays to `target` and return what was written.

    A path that ends in `.safetensors` becomes a plain file with the weights alone; any other is a run, whose
    checkpoint has the step, metrics and texts of `source`, and `edit` added to its provenance. Raises `StoreError`
    when something is there already.
    """
    path = Path(target)
    if path.name.endswith(SUFFIX):
        _refuse_existing(path)
        store.save_tensors(path, dict(weights), metadata={"step": str(source.step), "from": source.label})
        return path
    directory = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    _refuse_existing(directory / layout.step_name(source.step))
    snapshot = _snapshot(source, dict(weights), dict(optimizer), dict(state), edit, classes)
    with store.RunLock(directory.parent):
        store.probe(directory)
        written = store.save(directory, snapshot)
        store.point(directory, "latest", written)
    return written


def refuse_existing(target: str, source: Source) -> None:
    """Raise now what `write` would raise after the work was done."""
    path = Path(target)
    directory = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    _refuse_existing(path if path.name.endswith(SUFFIX) else directory / layout.step_name(source.step))


def classes_of(source: Source) -> dict[str, str]:
    """Return the class of the layer of each variable, as far as `source` knows."""
    if source.checkpoint is None:
        return {}
    records = source.checkpoint.weights.records
    return {name: record.layer_class for name, record in records.items() if record.layer_class}


def _snapshot(
    source: Source,
    weights: Mapping[str, np.ndarray],
    optimizer: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    edit: Mapping[str, Any],
    classes: Mapping[str, str] | None,
) -> store.Snapshot:
    content = source.checkpoint.manifest if source.checkpoint else None
    about = dict(content.about) if content else {}
    edits = about.get("edits", [])
    about["edits"] = [*(edits if isinstance(edits, list) else []), {**edit, "from": source.label}]
    return store.Snapshot(
        step=source.step,
        epoch=content.epoch if content else 0,
        position=content.position if content else 0,
        weights=weights,
        optimizer=optimizer,
        state=state,
        metrics=content.metrics if content else {},
        model=source.checkpoint.model if source.checkpoint else "",
        config=source.checkpoint.config if source.checkpoint else "",
        about=about,
        classes=classes_of(source) if classes is None else classes,
    )


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise PlaceError(f"{path} is there already; nothing is written over. Choose another path, or move it away.")
