"""Runs that someone else prepared: a text in a checkpoint is replaced, and size and hash in the manifest say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from xxhash import xxh3_128_hexdigest

from nameplate import checkpoint as store
from nameplate.checkpoint import layout, manifest
from nameplate.checkpoint.reading import read_manifest


def newest(run: Path) -> Path:
    """Return the newest checkpoint of a run."""
    return store.checkpoints(run / "checkpoints")[-1]


def with_text(run: Path, name: str, text: str) -> None:
    """Replace a text of a run's newest checkpoint, e.g. `config.yaml`, so that every hash holds."""
    path = newest(run)
    content = read_manifest(path)
    data = text.encode()
    (path / name).write_bytes(data)
    record = replace(content.files[name], size=len(data), xxh3=xxh3_128_hexdigest(data))
    (path / layout.MANIFEST).write_bytes(manifest.encode(replace(content, files={**content.files, name: record})))


def with_config(run: Path, **sections: Any) -> None:
    """Replace sections of a run's stored configuration, in its newest checkpoint and beside it."""
    with store.open(newest(run)) as checkpoint:
        config = yaml.safe_load(checkpoint.config)
    text = yaml.safe_dump({**config, **sections})
    with_text(run, layout.CONFIG, text)
    (run / layout.CONFIG).write_text(text)


def with_model(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the configuration of the Keras model in a run's newest checkpoint."""
    with store.open(newest(run)) as checkpoint:
        config = json.loads(checkpoint.model)
    change(config)
    with_text(run, layout.MODEL, json.dumps(config))


def copied(run: Path, to: Path) -> Path:
    """Return a copy of a run that a test may change."""
    shutil.copytree(run, to, symlinks=True)
    return to
