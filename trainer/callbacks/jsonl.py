"""`metrics.jsonl`: every record of a run, one JSON object a line, each step once over all resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TextIO

import keras

from trainer.callbacks.observer import Journey, Observer, Record


class JsonLines(Observer):
    """Appends records to a file; what a killed process wrote past its last checkpoint is taken back on resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def began(self, model: keras.Model, journey: Journey) -> None:
        """Open the file, without what comes after the step where the run goes on."""
        if self._path.exists():
            kept = [line for line in self._path.read_text("utf-8").splitlines() if _is_before(line, journey)]
            fresh = self._path.with_suffix(".tmp")
            fresh.write_text("".join(f"{line}\n" for line in kept), "utf-8")
            os.replace(fresh, self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def recorded(self, record: Record) -> None:
        """Write one line, at once."""
        assert self._file is not None
        head = {"step": record.step, "epoch": record.epoch, "kind": "epoch" if record.of_epoch else "train"}
        self._file.write(json.dumps(head | dict(record.values)) + "\n")
        self._file.flush()

    def ended(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _is_before(line: str, journey: Journey) -> bool:
    """Say whether a line is whole and of a step that the run keeps."""
    try:
        return int(json.loads(line)["step"]) <= journey.first_step
    except (ValueError, KeyError, TypeError):
        return False
