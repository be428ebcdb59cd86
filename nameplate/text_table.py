"""Rows of texts as lines of aligned columns, none of them wider than a screen: strings only."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 120  # columns that most terminals and logs show


def lines(rows: Sequence[Sequence[str]], *, gap: int = 2, width: int = WIDTH) -> list[str]:
    """Return a line a row; where one would be too wide, each row as its first cell with the others indented below."""
    if not rows:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    aligned = [(" " * gap).join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
    if max(map(len, aligned)) <= width:
        return aligned
    return [line for row in rows for line in _below(row, width)]


def _below(row: Sequence[str], width: int) -> list[str]:
    """Return a row that is no wider than its longest word; texts are wrapped, names stay whole."""
    first, *others = [cell for cell in row if cell]
    wrap = textwrap.TextWrapper(
        width, initial_indent="    ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
    return [first, *(line for cell in others for line in wrap.wrap(cell))]
