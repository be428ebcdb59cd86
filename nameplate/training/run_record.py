"""What a run has left behind, as values: its measurements, its checkpoints, its settings. Nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nameplate import checkpoint as store
from nameplate.arguments import checked
from nameplate.checkpoint.location import NoCheckpointError, choose, find
from nameplate.checkpoint.remote import url_of
from nameplate.errors import as_path
from nameplate.training.run_directory import RunDirectory


@dataclass(frozen=True)
class RunRecord:
    """A run's directory, read when it is asked for; a run in progress may be read too."""

    path: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Every record in the order of its step: step, epoch, kind ("train" or "epoch") and the measured values."""
        path = RunDirectory(self.path).metrics
        lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
        return [record for record in map(_record, lines) if record]

    @property
    def history(self) -> dict[str, list[float]]:
        """The values at the end of each epoch, by name."""
        series: dict[str, list[float]] = {}
        for record in self.metrics:
            for name, value in record.items() if record.get("kind") == "epoch" else ():
                if name not in ("step", "epoch", "kind"):
                    series.setdefault(name, []).append(value)
        return series

    @property
    def checkpoints(self) -> dict[int, Mapping[str, float]]:
        """The values measured at each step that has a checkpoint."""
        found: dict[int, Mapping[str, float]] = {}
        for path in store.checkpoints(RunDirectory(self.path).checkpoints):
            with store.open(path) as checkpoint:
                found[checkpoint.step] = dict(checkpoint.manifest.metrics)
        return found

    @property
    def best(self) -> Path:
        """The best good checkpoint; the newest where nothing was measured."""
        return self.checkpoint("best")

    @property
    def latest(self) -> Path:
        """The newest good checkpoint."""
        return self.checkpoint("latest")

    @property
    def config(self) -> str:
        """The resolved configuration of the last start, as text (YAML)."""
        return RunDirectory(self.path).config.read_text("utf-8")

    def checkpoint(self, which: str | int) -> Path:
        """Return the path of the `best`, the `latest`, or the checkpoint of a step.

        Raises:
            StoreError: there is none, or none is good.
        """
        return choose(str(self.path), which, lambda path, error: None)


@checked
def open_run(path: str | os.PathLike[str]) -> RunRecord:
    """Return the run at a path.

    Raises:
        StoreError: `path` is not a run; the message has what is there or nearby.
    """
    place = as_path(path)
    if url_of(place) and (copied := find(str(place)).directory):
        place = copied.parent
    if not (place / "metrics.jsonl").is_file() and find(str(place)).directory is None:
        raise NoCheckpointError(f"{place} is one checkpoint; name its run.")
    return RunRecord(place)


def _record(line: str) -> dict[str, Any] | None:
    """Return a line of `metrics.jsonl`; None if it is damaged or cut short."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole else None
