"""Runs over several workers, each a process of its own on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.launch import environment, free_ports
from tests.trainer.running import QUICK, content, records

BOUND = 120.0  # seconds in which all end once one is gone, on a busy machine; 30 of them are the others' grace

# A worker may send itself a signal in one of its steps.
MODULE = """
import itertools, json, os, signal
import my_nets
from my_nets import build_random

calls = itertools.count(1)
worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def hook(where):
    if where == "step" and [worker, next(calls)] == json.loads(os.environ.get("AT", "[]")):
        os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])


my_nets.HOOK = hook
"""
RANDOM = ["model=custom", "model._target_=my_workers.build_random", "trust=[my_workers]"]


def write_module(runs: Path) -> None:
    """Write the models of runs over several workers."""
    (runs / "my_workers.py").write_text(MODULE)


def codes_of(
    runs: Path,
    *overrides: str,
    workers: int = 2,
    at: tuple[int, int] | None = None,
    sends: signal.Signals = signal.SIGKILL,
) -> list[int]:
    """Train over so many workers and return their exit codes, -9 for one that was killed.

    With `at` that worker sends itself the signal in that call of its model; all must then end within `BOUND`.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    command = [sys.executable, "-m", "trainer", "strategy=multi_worker", f"runs={runs}", *QUICK, *overrides]
    told = {} if at is None else {"AT": json.dumps(at), "SIGNAL": sends.name}
    path = os.pathsep.join([str(runs), str(Path.cwd())])
    processes = []
    for index in range(workers):
        with (runs / f"said_{index}").open("ab") as said:
            own = environment(addresses, index) | {"PYTHONPATH": path} | told
            processes.append(subprocess.Popen(command, env=own, stdout=said, stderr=subprocess.STDOUT))
    try:
        return [process.wait(timeout=None if at is None else BOUND) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def assert_alike(one: Path, other: Path, *, relative: float) -> None:
    """Fail unless two runs end with the same tensors and records, to rounding."""
    left, right = content(one), content(other)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_allclose(right[name], left[name], rtol=relative, atol=relative / 100, err_msg=name)
    for told, again in zip(records(one), records(other), strict=True):
        assert told.pop("kind") == again.pop("kind")
        assert again == pytest.approx(told, rel=relative)
