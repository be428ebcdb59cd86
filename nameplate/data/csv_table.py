"""CSV tables of numbers and classes; every problem names its lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nameplate.data.config import CsvConfig
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.errors import refuse
from nameplate.data.source import Memory, bundle
from nameplate.data.splits import split
from nameplate.data.user_data import table_columns
from nameplate.naming.names import did_you_mean, fault, sanitized

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
SHOWN = 10  # lines listed in a problem


@dataclass(frozen=True)
class CsvTable:
    """The cells of a file as text, by column, and the line on which each row ends."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float32 (rows,); the column must have no problems."""
        return np.array(self.columns[column], np.float32)


def read_table(path: Path, delimiter: str) -> tuple[CsvTable, list[str]]:
    """Return the table in a file with a header, and the problems of its form."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except UnicodeDecodeError as error:
            return CsvTable(path, {}, []), [f"{path} is not in UTF-8 ({error}); save it as UTF-8"]
        except csv.Error as error:
            return CsvTable(path, {}, []), [f"{path}: line {reader.line_num + 1} cannot be read: {error}"]
    problems = list(_form_problems(path, header, rows))
    whole = [(line, row) for line, row in rows if len(row) == len(header)]
    columns = {name: [row[place] for _, row in whole] for place, name in enumerate(header)}
    return CsvTable(path, columns, [line for line, _ in whole]), problems


def column_problems(table: CsvTable, *, numbers: list[str], texts: list[str]) -> Iterator[str]:
    """Yield columns that do not exist, and lines whose cell is missing or not a number."""
    for name in (*numbers, *texts):
        if name not in table.columns:
            known = ", ".join(table.columns)
            hint = _delimiter_hint(table) or did_you_mean(name, table.columns)
            yield f"{table.path}: no column {name!r}; it has {known}.{hint}"
    for name in (*numbers, *texts):
        cells = table.columns.get(name, [])
        absent = [line for line, cell in zip(table.lines, cells, strict=False) if cell.casefold() in MISSING]
        if absent:
            yield f"{table.path}: the column {name!r} has no value in {_lines(absent)}"
    for name in numbers:
        yield from _number_problems(table, name)


def _delimiter_hint(table: CsvTable) -> str:
    """Return the delimiter to set when the only column of a table looks like several."""
    if len(table.columns) != 1:
        return ""
    other = next((mark for mark in ";|," if mark in next(iter(table.columns))), "")
    return f" Is it separated by {other!r}? Set 'data.delimiter={other}'" if other else ""


def _number_problems(table: CsvTable, name: str) -> Iterator[str]:
    cells = table.columns.get(name, [])
    bad = [
        (line, cell)
        for line, cell in zip(table.lines, cells, strict=False)
        if cell.casefold() not in MISSING and not _is_number(cell)
    ]
    if bad:
        advice = "leave the column out of data.inputs" if len(bad) == len(cells) else "correct it"
        where = _lines([line for line, _ in bad])
        yield f"{table.path}: the column {name!r} has {bad[0][1]!r}, not a number, in {where}; {advice}"


def _form_problems(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> Iterator[str]:
    if not rows:
        yield f"{path}: no rows under the header {','.join(header)!r}" if header else f"{path}: empty"
    for name in sorted({name for name in header if header.count(name) > 1}):
        yield f"{path}: two columns are called {name!r}"
    wrong = [line for line, row in rows if len(row) != len(header)]
    if wrong:
        yield f"{path}: the header has {len(header)} columns, unlike {_lines(wrong)}"


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _lines(lines: list[int]) -> str:
    shown = ", ".join(str(line) for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        return f"lines {shown} and {len(lines) - SHOWN} more"
    return f"line{'s' if len(lines) > 1 else ''} {shown}"


def open_csv(config: CsvConfig) -> Dataset:
    """Return the columns of a table: one input `features` float32 (columns,), or each column an input (1,).

    A column of classes becomes the index of each value among the distinct values, which are sorted as numbers if all
    are whole, else as text. A column of categories becomes a number for each of its distinct values, 1 for the row's
    own and 0 for the others, after the columns of numbers. An input or output has its column's name, with `_` for what
    a layer's name cannot have.

    Raises:
        DataError: missing columns, missing values and text among numbers, with their lines.
    """
    paths = {"train": config.path, "validation": config.validation_path, "test": config.test_path}
    read = {key: read_table(Path(path).expanduser(), config.delimiter) for key, path in paths.items() if path}
    refuse(problem for _, problems in read.values() for problem in problems)
    tables = {key: table for key, (table, _) in read.items()}
    inputs = list(config.inputs) or _unused_columns(tables["train"], config)
    numbers = [*inputs, *config.values, *([config.sample_weight] if config.sample_weight else [])]
    refuse(
        problem
        for table in tables.values()
        for problem in column_problems(table, numbers=numbers, texts=[*config.classes, *config.categories])
    )
    names, categories = (
        {column: _distinct(tables["train"].columns[column]) for column in columns}
        for columns in (config.classes, config.categories)
    )
    refuse(problem for table in tables.values() for problem in _class_problems(table, names))
    refuse(problem for table in tables.values() for problem in _unknown_values(table, categories))
    sources = {key: _source(table, config, inputs, categories, names) for key, table in tables.items()}
    parts = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    outputs = {_name(column): Output(len(known), TargetKind.CLASSES, tuple(known)) for column, known in names.items()}
    outputs |= {_name(column): Output(1, TargetKind.VALUES) for column in config.values}
    columns = (*inputs, *categories)
    shown = [_name(column) for column in columns] if config.named else ["features"]
    values = {column: tuple(known) for column, known in categories.items()}
    return replace(describe(parts, inputs=shown, outputs=outputs), columns=columns, categories=values)


def table_inputs(
    path: Path, columns: Sequence[str], *, categories: Mapping[str, Sequence[str]], delimiter: str = ","
) -> dict[str, np.ndarray]:
    """Return columns of a CSV, Parquet, Arrow or Feather file as inputs, float32 (rows, width) each, in this order.

    Columns with `categories` have a number for each of these values, the others one.

    Raises:
        DataError: columns that do not exist, missing values, text among numbers, unknown values of categories.
    """
    if path.suffix.lower() == ".csv":
        table, problems = read_table(path, delimiter)
        refuse(problems)
    else:
        (content,) = table_columns(path, inputs=list(columns))
        cells = {name: [_cell(value) for value in array.tolist()] for name, array in content.items()}
        table = CsvTable(path, cells, list(range(1, len(next(iter(cells.values()))) + 1)))
    numbers = [column for column in columns if column not in categories]
    refuse(column_problems(table, numbers=numbers, texts=[column for column in columns if column in categories]))
    refuse(_unknown_values(table, categories))
    return _input_columns(table, columns, categories)


def _cell(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _input_columns(
    table: CsvTable, columns: Sequence[str], categories: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return numbers (rows, 1), and categories (rows, values) with one 1 in each row."""
    return {
        column: np.eye(len(categories[column]), dtype=np.float32)[_indices(table.columns[column], categories[column])]
        if column in categories
        else table.numbers(column)[:, None]
        for column in columns
    }


