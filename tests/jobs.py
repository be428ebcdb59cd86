"""Jobs in processes of their own that start in under a second: forked from one that has imported TensorFlow."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path
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
