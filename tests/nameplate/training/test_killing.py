"""Kill -9 in a step, and the same command again: the finished run is the uninterrupted one. All steps: tests/faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nameplate import checkpoint as store
from tests.jobs import run_job
from tests.killing import OPTIONS, assert_ended_alike, killed, whole
from tests.nets import write_nets


def test_a_run_killed_in_a_step_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nets(tmp_path, monkeypatch)
    untouched = whole(tmp_path, "strategy.replicas=2")
    assert_ended_alike(killed(tmp_path, 15, "strategy.replicas=2"), untouched)


def test_one_and_four_replicas_begin_with_the_very_state_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nets(tmp_path, monkeypatch)
    assert run_job(tmp_path, *OPTIONS, "run=a", "strategy.replicas=2", "fit.steps=3") == 0
    with store.open(store.checkpoints(tmp_path / "a" / "checkpoints")[-1]) as checkpoint:
        held = {f"{group}:{name}": each[name] for group, each in checkpoint.groups().items() for name in each}
    for replicas in (1, 4):
        out = tmp_path / f"{replicas}.npz"
        assert run_job(tmp_path, *OPTIONS, "run=a", f"strategy.replicas={replicas}", restored=out) == 0
        found = dict(np.load(out))
        exact = [name for name in held if not name.startswith("state:") or name.startswith("state:seeds/")]
        assert {"weights:norm/moving_mean", "optimizer:stem/kernel@momentum"} <= set(exact)
        assert "state:seeds/augmentation/augment_shift/generator/state" in exact
        assert [name for name in exact if found[name].tobytes() != held[name].tobytes()] == []
        for total in ("metrics/loss/total", "metrics/accuracy/count"):
            assert _sum(found, total) == pytest.approx(_sum(held, total), rel=1e-6)


def _sum(arrays: dict[str, np.ndarray], name: str) -> float:
    return float(sum(value for key, value in arrays.items() if key.startswith(f"state:{name}@replica")))
