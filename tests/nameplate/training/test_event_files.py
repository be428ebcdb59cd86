"""What TensorBoard shows after a kill and a resume: each step once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from nameplate import checkpoint as store
from nameplate.training.tensorboard import remove_events_after
from tests.trainer.running import train

pytestmark = pytest.mark.usefixtures("strategy")

OPTIONS = [
    "model=mlp",
    "run=a",
    "strategy=single",
    "data.limit=24",
    "log.tensorboard=true",
    "log.every_steps=1",
    "fit.epochs=3",
]


def steps(run: Path, part: str, tag: str) -> list[int]:
    """Return the steps of a tag over all event files, in their order, with nothing hidden."""
    found = []
    for path in sorted((run / "tensorboard" / part).glob("events*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            found += [event.step for value in event.summary.value if value.tag == tag]
    return found


def test_events_past_the_step_that_a_run_resumes_from_are_forgotten(tmp_path: Path) -> None:
    """tensorflow#44670, keras#9546: neither from zero again, nor the same steps twice."""
    train(tmp_path, *OPTIONS)
    whole = steps(tmp_path / "a", "train", "step/loss")
    assert whole == [1, 2, 4, 5, 7, 8]  # three steps an epoch, whose last one is told by the epoch
    for path in store.checkpoints(tmp_path / "a" / "checkpoints")[1:]:
        shutil.rmtree(path)
    train(tmp_path, *OPTIONS)
    assert steps(tmp_path / "a", "train", "step/loss") == whole
    assert steps(tmp_path / "a", "train", "epoch/loss") == [3, 6, 9]
    assert steps(tmp_path / "a", "validation", "epoch/loss") == [3, 6, 9]
    assert steps(tmp_path / "a", "train", "config") == [0]


def test_a_run_that_begins_again_has_one_beginning(tmp_path: Path) -> None:
    train(tmp_path, *OPTIONS)
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    train(tmp_path, *OPTIONS)
    assert steps(tmp_path / "a", "train", "config") == [0]
    assert steps(tmp_path / "a", "train", "epoch/loss") == [3, 6, 9]


def test_a_record_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    train(tmp_path, *OPTIONS)
    directory = tmp_path / "a" / "tensorboard" / "train"
    (path,) = directory.glob("events*")
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    remove_events_after(directory, 8)
    assert steps(tmp_path / "a", "train", "step/loss") == [1, 2, 4, 5, 7, 8]
    assert data.startswith(path.read_bytes())
