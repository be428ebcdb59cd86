"""Signals wherever they come: one checkpoint at the next step, the code, the mark; handlers as they were."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from nameplate import checkpoint as store
from nameplate.engine.signals import STOPPING
from nameplate.errors import Exit, StoppedError, exit_code
from tests.nets import CUSTOM, write_data, write_nets
from tests.trainer.running import about, assert_same, content, train

pytestmark = pytest.mark.usefixtures("strategy")

TELLING = [*CUSTOM, "model._target_=my_nets.build_telling", "fit.steps=15", "checkpoint.every_epochs=1"]


@pytest.fixture
def telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    write_nets(tmp_path, monkeypatch)
    data = write_data(tmp_path / "data.npz", {})
    return [*TELLING, *data, "data.validation=0.2", "checkpoint.keep_last=99"]  # 32 examples, four steps an epoch


class Once:
    """Sends a signal to this process the n-th time that it is called for a place."""

    def __init__(self, number: signal.Signals, place: str, at: int = 1) -> None:
        self.number, self.place, self.left = number, place, at

    def __call__(self, place: str) -> None:
        if place == self.place:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "place", "at", "stops_within"),
    [
        (signal.SIGTERM, "tracing", 1, (1, 2)),
        (signal.SIGINT, "step", 11, (6, 12)),
        (signal.SIGUSR1, "evaluation", 1, (4, 4)),
        (signal.SIGTERM, "saving", 2, (8, 8)),
    ],
)
def test_it_leaves_one_checkpoint_of_the_step_it_names_and_resumes_to_the_same(
    tmp_path: Path,
    telling: list[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    place: str,
    at: int,
    stops_within: tuple[int, int],
) -> None:
    before = [signal.getsignal(each) for each in STOPPING]
    hook = Once(number, place, at)
    with monkeypatch.context() as patched:
        patched.setattr(importlib.import_module("my_nets"), "HOOK", hook)
        patched.setattr(store, "save", _telling(store.save, hook))
        with pytest.raises(StoppedError) as error:
            train(tmp_path, *telling, "run=a")
    assert [signal.getsignal(each) for each in STOPPING] == before
    assert exit_code(error.value) is (Exit.INTERRUPTED if number is signal.SIGINT else Exit.TERMINATED)
    first, last = stops_within
    assert first <= error.value.step <= last
    saved = store.checkpoints(tmp_path / "a" / "checkpoints")
    assert saved[-1].name == f"step_{error.value.step:08d}"
    assert all(store.verify(path) == [] for path in saved)
    mark = json.loads((tmp_path / "a" / "requeue.json").read_text())
    assert (mark["signal"], mark["step"]) == (number.name, error.value.step)
    assert shlex.split(mark["command"])[-1] == "run=a"
    train(tmp_path, *telling, "run=a")
    assert not (tmp_path / "a" / "requeue.json").exists()
    train(tmp_path, *telling, "run=whole")
    assert_same(content(tmp_path / "a"), content(tmp_path / "whole"))
    assert about(tmp_path / "a")["history"] == about(tmp_path / "whole")["history"]


def _telling(save: Any, hook: Once) -> Any:
    def saving(*given: Any, **options: Any) -> Path:
        hook("saving")
        return save(*given, **options)

    return saving


def test_one_that_comes_with_the_last_step_does_not_undo_that_the_run_is_done(
    tmp_path: Path, telling: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("my_nets"), "HOOK", Once(signal.SIGTERM, "step", 30))
    assert train(tmp_path, *telling, "run=a").steps == 15
    assert not (tmp_path / "a" / "requeue.json").exists()


def test_the_message_says_what_is_safe_and_how_to_go_on(
    tmp_path: Path, telling: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("my_nets"), "HOOK", Once(signal.SIGUSR1, "step", 3))
    with pytest.raises(StoppedError) as error:
        train(tmp_path, *telling, "run=a", "checkpoint.async_save=true")
    assert re.search(r"stopped by SIGUSR1 after step \d+; the last good checkpoint is .*step_\d+\.", str(error.value))
    assert "The same command goes on from there" in str(error.value)
