"""Faults injected into the system calls of a real writer: strace attached to a process that is about to save."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = [
    "openat",
    "mkdir",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "close",
    "rename",
    "unlinkat",
    "unlink",
    "rmdir",
    "flock",
    "getdents64",
]
FILES = ["weights.safetensors", "optimizer.safetensors", "optimizer-00001-of-00002.safetensors", "state.safetensors"]
FILES += ["model.json", "config.yaml", "manifest.json"]


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended."""

    code: int  # exit code of the writer; negative: the signal that ended it
    said: list[str]  # what it printed until then
    hit: bool  # whether the fault was injected at all
    log: str  # strace's


class Injector:
    """Runs scenarios of `tests.nameplate.checkpoint.writer` in forks of one warm process, with or without a fault."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, run: Path, scenario: str, *inject: str, options: tuple[str, ...] = ()) -> Outcome:
        """Run `scenario` on the directory `run` with strace's `inject` expressions, as in
        `fsync:error=EIO:when=3`.
        """
        pid = int(self._ask({"run": str(run), "scenario": scenario}))
        log = run.with_name(f"{run.name}.strace")
        faults = [word for each in inject for word in ("-e", f"inject={each}")]
        watched = [word for path in _paths(run) for word in ("-P", str(path))]
        command = ["strace", "-p", str(pid), "-o", str(log), "-e", f"trace={','.join(_traced(inject))}"]
        with subprocess.Popen([*command, *faults, *watched, *options], stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            attached = strace.stderr.readline()
            os.kill(pid, signal.SIGCONT)
            code = int(self._answer())
            strace.communicate()
        if "attached" not in attached:
            pytest.skip(f"strace cannot attach here: {attached.strip()}")
        text = log.read_text()
        said = run.with_name(f"{run.name}.said").read_text().splitlines()
        return Outcome(code, said, "INJECTED" in text or "SIGKILL" in text, text)

    def _ask(self, request: dict[str, str]) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


@contextmanager
def injector() -> Iterator[Injector]:
    """Start the writer; skips where there is no strace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.nameplate.checkpoint.writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Injector(server)
        assert server.stdin is not None
        server.stdin.close()


def count(outcome: Outcome, call: str) -> int:
    """Return how often the traced process made `call` on a watched path."""
    return len(re.findall(rf"^{call}\(", outcome.log, re.MULTILINE))


def _traced(inject: tuple[str, ...]) -> list[str]:
    return sorted({each.split(":")[0] for each in inject}) if inject else CALLS


def _paths(run: Path) -> Iterator[Path]:
    """Every path that the scenarios touch; strace watches exact paths only."""
    directory = run / "checkpoints"
    yield from (run, run / ".lock", directory, directory / "latest", directory / ".pointing-latest-00000000")
    for step in (1, 2, 10**9):
        name = f"step_{step:08d}"
        for hidden in (name, *(f".{word}-{name}-00000000" for word in ("saving", "deleting", "replaced", "probing"))):
            yield directory / hidden
            yield from (directory / hidden / file for file in FILES)
