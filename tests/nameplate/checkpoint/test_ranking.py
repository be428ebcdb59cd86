"""`best` is one rule: for the pointer, for retention, and for whoever reads it later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nameplate import checkpoint as store
from nameplate.checkpoint.ranking import ranked
from tests.nameplate.checkpoint.samples import snapshot
from tests.nameplate.checkpoint.test_recovery import Reports, ruin


def saved(directory: Path, values: dict[int, float], **about: Any) -> list[Path]:
    reports = {"best": {"monitor": "loss", "mode": "min", "value": None}, **about}
    return [
        store.save(directory, replace(snapshot(step), metrics={"loss": value}, about=reports))
        for step, value in values.items()
    ]


def test_of_equal_ones_the_older_is_best_for_all(tmp_path: Path) -> None:
    paths = saved(tmp_path, {1: 0.5, 2: 0.3, 3: 0.3, 4: float("nan")})
    assert ranked(paths, metric="loss", mode="min") == [paths[1], paths[2], paths[0]]
    assert store.best_of(tmp_path, metric="loss", mode="min", good=lambda _: True) == paths[1]
    assert store.best(tmp_path, Reports()) == paths[1]
    assert paths[1] not in store.to_delete(tmp_path, last=1, best=1, metric="loss")
    assert paths[2] in store.to_delete(tmp_path, last=1, best=1, metric="loss")


@pytest.mark.parametrize(("mode", "extreme"), [("min", "-inf"), ("max", "inf")])
def test_an_infinite_value_is_never_best(mode: str, extreme: str, tmp_path: Path) -> None:
    criterion = {"monitor": "loss", "mode": mode, "value": None}
    paths = saved(tmp_path, {1: 0.5, 2: float(extreme), 3: float("nan")}, best=criterion)
    assert ranked(paths, metric="loss", mode=mode) == paths[:1]
    assert store.best(tmp_path, Reports()) == paths[0]
    assert paths[0] not in store.to_delete(tmp_path, last=1, best=1, metric="loss", mode=mode)


def test_a_part_of_an_epoch_ranks_nowhere_unless_it_is_asked_for(tmp_path: Path) -> None:
    part = saved(tmp_path, {1: 0.1}, partial=True)[0]
    whole = saved(tmp_path, {2: 0.5})[0]
    assert ranked([part, whole], metric="loss", mode="min") == [whole]
    assert ranked([part, whole], metric="loss", mode="min", partial=True) == [part, whole]
    assert store.best(tmp_path, Reports()) == whole


def test_a_reader_gets_the_best_good_one_and_the_damaged_are_reported(tmp_path: Path) -> None:
    paths = saved(tmp_path, {1: 0.4, 2: 0.2, 3: 0.3})
    store.point(tmp_path, "best", paths[1])
    ruin(paths[1])
    reports = Reports()
    assert store.best(tmp_path, reports) == paths[2]
    assert reports.paths == [paths[1]]


def test_a_pointer_that_leads_to_a_worse_one_is_not_believed(tmp_path: Path) -> None:
    paths = saved(tmp_path, {1: 0.4, 2: 0.9})
    store.point(tmp_path, "best", paths[1])
    assert store.best(tmp_path, Reports()) == paths[0]


def test_checkpoints_without_a_mode_are_best_by_their_pointer(tmp_path: Path) -> None:
    """As those of earlier versions."""
    paths = saved(tmp_path, {1: 0.4, 2: 0.9}, best={"monitor": "loss", "value": "0.4"})
    assert store.best(tmp_path, Reports()) is None
    store.point(tmp_path, "best", paths[1])
    assert store.best(tmp_path, Reports()) == paths[1]


LOSSES: dict[str, Any] = {
    "its manifest is deleted": lambda path: (path / "manifest.json").unlink(),
    "it is emptied": lambda path: [file.unlink() for file in path.iterdir()],
    "it is gone": lambda path: [*[file.unlink() for file in path.iterdir()], path.rmdir()],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_newest_that_is_lost_is_reported(loss: str, tmp_path: Path) -> None:
    paths = saved(tmp_path, {1: 0.4, 2: 0.9})
    store.point(tmp_path, "latest", paths[1])
    LOSSES[loss](paths[1])
    reports = Reports()
    opened = store.newest_good(tmp_path, reports)
    assert opened is not None
    assert opened.step == 1
    assert reports.paths == [paths[1]]
    assert list(store.lacking(tmp_path)) == [paths[1]]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_whose_only_checkpoint_is_lost_does_not_restart(loss: str, tmp_path: Path) -> None:
    path = saved(tmp_path, {1: 0.4})[0]
    store.point(tmp_path, "latest", path)
    LOSSES[loss](path)
    with pytest.raises(store.NothingGoodError, match="step_00000001"):
        store.newest_good(tmp_path, Reports())


def test_a_damaged_pointer_is_listed(tmp_path: Path) -> None:
    paths = saved(tmp_path, {1: 0.4, 2: 0.9})
    store.point(tmp_path, "latest", paths[1])
    assert store.lacking(tmp_path) == {}
    (tmp_path / "latest").write_bytes(b"step_00000001 nonsense\n")
    assert list(store.lacking(tmp_path)) == [tmp_path / "latest"]
