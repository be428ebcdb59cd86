"""The leaderboard: seeds together, the best first, in a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from nameplate.training.config import From
from tests.trainer.sweep.jobs import job
from trainer.ledger.leaderboard import Board, SweepError, best_home, board_of, columns, locate, rows, write
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State

JOBS = [
    job("a1", best=0.5, seed=1, fit__epochs=1, model="mlp"),
    job("a2", best=0.7, seed=2, fit__epochs=1, model="mlp"),
    job("b1", best=0.9, seed=1, fit__epochs=2, model="mlp"),
    job("b2", State.failed, seed=2, fit__epochs=2, model="mlp", error="no memory\nmore", exit_code=1),
    job("c1", best=float("nan"), seed=1, fit__epochs=3, model="mlp"),
]


def test_jobs_that_are_equal_but_for_their_seed_are_one_row_with_mean_and_spread() -> None:
    board = board_of(JOBS)
    assert [[each.job for each in group.jobs] for group in board.groups] == [["b1", "b2"], ["a1", "a2"], ["c1"]]
    assert board.groups[1].mean == pytest.approx(0.6)
    assert board.groups[1].spread == pytest.approx(0.1414, abs=1e-4)
    assert board.groups[0].spread is None
    assert board.keys == ("fit.epochs",)


def test_the_folds_of_a_cross_validation_are_one_row_too(tmp_path: Path) -> None:
    folds = [
        job(f"{width}{fold}", best=0.5 + 0.1 * fold, seed=0, data__fold=fold, model__width=width)
        for width in (4, 8)
        for fold in (0, 1, 2)
    ]
    board = board_of(folds)
    assert (board.keys, columns(board)[3], rows(board)[0][3]) == (("model.width",), "folds", "3/3")
    assert [group.mean for group in board.groups] == [pytest.approx(0.6)] * 2
    write(Ledger(tmp_path), board)
    lines = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines()))
    assert [line["fold"] for line in lines] == ["0", "1", "2"] * 2


def test_the_best_job_is_the_one_with_the_best_number() -> None:
    assert _best(board_of(JOBS)) == "b1"
    downwards = [job(each.job, best=each.best, upwards=False, seed=0, a=each.job) for each in JOBS[:3]]
    assert _best(board_of(downwards)) == "a1"


def test_the_table_names_what_is_not_done() -> None:
    board = board_of(JOBS)
    table = [dict(zip(columns(board), row, strict=True)) for row in rows(board)]
    assert table[0] == {
        "": "1",
        "val_accuracy": "0.9000",
        "spread": "",
        "seeds": "1/2",
        "epochs": "2",
        "best job": "b1",
        "not done": "b2 failed",
    }


def test_the_board_is_written_as_csv_with_a_line_a_job_and_as_json(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    table, data = write(ledger, board_of(JOBS))
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert [(line["job"], line["rank"], line["seed"], line["fit.epochs"]) for line in lines][:3] == [
        ("b1", "1", "1", "2"),
        ("b2", "1", "2", "2"),
        ("a1", "2", "1", "1"),
    ]
    assert lines[1]["error"] == "no memory"
    found = json.loads(data.read_text())
    assert found["best"] == "b1"
    assert found["groups"][2]["jobs"][0]["best"] is None


def test_a_setting_that_only_one_option_of_a_group_has_is_told_by_the_option() -> None:
    jobs = [job("a", best=1.0, model="mlp", model__hidden=[1]), job("b", best=2.0, model="convnet")]
    assert board_of(jobs).keys == ("model",)


def test_a_setting_as_usual_is_shown_beside_one_that_is_not() -> None:
    jobs = [job("a", best=1.0, usual={"fit.epochs": 12}), job("b", best=2.0, fit__epochs=3)]
    board = board_of(jobs)
    assert [group.settings["fit.epochs"] for group in board.groups] == [3, 12]


def test_an_empty_ledger_has_an_empty_board(tmp_path: Path) -> None:
    board = board_of([])
    assert (rows(board), board.best) == ([], None)
    (tmp_path / "ledger").mkdir()
    with pytest.raises(SweepError, match="no best one"):
        best_home(tmp_path)


def test_a_sweep_that_is_named_stands_for_its_best_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(tmp_path / "runs" / "tried")
    for each in JOBS:
        ledger.commit(each)
    runs = tmp_path / "runs"
    assert locate("tried", which=From.best, runs=str(runs)) == str(runs / "tried" / "b1")
    assert locate("tried", which=From.best, runs=str(runs / "tried")) == str(runs / "tried" / "b1")
    assert locate("nothing", which=From.best, runs=str(runs)) == "nothing"


def _best(board: Board) -> str:
    best: JobRecord | None = board.best
    assert best is not None
    return best.job
