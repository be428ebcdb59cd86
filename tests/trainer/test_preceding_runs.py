"""Runs before a run: made first, where it is and on its devices, once; listed beside it at its end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from nameplate.engine.signals import StopRequest
from nameplate.errors import StoppedError
from nameplate.section import ConfigError
from tests.trainer.running import about, train
from trainer.config import run_config, stored_config, to_yaml
from trainer.job import preceding_runs
from trainer.job.preceding_runs import PrecedingError

SMALL = ["model=mlp", "model.hidden=[4]", "data.limit=16", "fit.epochs=1"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Train what a process of its own would, in this one, and keep what it was asked."""
    calls: list[Sequence[str]] = []

    def trained(arguments: Sequence[str], stop: StopRequest) -> int:
        assert stop.received is None
        calls.append(arguments)
        runs = Path(next(each for each in arguments if each.startswith("runs=")).partition("=")[2])
        train(runs, *(each for each in arguments if not each.startswith("runs=")))
        return 0

    monkeypatch.setattr(preceding_runs, "_trained", trained)
    return calls


@pytest.mark.usefixtures("strategy")
def test_the_runs_before_are_made_first_and_once_and_compared_at_the_end(
    tmp_path: Path, asked: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = "before={one: ['model=mlp','fit.epochs=1','data.limit=16'], two: ['experiment=digit_pairs','fit.steps=1']}"
    options = ["init=checkpoint", "init.path=${runs}/one", "model=mlp", "data.limit=16", before, "run=main"]
    train(tmp_path, *options, "fit.epochs=1")
    told = capsys.readouterr().out

    assert [each[0] for each in asked] == ["run=one", "run=two"]
    assert about(tmp_path / "main")["origins"]["label/kernel"]["file"].startswith(str(tmp_path / "one"))
    table = told[told.rindex("best val_accuracy") :]
    assert "main" in table
    assert "one" in table
    assert "two" not in table  # which measures something else

    train(tmp_path, *options, "fit.epochs=2")
    assert len(asked) == 2


def test_they_get_the_place_the_devices_and_the_trust_of_the_run() -> None:
    config = run_config(["runs=here", "strategy=cpu_replicas", "strategy.replicas=2", "trust=[nets]"])
    assert list(preceding_runs._shared_overrides(config)) == [
        "runs=here",
        "strategy.kind=cpu_replicas",
        "strategy.replicas=2",
        "trust=[nets]",
    ]


def test_one_that_is_refused_refuses_the_run_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    with pytest.raises(PrecedingError, match="one must be made before this run, but ended with exit code 2"):
        train(tmp_path, *SMALL, "before={one: ['fit.epoch=1']}", "run=main")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_both_and_the_run_can_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(arguments: Sequence[str], stop: StopRequest) -> int:
        stop.received = signal.SIGTERM
        return 143

    monkeypatch.setattr(preceding_runs, "_trained", stopped)
    with pytest.raises(StoppedError, match="one saved what it had"):
        train(tmp_path, *SMALL, "before={one: []}", "run=main")
    assert (tmp_path / "main" / "requeue.json").exists()
    assert not store.checkpoints(tmp_path / "main" / "checkpoints")


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["before={a: []}", "run=a"], "before.a: 'a' is this run itself"),
        (["before={a: []}", "strategy=multi_worker"], "make them first with one process, then before=null"),
        (["before={a: ['trust=[evil]']}"], "before.a: trust=[evil] is only for the command line"),
        (["before={a: ['hydra.searchpath=[x]', '--config-dir=x']}"], "--config-dir=x is only for the command line"),
    ],
)
def test_runs_before_that_cannot_be_meant_are_refused(overrides: list[str], part: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run_config(overrides)
    assert part in str(refused.value)


def test_the_experiment_gives_the_runs_before_it_its_own_sizes_and_is_read_again_as_it_was_stored() -> None:
    config = run_config(["experiment=transfer_digits", "model.width=8", "data.limit=20", "runs=r"])
    assert config.before is not None
    assert "model.width=8" in config.before["pairs"]
    assert "data.limit=20" in config.before["few_from_scratch"]
    assert getattr(stored_config(to_yaml(config)).init, "path") == "r/pairs"  # noqa: B009
