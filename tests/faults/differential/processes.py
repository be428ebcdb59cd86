"""Processes that train cases, one for each way of training, kept for as long as they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field

import numpy as np

from tests.faults.differential.cases import Case

WAYS = {
    "keras": ("keras", 1),
    "1 replica": ("cpu_replicas", 1),
    "2 replicas": ("cpu_replicas", 2),
    "4 replicas": ("cpu_replicas", 4),
}
LASTS = 100  # cases, after which a process makes place for a fresh one


@dataclass(frozen=True)
class Answer:
    """What came of a case: its numbers, or why there are none."""

    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    refused: str = ""
    failed: str = ""


class Trainers:
    """A process a way of training; all of them train a case at the same time."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._answered: dict[str, int] = {}

    def answers(self, case: Case) -> dict[str, Answer]:
        """Return what came of a case, by the way of training."""
        line = json.dumps(asdict(case)) + "\n"
        for way in WAYS:
            process = self._process(way)
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        return {way: self._answer(way) for way in WAYS}

    def stop(self, way: str | None = None) -> None:
        """End one process, or all; the next case starts it again."""
        for name in [way] if way else list(self._running):
            process = self._running.pop(name, None)
            if process is not None:
                process.kill()
                process.communicate()

    def _process(self, way: str) -> subprocess.Popen[str]:
        if self._answered.get(way, 0) >= LASTS:
            self.stop(way)
        if way not in self._running:
            kind, replicas = WAYS[way]
            self._answered[way] = 0
            self._running[way] = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.differential.training", kind, str(replicas)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        return self._running[way]

    def _answer(self, way: str) -> Answer:
        process = self._running[way]
        assert process.stdout is not None
        word, _, rest = process.stdout.readline().rstrip("\n").partition(" ")
        self._answered[way] += 1
        if word == "done":
            with np.load(rest) as file:
                return Answer(dict(file))
        if word == "refused":
            return Answer(refused=json.loads(rest))
        self.stop(way)  # what has failed may have left more behind than an exception
        return Answer(failed=json.loads(rest) if rest else "the process ended without an answer")
