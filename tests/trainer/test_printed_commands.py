"""Commands that are printed work as printed, whichever way the run was started."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.engine.cluster import LAUNCHER
from nameplate.errors import StoppedError
from nameplate.training.run_directory import RunDirectory, marked
from tests.trainer.running import QUICK
from trainer.cli.ckpt import main as ckpt
from trainer.config import overrides_of, run_config, to_plain
from trainer.config.run_config import RunConfig
from trainer.job.report import again, commands

LINES: list[list[str]] = [
    [],
    ["model=mlp", "fit.epochs=3", "schedule=linear", "schedule.final=0.1"],
    ["model=custom", "model._target_=my.net", "trust=[my]", "model.arguments={width: 3, kind: 'a,b'}"],
    ["optimizer=sgd", "optimizer.rates={backbone/x: 1e-4}", "objective.losses={a: huber}", "naming=repair"],
    ["init=transfer", "init.path='it\\'s \\\\'", "init.only=['re:^a$']", "init.freeze=[a]", "init.unfreeze={5: [a]}"],
    ["experiment=transfer_digits", "runs='${oc.env:HOME}/x'"],
    ["debug=fast", "data.limit=null", "checkpoint.monitor='null'"],
]


def composed(command: str) -> RunConfig:
    """Return the configuration that a printed command gives."""
    words = shlex.split(command)
    assert words[1:3] == ["-m", "trainer"]
    return run_config(words[3:])


def text(config: RunConfig) -> str:
    """Return a configuration as text, in which the keys `5` and `'5'` are one."""
    return json.dumps(to_plain(config), sort_keys=True)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_e3_a_configuration_is_written_as_the_command_line_that_gives_it(line: list[str]) -> None:
    config = run_config(line)
    found = overrides_of(config)
    assert found is not None
    assert text(run_config(found)) == text(config)


def test_e3_after_a_run_from_python_the_command_is_all_of_it(
    strategy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config([f"runs={tmp_path}", *QUICK, "model=mlp", "data.limit=16", "fit.steps=1", "run=nb"])
    nameplate.train(replace(config, seed=3))  # changed in Python, after no command line
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  resume "))
    assert to_plain(composed(line.removeprefix("  resume").strip())) == to_plain(replace(config, seed=3))


def test_e3_what_no_command_line_says_is_a_call_from_python() -> None:
    config = run_config(["model=mlp"])
    odd = replace(config, objective=replace(config.objective, losses={"a b, c: d": "huber"}))
    assert again(odd, run="nb") == "nameplate.train(dataclasses.replace(config, run='nb'))"


def test_e3_workers_that_were_launched_are_launched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHER, "python -m scripts.launch --workers 2 --")
    config = run_config(["strategy=multi_worker", "model=mlp", "fit.epochs=1"])
    command = commands(config, RunDirectory(tmp_path / "pair"))["resume"]
    assert command.startswith("python -m scripts.launch --workers 2 -- ")
    words = shlex.split(command)[6:]
    assert to_plain(run_config(["strategy=multi_worker", *words])) == to_plain(replace(config, run="pair"))


def test_e3_a_run_that_was_stopped_names_the_command_that_goes_on(tmp_path: Path) -> None:
    """Without run=NAME the same command would begin another run."""
    message = r"goes on from there: python -m trainer run=a$"
    with pytest.raises(StoppedError, match=message), marked(RunDirectory(tmp_path), command="python -m trainer run=a"):
        raise StoppedError(signal.SIGTERM, 3, "saved")


@pytest.mark.parametrize(
    "command", [["convert"], ["extract", "dense"], ["rename", "dense=other"]], ids=lambda it: it[0]
)
@pytest.mark.parametrize("name", ["x.onnx", "x.TFLITE", "x.npz", "x.h5"])
def test_e3_a_file_of_another_format_is_not_the_name_of_a_run(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"dense/kernel": np.zeros((2, 2), np.float32)}
    store.save(tmp_path / "run" / "checkpoints", store.Snapshot(1, 0, 0, weights, {}, {}, {}, "", "", {}))
    assert ckpt([command[0], str(tmp_path / "run"), str(tmp_path / name), *command[1:]]) == 2
    assert name in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
