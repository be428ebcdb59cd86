"""CSV tables as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.names import fault, sanitized
from trainer.config.data import CsvConfig
from trainer.data.csv_table import Table, column_problems, read_table
from trainer.data.dataset import Dataset, Kind, Output, describe
from trainer.data.errors import refuse
from trainer.data.memory import Memory
from trainer.data.source import bundle
from trainer.data.splits import split


def open_csv(config: CsvConfig) -> Dataset:
    """Return the columns of a table: one input `features` float32 (columns,), or each column an input (1,).

    A column of classes becomes the number of its value among the distinct values, sorted as numbers where all
    are whole, else as text. An input or output has its column's name, with `_` where that names no layer.

    Raises:
        DataError: columns that are not there, missing values and text among numbers, with their lines.
    """
    paths = {"train": config.path, "validation": config.validation_path, "test": config.test_path}
    read = {key: read_table(Path(path).expanduser(), config.delimiter) for key, path in paths.items() if path}
    refuse(problem for _, problems in read.values() for problem in problems)
    tables = {key: table for key, (table, _) in read.items()}
    inputs = list(config.inputs) or _left_over(tables["train"], config)
    numbers = [*inputs, *config.values, *([config.sample_weight] if config.sample_weight else [])]
    refuse(
        problem
        for table in tables.values()
        for problem in column_problems(table, numbers=numbers, texts=list(config.classes))
    )
    names = {column: _distinct(tables["train"].columns[column]) for column in config.classes}
    refuse(problem for table in tables.values() for problem in _class_problems(table, names))
    sources = {key: _source(table, config, inputs, names) for key, table in tables.items()}
    parts = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    outputs = {_name(each): Output(len(names[each]), Kind.CLASSES, tuple(names[each])) for each in names}
    outputs |= {_name(each): Output(1, Kind.VALUES) for each in config.values}
    shown = [_name(column) for column in inputs] if config.named else ["features"]
    return describe(parts, inputs=shown, outputs=outputs)


def _left_over(table: Table, config: CsvConfig) -> list[str]:
    used = {*config.classes, *config.values, config.sample_weight}
    return [column for column in table.columns if column not in used]


def _source(table: Table, config: CsvConfig, inputs: list[str], names: dict[str, list[str]]) -> Memory:
    columns = {_name(column): table.numbers(column)[:, None] for column in inputs}
    x = columns if config.named else {"features": np.concatenate(list(columns.values()), axis=1)}
    y = {_name(column): _numbered(table.columns[column], names[column]) for column in config.classes}
    y |= {_name(column): table.numbers(column) for column in config.values}
    weights = [table.numbers(config.sample_weight)] if config.sample_weight else []
    return Memory((bundle(x), bundle(y), *weights))


def _numbered(cells: list[str], names: list[str]) -> np.ndarray:
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[cell] for cell in cells], np.int64)


def _distinct(cells: list[str]) -> list[str]:
    distinct = set(cells)
    whole = all(cell.lstrip("+-").isdecimal() for cell in distinct)
    return sorted(distinct, key=int if whole else str)


def _class_problems(table: Table, names: dict[str, list[str]]) -> Iterator[str]:
    for column, known in names.items():
        where = f"{table.path}: the column {column!r}"
        if len(known) < 2:
            yield f"{where} has the one value {known[0]!r}; there is nothing to predict"
        if other := sorted(set(table.columns[column]) - set(known)):
            yield f"{where} has values that the training data has not: {', '.join(other)}"


def _name(column: str) -> str:
    return column if fault(column) is None else sanitized(column)
