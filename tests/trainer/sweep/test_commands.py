"""`python -m trainer.sweep ls | show | best`: what a ledger knows, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.sweep.jobs import job
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State
from trainer.sweep.__main__ import main

JOBS = [
    job("abc1", best=0.5, seed=1, fit__epochs=1),
    job("abd2", best=0.75, seed=1, fit__epochs=2),
    job("c3", State.failed, seed=2, fit__epochs=2, error="no memory\nat all", exit_code=1),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "tried")
    for each in JOBS:
        ledger.commit(each)
    ledger.write_about({"command": ["python", "-m", "trainer", "-m", "seed=1,2"], "called": "2026-01-01"})
    (ledger.home("c3")).mkdir()
    (ledger.home("c3") / "failure.txt").write_text("Traceback (most recent call last): ...")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ls"], ["tried", "2 done, 1 failed", "val_accuracy 0.7500"]),
        (["ls", "tried"], ["abc1", "failed", "no memory", "epochs"]),
        (["show", "tried"], ["abd2", "0.7500", "c3 failed", "python -m trainer -m seed=1,2"]),
        (["show", "tried", "c3"], ["no memory", "Traceback", "fit.epochs", "exit_code"]),
        (["best", "tried"], ["abd2", "0.75", "init=checkpoint"]),
    ],
)
def test_a_person_is_told(arguments: list[str], says: list[str], runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*arguments, "--runs", str(runs)]) == 0
    said = capsys.readouterr().out
    assert [each for each in says if each not in said] == []


def test_a_program_is_told(runs: Path, capsys: pytest.CaptureFixture) -> None:
    def told(*arguments: str) -> object:
        assert main([*arguments, "--runs", str(runs)]) == 0
        return json.loads(capsys.readouterr().out)

    listed = told("ls", "tried", "--json")
    assert isinstance(listed, list)
    assert [each["state"] for each in listed] == ["done", "done", "failed"]
    assert told("ls", "--json") == {"tried": {"done": 2, "failed": 1}}
    shown, best = told("show", "tried", "--json"), told("best", "tried", "--json")
    assert isinstance(shown, dict)
    assert isinstance(best, dict)
    assert (shown["best"], best["job"], best["settings"]["fit.epochs"]) == ("abd2", "abd2", 2)


def test_a_script_gets_the_directory_of_the_best_job(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["best", str(runs / "tried"), "--path"]) == 0
    assert capsys.readouterr().out == f"{runs / 'tried' / 'abd2'}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "tryed"], "Did you mean tried?"),
        (["show", "tried", "ab"], "begins the names of 2 jobs: abc1, abd2"),
        (["show", "tried", "c4"], "has no job c4. It has abc1, abd2, c3"),
        (["ls", "--runs", "nowhere"], "There are no sweeps in nowhere"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    arguments: list[str], says: str, runs: Path, capsys: pytest.CaptureFixture
) -> None:
    given = arguments if "--runs" in arguments else [*arguments, "--runs", str(runs)]
    assert main(given) == 2
    assert says in capsys.readouterr().err.replace("'", "")
