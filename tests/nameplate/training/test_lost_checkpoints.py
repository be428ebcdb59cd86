"""Checkpoints that are lost or damaged: a run says what it goes on from, and `best` is the best of what is good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.long import cases
from tests.nameplate.checkpoint.test_recovery import ruin
from tests.trainer.running import content, train
from trainer.cli.ckpt import main as ckpt

pytestmark = pytest.mark.usefixtures("strategy")

OPTIONS = ["model=mlp", "data.limit=16", "run=a", "strategy=single", "checkpoint.keep_last=9"]


def checkpoints(tmp_path: Path) -> Path:
    return tmp_path / "a" / "checkpoints"


def best(tmp_path: Path) -> str:
    found = store.resolve(checkpoints(tmp_path), "best")
    assert found is not None
    return found.name


def values(tmp_path: Path) -> dict[str, float]:
    """Return the accuracy held out of every checkpoint."""
    return {
        path.name: store.open(path).manifest.metrics["val_accuracy"]
        for path in store.checkpoints(checkpoints(tmp_path))
    }


def best_by_hand(tmp_path: Path) -> str:
    found = values(tmp_path)
    return min(found, key=lambda name: (-found[name], name))


def empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


LOSSES: dict[str, Callable[[Path], object]] = {
    "its manifest is deleted": lambda path: (path / "manifest.json").unlink(),
    "it is emptied": empty,
    "it is gone": shutil.rmtree,
}


def test_e2_best_is_the_first_of_equals_and_never_a_damaged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate of 1e-9 leaves every epoch with the same accuracy."""
    options = [*OPTIONS, "optimizer=sgd", "optimizer.learning_rate=1e-9", "checkpoint.keep_last=3"]
    train(tmp_path, *options, "fit.epochs=5")
    assert len(set(values(tmp_path).values())) == 1
    names = list(values(tmp_path))
    assert best(tmp_path) == names[0] < names[1]  # what retention keeps beside the last three
    assert len(names) == 4
    ruin(checkpoints(tmp_path) / names[0])
    capsys.readouterr()
    train(tmp_path, *options, "fit.epochs=6")
    assert f"{names[0]} is damaged and cannot be the best" in capsys.readouterr().out
    assert best(tmp_path) == names[1]


def test_e2_a_best_that_is_written_again_at_a_worse_value_is_best_no_more(tmp_path: Path) -> None:
    train(tmp_path, *OPTIONS, "fit.epochs=3", "optimizer.learning_rate=1e-2")
    assert best(tmp_path) == best_by_hand(tmp_path)
    steps = list(values(tmp_path))
    for name in steps[1:]:
        ruin(checkpoints(tmp_path) / name)
    train(tmp_path, *OPTIONS, "fit.epochs=3", "optimizer.learning_rate=1e-9", "resume_changed=[optimizer]")
    assert best(tmp_path) == best_by_hand(tmp_path) == steps[0]


def test_e2_first_weights_are_the_best_that_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, *OPTIONS, "fit.epochs=3")
    damaged = best(tmp_path)
    ruin(checkpoints(tmp_path) / damaged)
    left = {name: value for name, value in values(tmp_path).items() if name != damaged}
    second = min(left, key=lambda name: (-left[name], name))
    capsys.readouterr()
    begins = ["run=b", "init=checkpoint", f"init.path={tmp_path / 'a'}", "optimizer.learning_rate=1e-12"]
    train(tmp_path, *OPTIONS[:2], "strategy=single", *begins, "fit.steps=1")
    said = capsys.readouterr().out
    assert f"damaged in {tmp_path / 'a'}, and skipped" in said
    assert damaged in said
    taken = content(tmp_path / "b")["weights:label/kernel"]
    with store.open(checkpoints(tmp_path) / second) as checkpoint:
        assert abs(taken - checkpoint.weights["label/kernel"]).max() < 1e-9  # one step at a rate of 1e-12


@pytest.mark.parametrize("loss", cases(LOSSES, short=["its manifest is deleted"]))
def test_f5_falling_back_is_said_and_verified(loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, *OPTIONS, "fit.epochs=2")
    newest = store.checkpoints(checkpoints(tmp_path))[-1]
    assert ckpt(["verify", str(tmp_path / "a")]) == 0
    LOSSES[loss](newest)
    capsys.readouterr()
    assert ckpt(["verify", str(tmp_path / "a")]) == 1
    assert newest.name in capsys.readouterr().out
    assert ckpt(["verify", "--json", str(tmp_path / "a")]) == 1
    listed = {Path(each["path"]).name: each["good"] for each in json.loads(capsys.readouterr().out)}
    assert listed[newest.name] is False
    train(tmp_path, *OPTIONS, "fit.epochs=2")
    assert f"{newest.name} is damaged and skipped" in capsys.readouterr().out
    assert ckpt(["verify", str(tmp_path / "a")]) == 0  # written again


def test_f5_a_run_that_lost_all_of_its_checkpoints_does_not_begin_again(tmp_path: Path) -> None:
    train(tmp_path, *OPTIONS, "fit.epochs=1")
    for path in store.checkpoints(checkpoints(tmp_path)):
        shutil.rmtree(path)
    with pytest.raises(store.NothingGoodError, match="start again: with another run"):
        train(tmp_path, *OPTIONS, "fit.epochs=1")
    assert ckpt(["verify", str(tmp_path / "a")]) == 1


@pytest.mark.parametrize("name", cases(["latest", "best"], short=["latest"]))
def test_f5_a_damaged_pointer_is_said_and_written_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, *OPTIONS, "fit.epochs=1")
    pointer = checkpoints(tmp_path) / name
    sound = pointer.read_bytes()
    pointer.write_bytes(sound[:-3] + b"x\n")
    assert ckpt(["verify", str(tmp_path / "a")]) == 1
    assert ckpt(["ls", str(tmp_path / "a")]) == 0
    assert f"The pointer {pointer} is damaged" in capsys.readouterr().out
    train(tmp_path, *OPTIONS, "fit.epochs=2")
    assert f"The pointer {pointer} is damaged" in capsys.readouterr().out
    assert store.resolve(checkpoints(tmp_path), name) is not None
