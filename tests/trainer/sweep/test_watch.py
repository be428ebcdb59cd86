"""A sweep as it goes: a table on a terminal, and lines in a log file."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from nameplate.training.console import Screen
from tests.trainer.sweep.jobs import job
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State
from trainer.sweep.watch import Watch, table

JOBS = [
    job("a", best=0.5, seed=1, fit__epochs=1),
    job("b", State.failed, seed=2, fit__epochs=1, error="no memory\nat all", exit_code=1),
    job("c", State.running, seed=1, fit__epochs=2, started="2026-01-01T00:00:00+00:00"),
    job("d", State.planned, seed=2, fit__epochs=2),
]


def test_the_table_has_those_that_run_first_and_says_how_many_stand_how() -> None:
    console = Console(width=120, record=True, file=None)
    with console.capture() as captured:
        console.print(table(JOBS))
    lines = captured.get().splitlines()
    assert lines[0].strip() == "1 planned, 1 running, 1 done, 1 failed"
    order = [line.split()[1] for line in lines if line.startswith("│")]
    assert order == ["c", "a", "b", "d"]
    assert "no memory" in captured.get()
    assert "epochs" in captured.get()


def test_a_large_sweep_is_shown_in_part() -> None:
    many = [job(f"j{number}", State.planned, seed=number) for number in range(40)]
    shown = table(many)
    assert shown.row_count == 25


def test_a_log_file_has_a_line_for_each_change(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(JOBS[3])
    with Watch(ledger, Screen(), jobs=["a", "b", "d"]):
        for each in JOBS[:2]:
            ledger.commit(each)
        ledger.commit(job("c", best=0.1, seed=1))  # of another call
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said] == [["a", "done"], ["b", "failed"]]
    assert "exit 1: no memory" in said[1]
    assert "(1 of 3 done)" in said[0]
