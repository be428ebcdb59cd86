"""What a job's process is given: plain data that travels through a pipe."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.config.run import RunConfig
from trainer.ledger.record import Record


@dataclass(frozen=True)
class Spec:
    """One job, ready to begin."""

    config: RunConfig  # run is the job, runs the sweep's directory
    record: Record  # as it is while the job runs
    directory: Path  # of the sweep
    environment: Mapping[str, str]
    search: tuple[str, ...]  # sys.path
    cores: tuple[int, ...] | None  # None: all
    records: bool = True  # this process writes how the job ended: not one that follows another worker of it

    @property
    def home(self) -> Path:
        """Return the job's directory."""
        return self.directory / self.record.job

    @property
    def output(self) -> Path:
        """Return the file of all that the job says; a worker that follows has one of its own."""
        return self.home / ("output.log" if self.records else f"output-{socket.gethostname()}-{os.getpid()}.log")

    @property
    def failure(self) -> Path:
        """Return the file of what ended the job; there is none for one that did well."""
        return self.home / "failure.txt"


def write_failure(path: Path, text: str) -> None:
    """Write what ended a job; a full disk must not hide it."""
    try:
        path.write_text(text if text.endswith("\n") else f"{text}\n", "utf-8")
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error}\n")
