"""The cost of a sweep: warm jobs against fresh processes, the ledger's share of a job, and composing a large grid.

    python -m scripts.bench.sweep [--jobs 12] [--grid 200]

Both sweeps run the same jobs from the command line, in turn, start and end included. The ledger's share is what it
writes and reads for one job, compared with a warm job, the shortest there is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State
from trainer.sweep.multirun import grid_of, request_of

LEAST = 4.0  # factor by which warm jobs are faster
MOST = {"ledger / job": 0.01, "composing / s": 10.0}
JOB = ["model=mlp", "data.limit=256", "fit.steps=4", "log.layer_table=false", "log.tensorboard=false"]


def main() -> int:
    """Print the ratios; return 1 if one exceeds its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--grid", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place)
        warm = seconds(lambda: sweep(runs, "warm", arguments.jobs))
        fresh = seconds(lambda: sweep(runs, "process", arguments.jobs))
        record = Ledger(runs / "warm").records()[-1]
        book = booked(runs / "ledger", record)
        composing = seconds(lambda: composed(arguments.grid))
    print(f"{arguments.jobs} jobs            process each {fresh:.1f} s, warm {warm:.1f} s")
    faster = fresh / warm
    print(f"process / warm        {faster:.2f}  at least {LEAST}  {'ok' if faster >= LEAST else 'TOO LITTLE'}")
    print(f"one job               {record.seconds:.2f} s, ledger {1000 * book:.1f} ms")
    ratios = {"ledger / job": book / record.seconds, "composing / s": composing}
    for name, ratio in ratios.items():
        print(f"{name:<20}  {ratio:.4f}  at most {MOST[name]}  {'ok' if ratio <= MOST[name] else 'TOO MUCH'}")
    return int(faster < LEAST or any(ratio > MOST[name] for name, ratio in ratios.items()))


def sweep(runs: Path, mode: str, jobs: int) -> None:
    """Run a sweep over seeds from the command line."""
    grid = [f"runs={runs}", f"run={mode}", f"seed=range({jobs})", f"sweep.mode={mode}"]
    command = [sys.executable, "-m", "trainer", "-m", *JOB, *grid]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def booked(directory: Path, record: JobRecord, *, rounds: int = 30) -> float:
    """Return the seconds that the ledger takes for one job: locked, planned, running, done, and read each time."""
    ledger = Ledger(directory)
    began = time.perf_counter()
    for _ in range(rounds):
        with ledger.hold(record.job):
            for state in (State.planned, State.running, State.done):
                ledger.commit(replace(record, state=state))
                ledger.record(record.job)
            last = ledger.record(record.job)
        assert last is not None
        assert last.state is State.done
    return (time.perf_counter() - began) / rounds


def composed(jobs: int) -> None:
    """Compose a grid over values and an option."""
    os.chdir(tempfile.gettempdir())
    grid = grid_of(request_of(["-m", f"seed=range({jobs // 2})", "model=mlp,convnet", "optimizer.learning_rate=0.01"]))
    assert grid is not None
    assert len(grid) == jobs // 2 * 2


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
