"""Columns of numbers and of text, read from a CSV, Parquet, Arrow or Feather file; every problem names its rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nameplate.data.errors import DataError
from nameplate.errors import FileFormatError
from nameplate.formats.limits import Budget
from nameplate.naming.names import did_you_mean

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  # in a CSV file; others have nulls
SHOWN = 10  # rows listed in a problem
INSTALL = "tables are read by pyarrow, which is not installed: pip install 'nameplate[tables]'"
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([ T].*)?|\d\d?[./]\d\d?[./]\d{2,4}")
_DATES = "dates are not read: turn them into numbers (the year, the days since a start)"

# Columns that repeat themselves compress a hundredfold. The floor is in bytes.
_FLOOR = 1 << 30
_EXPANSION = 200
_BATCH = 1 << 16  # rows that are decoded at a time


@dataclass(frozen=True)
class Texts:
    """A column of text: its distinct values in the order in which they occur, and the place of each row's."""

    values: tuple[str, ...]
    codes: np.ndarray  # int64 (rows,)

    def counts(self) -> dict[str, int]:
        """Return how many rows each value has."""
        return dict(zip(self.values, np.bincount(self.codes, minlength=len(self.values)).tolist(), strict=True))

    def respelt(self, spelling: Mapping[str, str]) -> Texts:
        """Return the column with some values called otherwise; those that are then alike are one."""
        places: dict[str, int] = {}
        lookup = [places.setdefault(spelling.get(value, value), len(places)) for value in self.values]
        return Texts(tuple(places), np.array(lookup, np.int64)[self.codes])

    def indices(self, known: Sequence[str]) -> np.ndarray:
        """Return the place of each row's value in `known`, int64 (rows,); every value must be there."""
        number = {value: place for place, value in enumerate(known)}
        return np.array([number[value] for value in self.values], np.int64)[self.codes]


