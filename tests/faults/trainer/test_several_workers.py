"""Two and three workers, each with one replica or two: one process' numbers, also when one of them is killed."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.jobs import run_job
from tests.trainer.running import assert_same, content, records
from tests.working import RANDOM, assert_alike, codes_of, write_module

OPTIONS = ["fit.steps=12", "fit.steps_per_loop=2", "data.limit=40", "data.augment=[shift]", "data.validation=0.1"]
OPTIONS += ["checkpoint.every_steps=3", "checkpoint.keep_last=99", "log.every_steps=1"]
TRAINING = [*RANDOM, *OPTIONS, "optimizer=adam"]


@pytest.fixture(scope="module", autouse=True)
def modules(runs: Path) -> None:
    write_module(runs)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("workers", "replicas", "batch"), [(2, 4, 8), (3, 3, 9)])
def test_several_workers_do_what_one_process_does(runs: Path, workers: int, replicas: int, batch: int) -> None:
    """With SGD: a bias before batch statistics has no gradient but rounding, which Adam would divide by itself."""
    options = [*OPTIONS, "optimizer=sgd", f"strategy.replicas={replicas}", f"fit.global_batch={batch}"]
    single = ["model=custom", "model._target_=my_nets.build_random", "trust=[my_nets]", "strategy=cpu_replicas"]
    assert run_job(runs, *single, *options, f"run=one_{workers}") == 0
    assert codes_of(runs, *RANDOM, *options, f"run=several_{workers}", workers=workers) == [0] * workers
    assert_alike(runs / f"one_{workers}", runs / f"several_{workers}", relative=1e-3)


@pytest.fixture(scope="module")
def untouched(runs: Path) -> Path:
    """Return the run of two workers that nothing happened to."""
    assert codes_of(runs, *TRAINING, "run=untouched") == [0, 0]
    return runs / "untouched"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("worker", [0, 1], ids=["the chief", "another"])
@pytest.mark.parametrize("call", [1, 5, 8])
def test_a_worker_that_is_killed_ends_all_and_the_same_command_goes_on(
    runs: Path, untouched: Path, worker: int, call: int
) -> None:
    run = f"killed_{worker}_{call}"
    codes = codes_of(runs, *TRAINING, f"run={run}", at=(worker, call))
    assert codes[worker] == -9
    assert codes[1 - worker] == 143
    goes_on(runs, run, untouched)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("worker", [0, 1], ids=["the chief", "another"])
def test_a_signal_to_one_worker_stops_all_at_the_same_step(runs: Path, untouched: Path, worker: int) -> None:
    run = f"stopped_{worker}"
    assert codes_of(runs, *TRAINING, f"run={run}", at=(worker, 5), sends=signal.SIGTERM) == [143, 143]
    assert json.loads((runs / run / "requeue.json").read_text())["step"] in range(5, 12)
    goes_on(runs, run, untouched)


def goes_on(runs: Path, run: str, untouched: Path) -> None:
    """Start an interrupted run again; fail unless it ends, bit for bit, as the one that nothing happened to."""
    for path in store.checkpoints(runs / run / "checkpoints"):
        assert store.verify(path) == []
    assert codes_of(runs, *TRAINING, f"run={run}") == [0, 0]
    assert_same(content(runs / run), content(untouched))
    assert records(runs / run) == records(untouched)
    shutil.rmtree(runs / run)
