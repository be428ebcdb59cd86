"""What the editing commands read: a checkpoint, or any file of weights, as weights and all that goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nameplate import checkpoint as store
from nameplate.formats.arrays import Arrays
from nameplate.formats.registry import is_weights, open_weights
from nameplate.training import run_directory
from nameplate.weights.named import Weights
from nameplate.weights.plan import Form

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class WeightSource:
    """Named arrays, not yet read; a plain file has weights alone."""

    label: str
    weights: Weights
    optimizer: Weights
    state: Weights
    checkpoint: store.Checkpoint | None

    @property
    def groups(self) -> dict[str, Weights]:
        """The arrays by group."""
        return {"weights": self.weights, "optimizer": self.optimizer, "state": self.state}

    @property
    def forms(self) -> dict[str, Form]:
        """Shape and dtype of every weight; reads none."""
        if isinstance(self.weights, Arrays):
            return dict(self.weights.forms)
        records: Mapping[str, Any] = getattr(self.weights, "entries", self.weights)
        records = self.checkpoint.weights.records if self.checkpoint else records
        return {name: Form(tuple(record.shape), record.dtype.name) for name, record in records.items()}

    @property
    def step(self) -> int:
        """The step that the arrays are of; 0 where a plain file does not say."""
        if self.checkpoint is not None:
            return self.checkpoint.step
        written: Mapping[str, str] = getattr(self.weights, "metadata", {})
        text = written.get("step", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0


@contextmanager
def open_source(text: str) -> Iterator[WeightSource]:
    """Open the checkpoint or the file of weights at the path `text`; of a run its newest checkpoint."""
    if Path(text).is_file() and text.endswith(SUFFIX):
        yield WeightSource(text, store.open_tensors(Path(text)), {}, {}, None)
        return
    if is_weights(Path(text)):
        with open_weights(text) as arrays:
            yield WeightSource(text, arrays, {}, {}, None)
        return
    path = run_directory.find_one(text)
    with store.open(path) as checkpoint:
        yield WeightSource(str(path), checkpoint.weights, checkpoint.optimizer, checkpoint.state, checkpoint)
