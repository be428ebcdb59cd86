"""Start the workers of one run on this machine, to try what a cluster would do.

    python -m scripts.launch --workers 2 -- run=try model=mlp

What follows `--` goes to `python -m trainer`; `strategy=multi_worker` is added. When a worker ends with an error the
others end too, and the exit code is what it failed with, or 143 where all can start again.
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
PATIENCE = 60.0  # seconds that workers have to end by themselves after one of them has failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the workers, wait for them, and return one exit code for all."""
    parser = argparse.ArgumentParser(prog="python -m scripts.launch", description="Start the workers of one run here.")
    parser.add_argument("--workers", type=int, default=2, help="how many processes")
    parser.add_argument("overrides", nargs="*", help="what `python -m trainer` takes")
    given = parser.parse_args(arguments)
    if given.workers < 1:
        parser.error(f"argument --workers: {given.workers} is too small; at least 1")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(given.workers)]
    command = [sys.executable, "-m", "trainer", LAUNCHED, *given.overrides]
    os.environ[LAUNCHER] = f"{tool('python')} -m scripts.launch --workers {given.workers} --"
    workers = [subprocess.Popen(command, env=environment(addresses, index)) for index in range(given.workers)]

    def pass_on(number: int, _: object) -> None:
        for worker in workers:
            if alive(worker):
                worker.send_signal(number)

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(each, pass_on)
    return outcome([code % 256 if code >= 0 else 128 - code for code in wait(workers)])


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def environment(addresses: Sequence[str], index: int) -> dict[str, str]:
    """Return the environment of a worker, with TF_CONFIG."""
    config = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(config)}


def wait(workers: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all workers; once one has failed, the others have so long to find out, then they are killed."""
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


def outcome(codes: Sequence[int]) -> int:
    """Return one code for all: what a worker failed with, or that they can start again, or 0.

    A failure of one ends the others as if they had lost it, so it counts before their 143; a worker that was killed
    did not fail, and the 143 of those that it left says so.
    """
    failures = [code for code in codes if 0 < code < SIGNALLED]
    ended = [code for code in codes if code]
    again = [code for code in ended if code in (Exit.INTERRUPTED, Exit.TERMINATED)]
    return int(next(iter([*failures, *again, *ended]), 0))


if __name__ == "__main__":
    sys.exit(main())
