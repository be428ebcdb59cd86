"""Tables for people and JSON for programs; rich on a terminal, plain columns otherwise."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under `columns`; a column whose name begins with '>' is aligned to the right."""
    columns = [_text(column) for column in columns]
    cells = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich(title, columns, cells)
    else:
        _plain(columns, cells)


def line(text: str) -> None:
    """Print one line of prose."""
    print(printable(text))


def as_json(value: Any) -> None:
    """Print `value` as one JSON document; floats that JSON has not become strings: "nan", "inf"."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def size(nbytes: int) -> str:
    """Return a size as people read it: `1.2 MB`, in powers of ten."""
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def number(value: float) -> str:
    """Return a metric's value in six digits."""
    return f"{value:.6g}"


def printable(text: str) -> str:
    """Return `text` without what could move a terminal's cursor: control characters as their codes."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return number(cell) if isinstance(cell, float) else printable(str(cell)).replace("\n", "\\n")


def _plain(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    names = [column.removeprefix(">") for column in columns]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for row in [names, *cells]:
        aligned = [
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        print("  ".join(aligned).rstrip())


def _rich(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=escape(title), title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in cells:
        drawn.add_row(*map(escape, row))
    Console().print(drawn)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
