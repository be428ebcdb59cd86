"""Runs for tests: in this process over its two CPU replicas, and in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nameplate import checkpoint as store
from nameplate.training.report import Report

QUICK = ["log.layer_table=false", "log.tensorboard=false", "fit.global_batch=8", "schedule=constant"]


def train(runs: Path | str, *overrides: str) -> Report:
    """Run in this process."""
    from trainer import run
    from trainer.config import run_config

    return run.train(run_config([f"runs={runs}", *QUICK, *overrides]))


def command(*arguments: str, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m trainer` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trainer", *arguments], capture_output=True, text=True, check=False, cwd=cwd, **options
    )


def content(run: Path, step: int | None = None) -> dict[str, np.ndarray]:
    """Return every tensor of a run's last checkpoint, or of the one at a step, by group and name."""
    found = store.checkpoints(run / "checkpoints")
    path = found[-1] if step is None else next(each for each in found if each.name.endswith(f"{step:08d}"))
    with store.open(path) as checkpoint:
        return {f"{group}:{name}": each[name] for group, each in checkpoint.groups().items() for name in each}


def about(run: Path) -> Any:
    """Return the plain data of a run's last checkpoint."""
    with store.open(store.checkpoints(run / "checkpoints")[-1]) as checkpoint:
        return checkpoint.manifest.about


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    """Fail unless both hold the same tensors, bit for bit."""
    assert left.keys() == right.keys()
    different = [name for name in left if left[name].tobytes() != right[name].tobytes()]
    assert different == []


def records(run: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in lines]
