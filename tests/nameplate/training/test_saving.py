"""Saves that cannot be made: the run says so and fails, what was good stays good, nothing is lost in silence."""

from __future__ import annotations

import importlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.errors import Exit, NameplateError, exit_code
from nameplate.training.state import TrainState
from tests.long import cases
from tests.nets import CUSTOM, write_data, write_nets
from tests.trainer.running import train

pytestmark = pytest.mark.usefixtures("strategy")

SAVING = [*CUSTOM, "model._target_=my_nets.build_telling", "fit.steps=20", "checkpoint.every_epochs=1", "run=a"]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    write_nets(tmp_path, monkeypatch)
    return [*SAVING, *write_data(tmp_path / "data.npz", {})]  # five steps an epoch


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def at(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Let something happen in the middle of a step: on the first of two replicas to come to it."""
    calls = iter(range(1, 1000))

    def hook(place: str) -> None:
        if place == "step" and next(calls) == 2 * step:
            act()

    monkeypatch.setattr(importlib.import_module("my_nets"), "HOOK", hook)


def test_a_disk_that_may_not_be_written_is_found_before_training(options: list[str], disk: Path) -> None:
    """lightning#21800: a save that was not allowed counted as one that succeeded."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(store.StoreError, match="the file system is read-only") as error:
        train(disk, *options)
    assert exit_code(error.value) is Exit.REFUSED


def test_a_run_may_lie_behind_a_link(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    train(tmp_path / "linked", *options, "fit.steps=5")
    assert store.checkpoints(tmp_path / "elsewhere" / "a" / "checkpoints")


@pytest.mark.parametrize("mode", ["checkpoint.async_save=false", "checkpoint.async_save=true"])
def test_a_disk_that_fills_up_fails_the_run_and_leaves_the_checkpoint_before(
    options: list[str], disk: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def fill() -> None:
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler", "bs=1k"], capture_output=True, check=False)

    at(monkeypatch, 8, fill)
    with pytest.raises(store.StoreError, match="the disk is full") as error:
        train(disk, *options, mode)
    assert exit_code(error.value) is Exit.FAILED
    names = os.listdir(disk / "a" / "checkpoints")
    assert sorted(names) == ["best", "latest", "step_00000005"]
    assert store.verify(disk / "a" / "checkpoints" / "step_00000005") == []
    (disk / "filler").unlink()
    assert train(disk, *options, mode).steps == 20


@pytest.mark.parametrize(("fails_at", "reaches"), [(5, 6), (20, 20)], ids=["next step", "exit"])
def test_an_error_of_the_background_writer_surfaces(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, fails_at: int, reaches: int
) -> None:
    failed = threading.Event()
    reached: list[int] = []
    save = store.save

    def failing(directory: Path, snapshot: store.Snapshot) -> Path:
        if snapshot.step == fails_at:
            failed.set()
            raise store.StoreError("Saving failed: the disk reports an input/output error.")
        return save(directory, snapshot)

    def count(place: str) -> None:
        reached.extend([1] * (place == "step"))
        if len(reached) == 2 * (fails_at + 1):
            assert failed.wait(30)  # the step does not end before the writer has failed

    monkeypatch.setattr(store, "save", failing)
    monkeypatch.setattr(importlib.import_module("my_nets"), "HOOK", count)
    with pytest.raises(store.StoreError, match="input/output error"):
        train(tmp_path, *options, "checkpoint.async_save=true", "fit.steps_per_loop=1")
    assert len(reached) == 2 * reaches
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_a_save_under_way_is_finished_when_training_ends_in_an_error(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, save = threading.Event(), store.save

    def slow(directory: Path, snapshot: store.Snapshot) -> Path:
        assert training.wait(30)  # still writing when the step after it fails
        return save(directory, snapshot)

    def fail() -> None:
        training.set()
        raise RuntimeError("a bug in someone's layer")

    monkeypatch.setattr(store, "save", slow)
    at(monkeypatch, 6, fail)
    with pytest.raises(Exception, match="a bug in someone's layer"):
        train(tmp_path, *options, "checkpoint.async_save=true")
    (only,) = store.checkpoints(tmp_path / "a" / "checkpoints")
    assert store.verify(only) == []
    with store.RunLock(tmp_path / "a"):
        pass


def test_too_little_memory_for_a_save_is_said_and_the_last_one_stays(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, *options, "fit.steps=5")
    monkeypatch.setattr(TrainState, "capture", lambda self: np.empty(1 << 60, np.uint8))
    with pytest.raises(NameplateError, match="out of memory on the host while saving") as error:
        train(tmp_path, *options)
    assert exit_code(error.value) is Exit.FAILED
    (last,) = store.checkpoints(tmp_path / "a" / "checkpoints")
    assert store.verify(last) == []


@pytest.mark.parametrize("name", cases(["with a space", "wörter-и-文字", "x" * 150], short=["wörter-и-文字"]))
def test_runs_may_have_any_name_a_directory_can_have(tmp_path: Path, options: list[str], name: str) -> None:
    train(tmp_path / "läufe 1", *options, "fit.steps=5", f"run='{name}'")
    assert store.checkpoints(tmp_path / "läufe 1" / name / "checkpoints")


def test_files_have_the_mode_that_the_umask_leaves(tmp_path: Path, options: list[str]) -> None:
    before = os.umask(0o027)
    try:
        train(tmp_path, *options, "fit.steps=5")
    finally:
        os.umask(before)
    (saved,) = store.checkpoints(tmp_path / "a" / "checkpoints")
    for path in [saved, *saved.iterdir(), tmp_path / "a" / "metrics.jsonl", tmp_path / "a" / "config.yaml"]:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
