"""Runs of the table of trainings, each number of replicas in its own process, once a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.launch import environment, free_ports

LIMIT = 800.0  # seconds of a process, on a busy machine
Results = dict[str, dict[str, np.ndarray]]  # strategy -> `<training>/<what>` -> values
STRATEGIES = {
    "one device": ("single", 1, 1),
    "1 replica": ("cpu_replicas", 1, 1),
    "2 replicas": ("cpu_replicas", 2, 1),
    "4 replicas": ("cpu_replicas", 4, 1),
    "2 workers": ("multi_worker", 2, 2),
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the numbers of every training under every strategy."""
    return run_table("tests.trainer.replication.cases", tmp_path_factory.mktemp("replication"))


def run_table(table: str, place: Path, strategies: Any = STRATEGIES) -> Results:
    """Run a table of trainings under each strategy, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        done: list[tuple[str, Callable[[], Any]]] = [
            (name, pool.submit(_run, table, place / f"{name}.npz", *strategies[name]).result) for name in strategies
        ]
        for _, result in done:
            result()
    return {name: dict(np.load(place / f"{name}.npz")) for name in strategies}


def _run(table: str, file: Path, kind: str, replicas: int, workers: int) -> None:
    command = [sys.executable, "-m", "tests.trainer.replication.training", table, kind, str(replicas), str(file)]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = [
        subprocess.Popen(
            command,
            env=environment(addresses, index) if workers > 1 else os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(workers)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, f"{json.dumps(command)}\n{errors[-3000:]}"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
