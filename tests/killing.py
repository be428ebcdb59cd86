"""A short run with all that has a state, killed in a step and started again, against the one that was not."""

from __future__ import annotations

from pathlib import Path

from nameplate import checkpoint as store
from tests.jobs import run_job
from tests.nets import CUSTOM
from tests.trainer.running import about, assert_same, content, records

STEPS = 12  # five an epoch; a checkpoint each three steps and each epoch
OPTIONS = [*CUSTOM, "model._target_=my_nets.build_random", f"fit.steps={STEPS}", "fit.steps_per_loop=2"]
OPTIONS += ["data.limit=40", "data.augment=[shift,flip]", "data.validation=0.02", "checkpoint.every_steps=3"]
OPTIONS += ["optimizer=adam", "strategy=cpu_replicas", "log.every_steps=1"]


def whole(runs: Path, *overrides: str) -> Path:
    """Return the run that nothing happened to."""
    assert run_job(runs, *OPTIONS, *overrides, "run=whole") == 0
    return runs / "whole"


def killed(runs: Path, call: int, *overrides: str) -> Path:
    """Return the run that was killed in this call of its model and started again."""
    name = f"run=killed_{call}"
    assert run_job(runs, *OPTIONS, *overrides, name, kill_at=call) == -9
    for path in store.checkpoints(runs / name.removeprefix("run=") / "checkpoints"):
        assert store.verify(path) == []
    assert run_job(runs, *OPTIONS, *overrides, name) == 0
    return runs / name.removeprefix("run=")


def assert_ended_alike(one: Path, other: Path) -> None:
    """Fail unless all that both runs hold is the same to the bit."""
    assert_same(content(one), content(other))
    for key in ("history", "best", "callbacks", "finished"):
        assert about(one)[key] == about(other)[key]
    assert records(one) == records(other)