def _unused_columns(table: CsvTable, config: CsvConfig) -> list[str]:
    used = {*config.classes, *config.values, *config.categories, config.sample_weight}
    return [column for column in table.columns if column not in used]


def _source(
    table: CsvTable,
    config: CsvConfig,
    inputs: list[str],
    categories: dict[str, list[str]],
    names: dict[str, list[str]],
) -> Memory:
    found = _input_columns(table, [*inputs, *categories], categories)
    columns = {_name(column): array for column, array in found.items()}
    x = columns if config.named else {"features": np.concatenate(list(columns.values()), axis=1)}
    y = {_name(column): _indices(table.columns[column], names[column]) for column in config.classes}
    y |= {_name(column): table.numbers(column) for column in config.values}
    weights = [table.numbers(config.sample_weight)] if config.sample_weight else []
    return Memory((bundle(x), bundle(y), *weights))


def _indices(cells: list[str], names: Sequence[str]) -> np.ndarray:
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[cell] for cell in cells], np.int64)


def _distinct(cells: list[str]) -> list[str]:
    distinct = set(cells)
    whole = all(cell.lstrip("+-").isdecimal() for cell in distinct)
    return sorted(distinct, key=int if whole else str)


def _class_problems(table: CsvTable, names: dict[str, list[str]]) -> Iterator[str]:
    for column, known in names.items():
        where = f"{table.path}: the column {column!r}"
        if len(known) < 2:
            yield f"{where} has only the value {known[0]!r}; there is nothing to predict"
    yield from _unknown_values(table, names)


def _unknown_values(table: CsvTable, known: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for column, values in known.items():
        if other := sorted(set(table.columns[column]) - set(values)):
            yield (
                f"{table.path}: the column {column!r} has values that the training data does not: {', '.join(other)}"
            )


def _name(column: str) -> str:
    return column if fault(column) is None else sanitized(column)
