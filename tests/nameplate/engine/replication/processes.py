"""Tables of trainings, each number of replicas in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scripts.launch import environment, free_ports
from tests.nameplate.engine.replication.comparing import Numbers

LIMIT = 1800.0  # seconds of a process, on a busy machine
STRATEGIES = {
    "keras": ("keras", 1, 1),  # model.fit itself, on one device
    "one device": ("single", 1, 1),
    "1 replica": ("cpu_replicas", 1, 1),
    "2 replicas": ("cpu_replicas", 2, 1),
    "4 replicas": ("cpu_replicas", 4, 1),
    "2 workers": ("multi_worker", 2, 2),
    "2 workers, 2 replicas each": ("multi_worker", 4, 2),
}


def run_table(table: str, place: Path, strategies: Iterable[str] = STRATEGIES) -> dict[str, Numbers]:
    """Run a table of trainings under each strategy, two at a time; return their numbers by strategy."""
    with ThreadPoolExecutor(2) as pool:
        runs = {name: pool.submit(_run, table, place / f"{name}.npz", *STRATEGIES[name]) for name in strategies}
        for each in runs.values():
            each.result()
    return {name: dict(np.load(place / f"{name}.npz")) for name in runs}


def _run(table: str, file: Path, kind: str, replicas: int, workers: int) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.nameplate.engine.replication.training",
        table,
        kind,
        str(replicas),
        str(file),
    ]
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
