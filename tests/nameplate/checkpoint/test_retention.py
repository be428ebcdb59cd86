from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from nameplate import checkpoint as store
from nameplate.checkpoint import durable
from tests.nameplate.checkpoint.samples import snapshot

LOSSES = {10: 0.9, 20: 0.2, 30: math.nan, 40: 0.4, 50: 0.1, 60: 0.7, 70: 0.7}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for step, loss in LOSSES.items():
        store.save(tmp_path, snapshot(step, metrics={"loss": loss} if step != 70 else {}))
    return tmp_path


def steps(directory: Path) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in store.checkpoints(directory)]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"last": 2}, [60, 70]),
        ({"last": 7}, list(LOSSES)),
        ({"last": 8}, list(LOSSES)),
        ({"last": 100}, list(LOSSES)),
        ({"last": 1, "best": 2, "metric": "loss"}, [20, 50, 70]),
        ({"last": 1, "best": 2, "metric": "loss", "mode": "max"}, [10, 60, 70]),
        ({"last": 1, "best": 9, "metric": "loss"}, [10, 20, 40, 50, 60, 70]),
        ({"last": 1, "best": 2, "metric": "never logged"}, [70]),
        ({"last": 1, "every": 20}, [20, 40, 60, 70]),
        ({"last": 1, "protect": [Path("step_00000030")]}, [30, 70]),
        ({"last": 0, "every": 1000}, [70]),
        ({"last": 0}, [70]),
    ],
)
def test_what_stays(directory: Path, rule: dict[str, Any], left: list[int]) -> None:
    deleted = store.keep(directory, **rule)
    assert steps(directory) == left
    assert [path.name for path in deleted.removed] == [f"step_{s:08d}" for s in LOSSES if s not in left]
    assert not deleted.failed


def test_of_equally_good_ones_the_first_stays(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        store.save(tmp_path, snapshot(step, metrics={"loss": 0.5}))
    store.keep(tmp_path, last=0, best=1, metric="loss")
    assert steps(tmp_path) == [1]


def test_the_end_of_a_stage_stays(directory: Path) -> None:
    store.save(directory, snapshot(15, about={"stage": {"name": "stage 1 of 2"}}))
    store.keep(directory, last=1)
    assert steps(directory) == [15, 70]


def test_what_a_pointer_leads_to_stays(directory: Path) -> None:
    store.point(directory, "best", directory / "step_00000040")
    store.keep(directory, last=1)
    assert steps(directory) == [40, 70]


def test_the_last_good_one_stays_when_all_newer_are_damaged(directory: Path) -> None:
    for step in (60, 70):
        (directory / f"step_{step:08d}" / "weights.safetensors").unlink()
    store.keep(directory, last=2)
    assert steps(directory) == [50, 60, 70]


def test_a_thorough_look_also_sees_rotten_bits(directory: Path) -> None:
    for step in (60, 70):
        file = directory / f"step_{step:08d}" / "weights.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    store.keep(directory, last=2, thorough=True)
    assert steps(directory) == [50, 60, 70]


def test_a_failed_deletion_is_reported_and_hurts_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = durable.remove_tree

    def remove(path: Path) -> None:
        if "step_00000020" in path.name:
            raise PermissionError(13, "Permission denied")
        real(path)

    monkeypatch.setattr(durable, "remove_tree", remove)
    deleted = store.keep(directory, last=1)
    assert [path.name for path in deleted.failed] == ["step_00000020"]
    assert "permission denied" in str(next(iter(deleted.failed.values())))
    assert steps(directory) == [70]
    monkeypatch.undo()
    assert [path.name[:23] for path in store.sweep_leftovers(directory)] == [".deleting-step_00000020"]
    assert len(os.listdir(directory)) == 1


@pytest.mark.parametrize(
    "rule", [{"last": -1}, {"last": 1, "best": 1}, {"last": 1, "mode": "up"}, {"last": 1, "every": 0}]
)
def test_a_rule_that_makes_no_sense_is_refused(directory: Path, rule: dict[str, Any]) -> None:
    with pytest.raises(store.StoreError):
        store.keep(directory, **rule)
    assert steps(directory) == list(LOSSES)