@dataclass(frozen=True)
class Columns:
    """The columns of a file that were asked for."""

    path: Path
    numbers: dict[str, np.ndarray] = field(default_factory=dict)  # float32 (rows,)
    texts: dict[str, Texts] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows."""
        lengths = [len(array) for array in self.numbers.values()] + [len(each.codes) for each in self.texts.values()]
        return lengths[0]


class TableFile(Protocol):
    """A file with a table."""

    path: Path
    names: list[str]  # of all columns
    faults: list[str]  # problems of its form

    def read(self, *, numbers: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
        """Return these columns, at least one, and what is wrong with them; with problems the columns are unusable."""


def table_file(path: Path, delimiter: str = ",", *, always_csv: bool = False) -> TableFile:
    """Return the table in a file: by its suffix, or `always_csv`. `delimiter` is between the cells of a CSV file.

    Raises:
        DataError: pyarrow is needed and is not installed.
    """
    if always_csv or path.suffix.lower() == ".csv":
        return CsvFile(path, delimiter)
    try:
        return ArrowFile(path)
    except ImportError as error:
        raise DataError(INSTALL) from error


class CsvFile:
    """A CSV file with a header; its cells are kept as text."""

    def __init__(self, path: Path, delimiter: str, *, content: bytes | None = None) -> None:
        """Read the file, or `content` that `path` names in messages."""
        self.path, self.names, self.faults = path, [], []
        self._cells: dict[str, list[str]] = {}
        self._lines: list[int] = []  # on which each row ends
        raw = path.open("rb") if content is None else io.BytesIO(content)
        with io.TextIOWrapper(raw, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            try:
                header = [name.strip() for name in next(reader, [])]
                rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
            except UnicodeDecodeError as error:
                self.faults.append(f"{path} is not in UTF-8 ({error}); save it as UTF-8")
                return
            except csv.Error as error:
                self.faults.append(f"{path}: line {reader.line_num + 1} cannot be read: {error}")
                return
        self.faults += _form_problems(path, header, rows)
        whole = [(line, row) for line, row in rows if len(row) == len(header)]
        self._cells = {name: [row[place] for _, row in whole] for place, name in enumerate(header)}
        self._lines = [line for line, _ in whole]
        self.names = list(self._cells)

    def read(self, *, numbers: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
        """Return these columns, and what is wrong with them."""
        problems = _unknown(self, (*numbers, *texts), _delimiter_hint(self.names))
        found = [name for name in (*numbers, *texts) if name in self._cells]
        problems += [line for name in found for line in self._missing(name)]
        problems += [line for name in numbers if name in self._cells for line in self._not_numbers(name)]
        if problems or self.faults:
            return Columns(self.path), problems
        return (
            Columns(
                self.path,
                {name: np.array(self._cells[name], np.float32) for name in numbers},
                {name: _texts(self._cells[name]) for name in texts},
            ),
            [],
        )

    def _missing(self, name: str) -> Iterator[str]:
        rows = [row for row, cell in enumerate(self._cells[name]) if cell.casefold() in MISSING]
        if rows:
            yield f"{self.path}: the column {name!r} has no value in {self._where(rows)}"

    def _not_numbers(self, name: str) -> Iterator[str]:
        cells = self._cells[name]
        bad = [row for row, cell in enumerate(cells) if cell.casefold() not in MISSING and not _is_number(cell)]
        if bad:
            first, advice = cells[bad[0]], "correct it"
            if len(bad) == len(cells):
                dates = all(_DATE.fullmatch(cell) for cell in cells)
                advice = f"{_DATES}, or" if dates else f"data.categories=[{name}] makes it an input, or"
                advice += " leave the column out of data.inputs"
            yield f"{self.path}: the column {name!r} has {first!r}, not a number, in {self._where(bad)}; {advice}"

    def _where(self, rows: list[int]) -> str:
        return _listed([self._lines[row] for row in rows], "line")


def _texts(cells: Iterable[str]) -> Texts:
    places: dict[str, int] = {}
    codes = np.array([places.setdefault(cell, len(places)) for cell in cells], np.int64)
    return Texts(tuple(places), codes)


def _form_problems(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> Iterator[str]:
    if not rows:
        yield f"{path}: no rows under the header {','.join(header)!r}" if header else f"{path}: empty"
    yield from _twice(path, header)
    wrong = [line for line, row in rows if len(row) != len(header)]
    if wrong:
        yield f"{path}: the header has {len(header)} columns, unlike {_listed(wrong, 'line')}"


def _twice(path: Path, names: Sequence[str]) -> list[str]:
    return [f"{path}: two columns are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]


def _unknown(file: TableFile, names: Iterable[str], hint: str = "") -> list[str]:
    known = ", ".join(file.names)
    return [
        f"{file.path}: no column {name!r}; it has {known}.{hint or did_you_mean(name, file.names)}"
        for name in names
        if name not in file.names and not file.faults
    ]


def _delimiter_hint(names: Sequence[str]) -> str:
    """Return the delimiter to set when the only column of a table looks like several."""
    if len(names) != 1:
        return ""
    other = next((mark for mark in ";|," if mark in names[0]), "")
    return f" Is it separated by {other!r}? Set 'data.delimiter={other}'" if other else ""


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _listed(numbers: Sequence[int], what: str) -> str:
    shown = ", ".join(str(number) for number in numbers[:SHOWN])
    if len(numbers) > SHOWN:
        return f"{what}s {shown} and {len(numbers) - SHOWN} more"
    return f"{what}{'s' if len(numbers) > 1 else ''} {shown}"


class ArrowFile:
    """A Parquet, Arrow or Feather file; only the columns that are asked for are read, some thousand rows at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self.path, self.names, self.faults = path, [], []
        self._arrow: Any = pyarrow
        try:
            self._schema = self._opened([])[0]
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            self.faults.append(f"{path} cannot be read as a table: {_first_line(error)}")
            return
        self.names = list(self._schema.names)
        self.faults += _twice(path, self.names)

    def read(self, *, numbers: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
        """Return these columns, and what is wrong with them."""
        wanted = list(dict.fromkeys((*numbers, *texts)))
        problems = _unknown(self, wanted)
        problems += [line for name in numbers if name in self.names for line in self._type_problems(name, number=True)]
        problems += [line for name in texts if name in self.names for line in self._type_problems(name, number=False)]
        if problems or self.faults:
            return Columns(self.path), problems
        readers: dict[str, _Numbers | _Words] = {name: _Numbers() for name in numbers}
        readers |= {name: _Words() for name in texts}
        try:
            for batch in self._batches(wanted):
                for name, reader in readers.items():
                    reader.take(batch.column(name))
        except (self._arrow.ArrowException, OSError, ValueError, MemoryError, FileFormatError) as error:
            return Columns(self.path), [f"{self.path} cannot be read: {_first_line(error)}"]
        problems = [f"{self.path}: the column {name!r} {fault}" for name in wanted for fault in readers[name].faults()]
        if not any(reader.rows for reader in readers.values()):
            problems.append(f"{self.path}: no rows under the columns {', '.join(self.names)}")
        if problems:
            return Columns(self.path), problems
        by_kind: dict[type, dict[str, Any]] = {_Numbers: {}, _Words: {}}
        for name, reader in readers.items():
            by_kind[type(reader)][name] = reader.result()
        return Columns(self.path, by_kind[_Numbers], by_kind[_Words]), []

    def _type_problems(self, name: str, *, number: bool) -> Iterator[str]:
        kind, types = _value_type(self._schema.field(name).type), self._arrow.types
        where = f"{self.path}: the column {name!r} is {kind}"
        plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
        text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        if types.is_temporal(kind):
            yield f"{where}; {_DATES}, or leave the column out of data.inputs"
        elif number and text:
            yield f"{where}, not numbers; data.categories=[{name}] makes it an input, or leave it out of data.inputs"
        elif not plain and not text:
            yield f"{where}, neither numbers nor text; leave it out of data.inputs, or convert it first"

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        """Yield batches of rows with these columns, decoded and checked, within the budget of the file."""
        budget = Budget(str(self.path), self.path.stat().st_size, floor=_FLOOR, expansion=_EXPANSION)
        width = 4 * len(columns)
        _, opened = self._opened(columns)
        if hasattr(opened, "iter_batches"):  # Parquet says beforehand how much there is
            about = opened.metadata
            budget.spend(about.num_rows * width, items=about.num_row_groups)
            yield from opened.iter_batches(batch_size=_BATCH, columns=columns)
            return
        for batch in _ipc_batches(opened):
            budget.spend(batch.num_rows * width)
            batch.validate(full=True)  # or offsets could point anywhere
            yield batch

    def _opened(self, columns: list[str]) -> tuple[Any, Any]:
        """Return the schema of the file, and what reads these columns of it."""
        from pyarrow import ipc, parquet

        if self.path.suffix.lower() == ".parquet":
            file = parquet.ParquetFile(self.path)
            return file.schema_arrow, file
        with self.path.open("rb") as content:
            magic = content.read(6)
        if magic.startswith(b"FEA1"):
            raise ValueError("Feather of version 1; write it again, as version 2")
        begin = ipc.open_file if magic == b"ARROW1" else ipc.open_stream
        schema = begin(self._arrow.OSFile(str(self.path))).schema
        places = [schema.get_field_index(name) for name in columns]
        options = ipc.IpcReadOptions(included_fields=places)
        return schema, begin(self._arrow.OSFile(str(self.path)), options=options)


def _ipc_batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        yield from (reader.get_batch(place) for place in range(reader.num_record_batches))
    else:
        yield from reader


def _value_type(kind: Any) -> Any:
    return kind.value_type if hasattr(kind, "index_type") else kind  # of a dictionary: pandas' categories


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Rows:
    """What is found of a column, batch by batch."""

    def __init__(self) -> None:
        self.rows = 0
        self._parts: list[np.ndarray] = []
        self._absent: list[int] = []
        self._count = 0  # of rows without a value

    def faults(self) -> Iterator[str]:
        if self._count:
            yield f"has no value in {_numbered(self._absent, self._count)}"

    def result(self) -> Any:
        return np.concatenate(self._parts)

    def _lacks(self, absent: np.ndarray) -> None:
        self._absent += (self.rows + np.flatnonzero(absent)[:SHOWN]).tolist()
        self._count += int(absent.sum())


class _Numbers(_Rows):
    """A column of numbers as float32."""

    def __init__(self) -> None:
        super().__init__()
        self._infinite: list[int] = []

    def take(self, column: Any) -> None:
        column = column.dictionary_decode() if hasattr(column, "dictionary_decode") else column
        exact = column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            array = exact.astype(np.float32)
        absent = np.isnan(array)
        self._lacks(absent)
        self._infinite += (self.rows + np.flatnonzero(~np.isfinite(array) & ~absent)).tolist()
        self._parts.append(array)
        self.rows += len(array)

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if self._infinite:
            yield f"has no finite 32-bit float in {_numbered(self._infinite, len(self._infinite))}"


class _Words(_Rows):
    """A column of text, whole numbers or truth values as `Texts`."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[str, int] = {}

    def take(self, column: Any) -> None:
        encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        absent = {place for place, value in enumerate(values) if value is None or value != value}
        lookup = [
            -1 if place in absent else self._places.setdefault(str(value), len(self._places))
            for place, value in enumerate(values)
        ]
        indices = encoded.indices.cast("int64").fill_null(len(values)).to_numpy(zero_copy_only=False)
        codes = np.array([*lookup, -1], np.int64)[indices]
        self._lacks(codes < 0)
        self._parts.append(codes)
        self.rows += len(codes)

    def result(self) -> Texts:
        codes = np.concatenate(self._parts)
        used = np.unique(codes)  # a dictionary may hold values that no row has
        order = np.full(len(self._places), -1, np.int64)
        order[used] = np.arange(len(used))
        values = list(self._places)
        return Texts(tuple(values[place] for place in used), order[codes])


def _numbered(rows: list[int], count: int) -> str:
    """Return rows, counted from 0, of which there are more than are listed."""
    if count <= SHOWN:
        return f"{_listed(rows, 'row')}, counted from 0"
    return f"rows {', '.join(map(str, rows[:SHOWN]))} and {count - SHOWN} more, counted from 0"
