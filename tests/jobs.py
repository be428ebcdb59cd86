"""Jobs in processes of their own that start in under a second: forked from one that has imported TensorFlow."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np

from tests.trainer.running import QUICK

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["trainer.run", "tests.jobs"])  # nothing is computed by importing them


def run_job(runs: Path, *overrides: str, kill_at: int | None = None, restored: Path | None = None) -> int:
    """Train in a process of its own and return its exit code, -9 when it was killed.

    Args:
        runs: where `my_nets` is, too.
        overrides: as on the command line.
        kill_at: the call of the model's `Tells` layer, over all replicas, in which the process kills itself.
        restored: end when the state is restored, and write it there.
    """
    process = CONTEXT.Process(target=_job, args=(runs, overrides, kill_at, restored))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run_module(
    words: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Do what `python -m` does with these words, a module and its arguments, in a process that starts at once.

    It is forked from one that has imported TensorFlow; whatever a command prints and its exit code are those of
    `python -m`. Tests of the start itself, of what is imported and when, need a process of their own.
    """
    with tempfile.TemporaryDirectory() as place:
        streams = [Path(place) / name for name in ("out", "err")]
        own = dict(os.environ if environment is None else environment)
        process = CONTEXT.Process(target=_module, args=(list(words), str(cwd or Path.cwd()), own, streams))
        process.start()
        process.join()
        assert process.exitcode is not None
        output, errors = (path.read_text(encoding="utf-8") for path in streams)
        return CompletedProcess(list(words), process.exitcode, output, errors)


def _module(words: list[str], cwd: str, environment: dict[str, str], streams: Sequence[Path]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # open to the end of the process
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.path[:0] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _job(runs: Path, overrides: tuple[str, ...], kill_at: int | None, restored: Path | None) -> None:
    sys.stdout = (runs / "said").open("a", encoding="utf-8")
    sys.path.insert(0, str(runs))
    from nameplate.training.loop import Loop
    from trainer.config import run_config
    from trainer.run import train

    calls = iter(range(1, 100_000))

    def kill(place: str) -> None:
        if place == "step" and next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(loop: Loop) -> None:
        assert loop.checkpoints is not None
        assert restored is not None
        held = loop.checkpoints._state.capture()
        named: dict[str, Any] = {
            f"{group}:{name}": each for group, found in held.items() for name, each in found.items()
        }
        np.savez(restored, **named)
        raise SystemExit(0)

    nets: Any = importlib.import_module("my_nets")
    nets.HOOK = kill
    if restored is not None:
        Loop.run = write  # type: ignore[assignment, method-assign]
    train(run_config([f"runs={runs}", *QUICK, *overrides]))
