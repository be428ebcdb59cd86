"""Starts the workers of one run on this machine, to try out what a cluster would do.

    python -m scripts.launch --workers 2 -- run=try model=mlp

What follows `--` goes to `python -m trainer`; `strategy=multi_worker` is added. When a worker fails, the others stop
too; the exit code is that of the failure, or 143 if all of them can be restarted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from nameplate.engine.cluster import LAUNCHED, LAUNCHER
from nameplate.errors import Exit
from nameplate.training.console import tool

SIGNALLED = 128  # codes from here on are those of a signal
PATIENCE = 60.0  # seconds that the other workers have to stop by themselves after one has failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the workers, wait for them, and return one exit code for all."""
    parser = argparse.ArgumentParser(prog="python -m scripts.launch", description="Start the workers of one run here.")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("overrides", nargs="*", help="arguments of `python -m trainer`")
    parsed = parser.parse_args(arguments)
    if parsed.workers < 1:
        parser.error(f"argument --workers: {parsed.workers} is too small; at least 1")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(parsed.workers)]
    command = [sys.executable, "-m", "trainer", LAUNCHED, *parsed.overrides]
    os.environ[LAUNCHER] = f"{tool('python')} -m scripts.launch --workers {parsed.workers} --"
    workers = [subprocess.Popen(command, env=environment(addresses, index)) for index in range(parsed.workers)]

    def pass_on(number: int, _: object) -> None:
        for worker in workers:
            if alive(worker):
                worker.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)
    return exit_code_of([code % 256 if code >= 0 else 128 - code for code in wait(workers)])


def free_ports(count: int) -> list[int]:
    """Return free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


def environment(addresses: Sequence[str], index: int) -> dict[str, str]:
    """Return the environment of a worker, with TF_CONFIG."""
    config = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(config)}


def wait(workers: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all workers; after one has failed, the others are killed if they do not stop within `PATIENCE`."""
    end = None
    while any(alive(worker) for worker in workers):
        failed = any(worker.poll() not in (None, 0) for worker in workers)
        end = end or (time.monotonic() + PATIENCE if failed else None)
        if end and time.monotonic() > end:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return [worker.wait() for worker in workers]


def alive(worker: subprocess.Popen[bytes]) -> bool:
    """Say whether a worker still runs."""
    return worker.poll() is None


def exit_code_of(codes: Sequence[int]) -> int:
    """Return one exit code for all: that of a failure, else the one that asks for a restart, else 0.

    When one worker fails the others stop with 143, because they have lost it; so the failure counts first. A worker
    that was killed did not fail, and the 143 of the others counts.
    """
    failures = [code for code in codes if 0 < code < SIGNALLED]
    ended = [code for code in codes if code]
    again = [code for code in ended if code in (Exit.INTERRUPTED, Exit.TERMINATED)]
    return int(next(iter([*failures, *again, *ended]), 0))


if __name__ == "__main__":
    sys.exit(main())
