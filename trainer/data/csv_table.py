"""Reading a CSV table of numbers and classes, with the line of everything that cannot be read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.names import did_you_mean

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
SHOWN = 10  # lines that a problem lists


@dataclass(frozen=True)
class Table:
    """The cells of a file as text, by column, and the line that each row ends on."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float32 (rows,); for a column without problems."""
        return np.array(self.columns[column], np.float32)


def read_table(path: Path, delimiter: str) -> tuple[Table, list[str]]:
    """Return the table of a file with a header, and the problems of its form."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except UnicodeDecodeError as error:
            return Table(path, {}, []), [f"{path} is not in UTF-8 ({error}); save it as UTF-8"]
        except csv.Error as error:
            return Table(path, {}, []), [f"{path}: line {reader.line_num + 1} cannot be read: {error}"]
    found = list(_form_problems(path, header, rows))
    whole = [(line, row) for line, row in rows if len(row) == len(header)]
    columns = {name: [row[place] for _, row in whole] for place, name in enumerate(header)}
    return Table(path, columns, [line for line, _ in whole]), found


def column_problems(table: Table, *, numbers: list[str], texts: list[str]) -> Iterator[str]:
    """Yield the columns that are not there, and the lines whose cell is missing or no number."""
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


def _delimiter_hint(table: Table) -> str:
    """Return what to set where the one column of a table looks like several."""
    if len(table.columns) != 1:
        return ""
    other = next((each for each in ";|," if each in next(iter(table.columns))), "")
    return f" Is it cut at {other!r}? Say 'data.delimiter={other}'" if other else ""


def _number_problems(table: Table, name: str) -> Iterator[str]:
    cells = table.columns.get(name, [])
    bad = [
        (line, cell)
        for line, cell in zip(table.lines, cells, strict=False)
        if cell.casefold() not in MISSING and not _is_number(cell)
    ]
    if bad:
        advice = "leave the column out of data.inputs" if len(bad) == len(cells) else "correct it"
        where = _lines([line for line, _ in bad])
        yield f"{table.path}: the column {name!r} has {bad[0][1]!r} for a number in {where}; {advice}"


def _form_problems(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> Iterator[str]:
    if not rows:
        yield f"{path}: no rows under the header {','.join(header)!r}" if header else f"{path}: empty"
    for name in sorted({name for name in header if header.count(name) > 1}):
        yield f"{path}: two columns are called {name!r}"
    wrong = [line for line, row in rows if len(row) != len(header)]
    if wrong:
        yield f"{path}: the header has {len(header)} columns, and another number has {_lines(wrong)}"


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
