"""Sweeps for tests: called in this process, their jobs forked from one that has imported TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State

SMALL = ["model=mlp", "data.limit=40", "fit.steps=2", "fit.global_batch=8", "schedule=constant", "sweep=warm"]
SMALL += ["log.layer_table=false", "log.tensorboard=false", "strategy=single"]

# A model of the user's own whose building goes wrong in the way that it is told.
WRONG = """
import ctypes
import os
import signal
import time

import keras

from nameplate.engine.signals import asked_to_stop


def build(input_shape, classes, how="well", where=""):
    x = keras.Input(input_shape, name="x")
    if how == "error":
        raise ArithmeticError("it cannot be built")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(7)
    if how == "waits" and not os.path.exists(os.path.join(where, "waits")):
        open(os.path.join(where, "waits"), "w").close()
        while not asked_to_stop():
            time.sleep(0.01)
    if how == "memory":
        raise MemoryError("all of it is used")
    return keras.Model(x, keras.layers.Dense(classes, name="y")(keras.layers.Flatten(name="flat")(x)), name="mine")
"""


OWN = ["model=custom", "model._target_=wrong.build", "trust=[wrong]"]


def write_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the module of `WRONG` importable."""
    (folder / "wrong.py").write_text(WRONG)
    monkeypatch.syspath_prepend(str(folder))


def sweep(runs: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a sweep of small jobs and return its exit code."""
    from trainer.sweep import control

    monkeypatch.setattr(sys, "argv", ["trainer"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # put back afterwards
    monkeypatch.setenv("NAMEPLATE_SWEEP_BEGAN", "")
    return control.sweep(["-m", f"runs={runs}", *SMALL, *overrides])


def records(runs: Path, name: str = "sweep") -> list[JobRecord]:
    """Return the jobs of a sweep as its ledger has them."""
    return Ledger(runs / name).records()


def states(runs: Path, name: str = "sweep") -> list[tuple[State, int]]:
    """Return the state of each job, and how often it was begun."""
    return [(each.state, each.attempts) for each in records(runs, name)]
