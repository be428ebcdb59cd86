"""Replicas change nothing, at length: every training of every table, on every number of replicas and workers."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

import pytest

from tests.nameplate.engine.replication import comparing
from tests.nameplate.engine.replication.processes import STRATEGIES, run_table

TABLES = {
    "cases": [name for name in STRATEGIES if name != "one device"],
    "zoo_cases": ["keras", "1 replica", "2 replicas", "4 replicas", "2 workers"],
    "application_cases": ["2 replicas", "4 replicas", "2 workers"],
}
RUNS = [(table, strategy) for table, strategies in TABLES.items() for strategy in strategies]
# Where replicas draw numbers, only those of the same number are alike.
ALIKE = {"2 workers": "2 replicas", "2 workers, 2 replicas each": "4 replicas"}

Tables = dict[str, comparing.Numbers]  # by strategy


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return what gives the numbers of a table by strategy; each table runs once, also where it fails."""

    @cache
    def ran(table: str) -> Tables | Exception:
        place: Path = tmp_path_factory.mktemp(table)
        try:
            return run_table(f"tests.nameplate.engine.replication.{table}", place, ["one device", *TABLES[table]])
        except Exception as error:
            return error

    def of(table: str) -> Tables:
        found = ran(table)
        if isinstance(found, Exception):
            raise found
        return found

    return of


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("table", "strategy"), RUNS, ids=[", ".join(run) for run in RUNS])
def test_every_number_is_that_of_one_device(results: object, table: str, strategy: str) -> None:
    assert callable(results)
    numbers, wrong = results(table), {}
    for name, training in importlib.import_module(f"tests.nameplate.engine.replication.{table}").TRAININGS.items():
        reference = ALIKE.get(strategy, "one device") if training.draws else "one device"
        if training.draws and strategy in ("2 replicas", "4 replicas"):
            continue
        found, expected = comparing.of(name, numbers[strategy]), comparing.of(name, numbers[reference])
        wrong[name] = comparing.wrong(training, found, expected)
        assert expected
    assert {name: each for name, each in wrong.items() if each} == {}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("table", TABLES)
def test_no_step_is_traced_more_often_than_its_shapes_need(results: object, table: str) -> None:
    assert callable(results)
    beyond = {
        (strategy, key): int(value)
        for strategy, numbers in results(table).items()
        for key, value in numbers.items()
        if key.endswith("/traces") and value
    }
    assert beyond == {}
