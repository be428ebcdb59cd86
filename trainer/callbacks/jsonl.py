"""`metrics.jsonl`: every record of a run, one JSON object a line, each step once over all resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import keras

from models.store import durable
from models.store.errors import explained
from trainer.callbacks.observer import Journey, Observer, Record
from trainer.home import aside


class JsonLines(Observer):
    """Appends records to a file; what a killed process wrote past its last checkpoint is taken back on resume."""

    def __init__(self, path: Path, *, say: Callable[[str], None] = print) -> None:
        self._path, self._say = path, say
        self._file: TextIO | None = None

    def began(self, model: keras.Model, journey: Journey) -> None:
        """Open the file, without what comes after the step where the run goes on.

        A file with lines that cannot be read is set aside whole, and its other lines go on.
        """
        with explained("Writing", self._path):
            if self._path.exists():
                self._take_back(journey.first_step)
            self._file = self._path.open("a", encoding="utf-8")

    def _take_back(self, step: int) -> None:
        *lines, last = self._path.read_bytes().split(b"\n")
        if _step(last) is not None:  # else nothing, or what a kill cut short
            lines.append(last)
        steps = [_step(line) for line in lines]
        kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
        text = b"".join(line + b"\n" for line in kept)
        odd = [number for number, at in enumerate(steps, 1) if at is None]
        if odd:
            copy = aside(self._path)
            durable.write_file(copy, self._path.read_bytes())
            several = f"lines {', '.join(map(str, odd[:5]))}" if len(odd) > 1 else f"line {odd[0]}"
            more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
            self._say(f"{self._path.name}: {several}{more} cannot be read; left out, and all of it is in {copy.name}")
        durable.replace_file(self._path, text, temporary=durable.beside(self._path, ".new-"))

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


def _step(line: bytes) -> int | None:
    """Return the step of a line, None where it is not a record."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and step >= 0 else None
