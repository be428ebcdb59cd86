"""NaN and infinity, in a loss or in a weight behind a finite loss: the run stops, or goes back and passes data over."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.errors import Exit, NotFiniteError, exit_code
from nameplate.training.checkpoint_manager import not_finite
from tests.long import cases
from tests.nets import CUSTOM, write_data, write_nets
from tests.trainer.running import about, assert_same, content, records, train

pytestmark = pytest.mark.usefixtures("strategy")

# Five steps an epoch of eight examples, in an order that depends on seed and epoch.
SHORT = ["fit.epochs=2", "checkpoint.every_steps=2", "checkpoint.keep_last=99", "run=a"]


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One example of forty is infinite."""
    write_nets(tmp_path, monkeypatch)
    return [*SHORT, *CUSTOM, *write_data(tmp_path / "data.npz", {7: np.inf})]


@pytest.mark.parametrize("every", cases([1, 3, 50], short=[1, 50]))
def test_it_stops_at_its_step_whether_that_is_logged_or_not(tmp_path: Path, spoilt: list[str], every: int) -> None:
    with pytest.raises(NotFiniteError) as error:
        train(tmp_path, *spoilt, f"log.every_steps={every}")
    assert exit_code(error.value) is Exit.NOT_FINITE
    assert f"the loss of step {error.value.step} is nan" in str(error.value)
    assert "fit.on_nan=rollback goes back" in str(error.value)
    assert "the last good checkpoint is" in str(error.value) or "no checkpoint was saved yet" in str(error.value)
    for path in store.checkpoints(tmp_path / "a" / "checkpoints"):
        assert int(path.name.removeprefix("step_")) < error.value.step
        assert store.verify(path) == []


def test_nan_in_a_weight_behind_a_finite_loss_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nets(tmp_path, monkeypatch)
    data = write_data(tmp_path / "data.npz", {7: -1.0})
    with pytest.raises(NotFiniteError) as error:
        train(
            tmp_path,
            *SHORT,
            *CUSTOM,
            *data,
            "model.arguments.spoils=true",
            "checkpoint.every_steps=1",
            "strategy=single",
        )
    assert "body/kernel" in str(error.value)
    assert f"after step {error.value.step}" in str(error.value)
    for path in store.checkpoints(tmp_path / "a" / "checkpoints"):
        with store.open(path) as checkpoint:
            assert not not_finite(checkpoint.weights, checkpoint.optimizer, list(checkpoint.weights))


@pytest.mark.parametrize(
    "options",
    [[], ["checkpoint.async_save=true"], pytest.param(["data.resident=never"], marks=pytest.mark.long)],
    ids=str,
)
def test_a_rollback_passes_over_the_data_and_ends_the_run_well(
    tmp_path: Path, spoilt: list[str], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = train(tmp_path, *spoilt, *options, "fit.on_nan=rollback", "log.every_steps=1")
    assert report.steps == 10
    assert np.isfinite(report.values["loss"])
    told = about(tmp_path / "a")["rollbacks"]
    assert told["count"] == 2  # the example comes once an epoch
    assert capsys.readouterr().out.count("going back to") == 2
    assert [line["step"] for line in records(tmp_path / "a")] == list(range(1, 11))  # none twice
    for path in store.checkpoints(tmp_path / "a" / "checkpoints"):
        with store.open(path) as checkpoint:
            assert not not_finite(checkpoint.weights, checkpoint.optimizer, list(checkpoint.weights))


def test_a_run_cut_anywhere_around_a_rollback_ends_the_same(tmp_path: Path, spoilt: list[str]) -> None:
    options = [*spoilt, "fit.on_nan=rollback", "strategy=single"]
    train(tmp_path, *options)
    whole, told = content(tmp_path / "a"), about(tmp_path / "a")
    held = store.checkpoints(tmp_path / "a" / "checkpoints")
    assert len(held) > 4
    for kept in range(len(held) - 1, 0, -2):
        for later in held[kept:]:
            shutil.rmtree(later, ignore_errors=True)
        train(tmp_path, *options)
        assert_same(content(tmp_path / "a"), whole)
        assert about(tmp_path / "a")["history"] == told["history"]
        assert about(tmp_path / "a")["rollbacks"] == told["rollbacks"]


def test_rollbacks_are_bounded_and_the_bound_holds_over_resumes(tmp_path: Path, spoilt: list[str]) -> None:
    options = [*spoilt, "fit.on_nan=rollback", "fit.max_rollbacks=1"]
    for _ in range(2):
        with pytest.raises(NotFiniteError):
            train(tmp_path, *options)
        assert about(tmp_path / "a")["rollbacks"]["count"] == 1
    assert train(tmp_path, *options[:-1], "fit.max_rollbacks=2").steps == 10


def test_what_gradients_do_not_move_may_be_infinite_and_nothing_may_be_nan() -> None:
    mask, whole = np.array([0.0, -np.inf], np.float32), np.ones(3, np.float32)
    assert not_finite({"mask": mask, "kernel": whole}, {"kernel@m": mask}, {"kernel"}) == ""
    assert not_finite({"kernel": mask}, {}, {"kernel"}) == "kernel holds NaN or infinite values"
    nan = np.array([np.nan, 1.0], np.float32)
    assert not_finite({"a": nan, "b": whole}, {"b@m": nan}, {"b"}) == "a, b@m hold NaN or infinite values"
    # Finite numbers whose sum overflows are no infinities.
    assert not_finite({"kernel": np.full(4, 3e38, np.float32)}, {}, {"kernel"}) == ""
