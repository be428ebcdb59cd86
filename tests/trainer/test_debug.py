"""The debug modes do what the heads of their files say, on top of whatever else is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nameplate import checkpoint as store
from nameplate.data.batches import Epochs
from nameplate.training.observers import Profile, RunLength
from tests.jobs import run_job
from tests.nets import write_nets
from tests.trainer.running import records
from trainer.config import run_config

SMALL = ["model=mlp", "model.hidden=[32]", "run=a"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where runs are."""
    write_nets(tmp_path, monkeypatch)
    return tmp_path


def said(runs: Path) -> str:
    return (runs / "said").read_text()


def test_fast_takes_one_step_of_everything(runs: Path) -> None:
    assert run_job(runs, *SMALL, "debug=fast", "log.tensorboard=true", "log.layer_table=true") == 0
    run = runs / "a"
    (record,) = records(run)
    assert (record["step"], record["kind"]) == (1, "epoch")
    assert {"loss", "val_loss", "val_accuracy"} <= record.keys()
    assert len(store.checkpoints(run / "checkpoints")) == 1
    assert (run / "best.keras").exists()
    assert list(run.glob("tensorboard/*/events.out.tfevents.*"))
    assert "done: 1 step " in said(runs)


def test_limit_makes_short_epochs_of_everything(runs: Path) -> None:
    assert run_job(runs, *SMALL, "debug=limit", "fit.global_batch=64") == 0
    ends = [each for each in records(runs / "a") if each["kind"] == "epoch"]
    assert [each["step"] for each in ends] == [4, 8, 12]
    assert all("val_accuracy" in each for each in ends)
    # 256 examples: every accuracy is a count of them
    assert all((each["val_accuracy"] * 256) % 1 == 0 for each in ends)


def test_overfit_learns_a_few_examples_by_heart(runs: Path) -> None:
    assert run_job(runs, *SMALL, "debug=overfit", "fit.global_batch=64", "optimizer.learning_rate=0.01") == 0
    assert records(runs / "a")[-1]["accuracy"] == 1.0


@pytest.mark.parametrize("mode", ["fast", "limit", "overfit", "profile"])
def test_a_mode_ends_soon_whatever_the_experiment_says(mode: str) -> None:
    config = run_config(["experiment=digits_augmented", f"debug={mode}"])
    assert config.fit.steps or (config.data.limit or 0) <= 256
    assert config.data.validation_limit == 256


def test_profile_leaves_a_trace_of_its_steps_for_tensorboard(runs: Path) -> None:
    assert run_job(runs, *SMALL, "debug=profile", "log.profile_steps=3", "log.profile_after=4", "fit.steps=9") == 0
    (trace,) = runs.glob("a/tensorboard/train/plugins/profile/*/*.xplane.pb")
    assert b"sparse_categorical_crossentropy" in trace.read_bytes()  # an operation of the training step
    assert "profile of steps 5 to 7 in " in said(runs)
    assert records(runs / "a")[-1]["step"] == 9


def test_a_run_shorter_than_the_profile_is_profiled_as_far_as_it_goes(runs: Path) -> None:
    assert run_job(runs, *SMALL, "debug=profile", "fit.steps=2") == 0
    assert "profile of steps 1 to 2 in " in said(runs)
    assert records(runs / "a")[-1]["step"] == 2


def test_where_another_profiler_runs_the_run_goes_on_without_one(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    told: list[str] = []
    tf.profiler.experimental.start(str(tmp_path / "other"))
    try:
        profile = Profile(tmp_path / "ours", after=0, steps=2, say=told.append)
        profile.began(keras.Model(), RunLength(5, 9, Epochs(3)))
        profile.advanced(7)
        profile.ended()
    finally:
        tf.profiler.experimental.stop()
    assert profile.at_steps == (5, 7)
    assert [each.partition(": no profile: ")[0] for each in told] == ["log.profile_steps"]
    assert not (tmp_path / "ours" / "plugins").exists()
