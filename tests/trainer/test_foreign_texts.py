"""Texts in runs that someone else prepared (F2): plain data within bounds, nothing of this process in what is said."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import FileFormatError, NameplateError
from nameplate.formats import limits
from nameplate.section import ConfigError
from nameplate.training.config import CheckpointInitConfig
from tests import foreign
from tests.trainer.running import train
from trainer.cli import ckpt, evaluate, names
from trainer.config import from_yaml, run_config, stored_config, to_yaml
from trainer.config.run_config import RunConfig
from trainer.job.model import rebuild

SECRET = "hunter2-of-this-process"
SMALL = ["model=mlp", "model.hidden=[4]", "data.limit=16", "fit.steps=1"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, strategy: object) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train(runs, *SMALL, "run=mine")
    return runs / "mine"


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


TEXTS: dict[str, Callable[[], str]] = {
    "nine levels of aliases": lambda: aliases(9),
    "an alias of a section": lambda: "data: &d {_option_: digits}\nmodel: *d\n",
    "5,000 levels in brackets": lambda: "model: " + "[" * 5000 + "]" * 5000,
    "5,000 levels of indentation": lambda: "\n".join(" " * n + "a:" for n in range(500)),
    "a million values": lambda: "model: [" + "1," * 100_000 + "1]",
    "a long text": lambda: "model: " + "x" * (1 << 20),
    "a tag": lambda: "model: !!python/object/apply:os.system [id]",
    "a tag of YAML's own": lambda: "model: !!binary aGk=",
    "a control character": lambda: "model: \x00",
    "a key twice": lambda: "model: 1\nmodel: 2\n",
    "references in references": lambda: "runs: " + "${" * 5000,
    "no mapping": lambda: "- a\n- b\n",
    "a scalar": lambda: "abc",
}


@pytest.mark.parametrize("text", TEXTS)
def test_f2_a_configuration_that_is_a_bomb_is_refused_at_once(text: str) -> None:
    written = TEXTS[text]()
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ConfigError, match="stored configuration"):
        stored_config(written)
    used = time.process_time() - began
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 10  # 1 s, and the rest since every allocation is traced
    assert most < 64 << 20


def test_f2_what_the_environment_holds_is_neither_looked_up_nor_said(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, data={"_option_": "arrays", "path": "${oc.env:SECRET}", "inputs": ["x"]})
    said = [_said(lambda: rebuild(str(run))), _said(lambda: train(tmp_path, *SMALL, "run=theirs"))]
    assert "not what theirs step_00000001 was trained with" in said[1]
    assert ckpt.main(["show", str(run)]) == 0
    assert SECRET not in "".join([*said, *capsys.readouterr()])
    with store.open(foreign.newest(run)) as checkpoint:
        assert from_yaml(checkpoint.config)["data"]["path"] == "${oc.env:SECRET}"


def _said(enter: Callable[[], object]) -> str:
    try:
        return str(enter())
    except NameplateError as error:
        return str(error)


def test_f2_a_number_that_is_looked_up_is_refused_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    text = to_yaml(run_config([])).replace("epochs: 12", "epochs: ${oc.env:SECRET}")
    with pytest.raises(ConfigError) as error:
        stored_config(text)
    assert "'${oc.env:SECRET}'" in str(error.value)
    assert "is not looked up in this process" in str(error.value)
    assert SECRET not in str(error.value)


def test_f2_what_refers_to_another_key_has_its_value_and_all_else_stays_text() -> None:
    text = to_yaml(run_config([*INIT, "init.path='${runs}/x_${seed}'", "seed=3", "fit.epochs=${seed}"]))
    assert "${runs}/x_${seed}" in text
    found = stored_config(text)
    assert (_path(found), found.fit.epochs) == ("runs/x_3", 3)
    kept = stored_config(text.replace("${runs}/x_${seed}", "${oc.env:HOME}/${nowhere}"))
    assert _path(kept) == "${oc.env:HOME}/${nowhere}"


def test_f2_values_do_not_grow_by_referring_to_each_other() -> None:
    lines = ["run: " + "x" * 200, *(f"k{n}: '{f'${{k{n - 1}}}' * 10}'" for n in range(1, 9))]
    text = to_yaml(run_config([*INIT, "init.path=theirs"]))
    grown = "\n".join([text.replace("path: theirs", "path: " + "${k8}" * 16), *lines[1:]])
    assert len(_path(stored_config(grown))) < 10_000
    assert from_yaml("a: ${a}") == {"a": "${a}"}


INIT = ["init=checkpoint"]


def _path(config: RunConfig) -> str:
    assert isinstance(config.init, CheckpointInitConfig)
    return config.init.path


DEEP = {
    "5,000 levels": lambda: '{"config": ' + "[" * 5000 + "]" * 5000 + "}",
    "300 levels": lambda: '{"config": ' + "[" * 300 + "]" * 300 + "}",
    "a million objects": lambda: '{"config": [' + "[]," * 1_000_000 + "[]]}",
    "a number of 10,000 digits": lambda: '{"config": ' + "1" * 10_000 + "}",
}


@pytest.mark.parametrize("text", DEEP)
def test_f2_a_model_that_is_a_bomb_is_refused_at_every_door(
    text: str, honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_text(run, "model.json", DEEP[text]())
    with pytest.raises(FileFormatError, match=r"cannot be read as JSON|nested deeper than"):
        nameplate.load(foreign.newest(run))
    assert names.main([str(run)]) == 2
    assert ckpt.main(["convert", str(run), str(tmp_path / "x.pt")]) == 2
    assert "theirs" in capsys.readouterr().err
    assert len(nameplate.load(foreign.newest(run), only=["*"])) == 4


def test_f2_what_honest_models_nest_is_read() -> None:
    nested: object = []
    for level in range(50):
        nested = {"class_name": "Functional", "config": {"name": f"m{level}", "layers": [nested]}}
    assert limits.parsed(json.dumps(nested), "it") == nested


def test_f2_data_that_refers_to_a_process_is_not_looked_up_where_some_of_it_is_changed(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, data={"_option_": "csv", "path": "${oc.env:TOKEN}", "classes": ["kind"]})
    assert evaluate.main([str(run), "data.validation=0.2"]) == 2
    said = "".join(capsys.readouterr())
    assert "refers to its own process; describe all of it" in said
    assert SECRET not in said
