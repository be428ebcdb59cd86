"""Sources of weights: a checkpoint or any file, as named arrays with all that goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint import location
from nameplate.formats.registry import is_weights, open_weights
from nameplate.weights.named import Weights
from nameplate.weights.plan import Form, forms_of

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class WeightSource:
    """Named arrays, not yet read; a plain file has only weights."""

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
        return forms_of(self.weights)

    @property
    def step(self) -> int:
        """The step at which the arrays were saved; 0 where a plain file does not say."""
        if self.checkpoint is not None:
            return self.checkpoint.step
        written: Mapping[str, str] = getattr(self.weights, "metadata", {})
        text = written.get("step", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0


@contextmanager
def open_source(text: str) -> Iterator[WeightSource]:
    """Open the checkpoint or the file of weights at the path `text`; for a run, its newest checkpoint."""
    if Path(text).is_file() and text.endswith(SUFFIX):
        yield WeightSource(text, store.open_tensors(Path(text)), {}, {}, None)
        return
    if is_weights(Path(text)):
        with open_weights(text) as arrays:
            yield WeightSource(text, arrays, {}, {}, None)
        return
    path = location.find_one(text)
    with store.open(path) as checkpoint:
        yield WeightSource(str(path), checkpoint.weights, checkpoint.optimizer, checkpoint.state, checkpoint)
