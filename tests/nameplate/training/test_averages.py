"""`optimizer.ema_momentum`: the average is validated, saved, exported and taken; the raw weights go on training."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint.tensor_names import as_trained
from tests.trainer.running import assert_same, content, records, train

pytestmark = pytest.mark.usefixtures("strategy")

MOMENTUM = 0.6
RUN = ["model=mlp", "model.dropout=0", "run=a", "data.limit=40", "optimizer=sgd", "optimizer.learning_rate=0.05"]
RUN += [
    "strategy=single",
    "optimizer.momentum=0",
    "checkpoint.every_steps=1",
    "checkpoint.keep_last=99",
    "checkpoint.monitor=val_loss",
]
AVERAGED = [*RUN, f"optimizer.ema_momentum={MOMENTUM}"]
KERNEL = "hidden1/kernel"


def test_a3_the_average_is_what_readers_get_and_raw_weights_train(tmp_path: Path) -> None:
    train(tmp_path, *AVERAGED, "strategy=auto", "fit.steps=6")
    train(tmp_path, *RUN, "strategy=auto", "run=plain", "fit.steps=6")
    average = None
    for step in range(1, 7):
        found, plain = content(tmp_path / "a", step), content(tmp_path / "plain", step)
        raw = plain[f"weights:{KERNEL}"]
        assert found[f"optimizer:{KERNEL}@unaveraged"].tobytes() == raw.tobytes()
        average = raw if average is None else MOMENTUM * average + (1 - MOMENTUM) * raw
        np.testing.assert_allclose(found[f"weights:{KERNEL}"], average, rtol=1e-5, atol=1e-7)
        assert f"optimizer:{KERNEL}@average" not in found


def test_a3_the_average_is_what_is_validated_called_best_exported_and_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*AVERAGED, "fit.epochs=3", "checkpoint.every_steps=null"]
    train(tmp_path, *options, "checkpoint.export_keras=best")
    best = store.resolve(tmp_path / "a" / "checkpoints", "best")
    assert best is not None
    measured = {line["step"]: line["val_loss"] for line in records(tmp_path / "a") if "val_loss" in line}
    with store.open(best) as checkpoint:
        held = checkpoint.weights.load()
        assert checkpoint.step == min(measured, key=lambda step: measured[step])
    exported = nameplate.variables(keras.saving.load_model(tmp_path / "a" / "best.keras", compile=False))
    assert all(exported[name].numpy().tobytes() == held[name].tobytes() for name in held)
    # Taken by another run that keeps them as they are, they measure what was measured.
    taking = ["init=checkpoint", f"init.path={tmp_path / 'a'}", "optimizer.learning_rate=1e-30", "fit.epochs=1"]
    train(tmp_path, *RUN, "run=next", *taking)
    again = [line["val_loss"] for line in records(tmp_path / "next") if "val_loss" in line]
    assert again == [pytest.approx(min(measured.values()), rel=1e-5)]


def test_a3_a_resume_is_exact_also_from_a_checkpoint_that_had_raw_weights(tmp_path: Path) -> None:
    train(tmp_path, *AVERAGED, "fit.steps=8")
    for name, older in (("b", False), ("c", True)):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        for path in store.checkpoints(tmp_path / name / "checkpoints")[3:]:
            shutil.rmtree(path)
        if older:
            _as_before(store.checkpoints(tmp_path / name / "checkpoints")[-1])
        train(tmp_path, *AVERAGED, f"run={name}", "fit.steps=8")
        assert_same(content(tmp_path / name), content(tmp_path / "a"))
        assert records(tmp_path / name) == records(tmp_path / "a")


def test_a3_a_run_that_takes_the_optimizer_too_goes_on_with_the_raw_weights(tmp_path: Path) -> None:
    train(tmp_path, *AVERAGED, "fit.steps=3")
    before = content(tmp_path / "a")
    taking = ["init=checkpoint", f"init.path={tmp_path / 'a'}", "init.optimizer=true", "init.from=latest"]
    train(tmp_path, *AVERAGED, "run=next", *taking, "optimizer.learning_rate=1e-30", "fit.steps=1")
    after = content(tmp_path / "next")
    raw = before[f"optimizer:{KERNEL}@unaveraged"]
    np.testing.assert_allclose(after[f"optimizer:{KERNEL}@unaveraged"], raw, rtol=1e-6)
    expected = MOMENTUM * before[f"weights:{KERNEL}"] + (1 - MOMENTUM) * raw
    np.testing.assert_allclose(after[f"weights:{KERNEL}"], expected, rtol=1e-5, atol=1e-7)


def test_a3_without_the_average_a_run_goes_on_with_the_raw_weights_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, *AVERAGED, "fit.steps=3")
    raw = content(tmp_path / "a")[f"optimizer:{KERNEL}@unaveraged"]
    changed = ["optimizer.learning_rate=1e-30", "resume_changed=[optimizer]", "fit.steps=4"]
    train(tmp_path, *RUN, *changed)
    assert f"{KERNEL}@average is discarded" in capsys.readouterr().out
    np.testing.assert_allclose(content(tmp_path / "a")[f"weights:{KERNEL}"], raw, rtol=1e-6)


def _as_before(path: Path) -> None:
    """Write a checkpoint again as earlier versions did: raw weights as weights, averages as slots."""
    with store.open(path) as checkpoint:
        weights, slots = as_trained(checkpoint.weights.load(), checkpoint.optimizer.load())
        manifest = checkpoint.manifest
        snapshot = store.Snapshot(
            step=manifest.step,
            epoch=manifest.epoch,
            position=manifest.position,
            weights=dict(weights),
            optimizer=dict(slots),
            state=checkpoint.state.load(),
            metrics=manifest.metrics,
            model=checkpoint.model,
            config=checkpoint.config,
            about=manifest.about,
        )
    shutil.rmtree(path)
    store.save(path.parent, snapshot)
