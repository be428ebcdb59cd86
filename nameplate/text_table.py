"""Rows of text in aligned columns: strings only. `training.console` draws the same rows on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence

WIDTH = 120  # characters
RIGHT = ">"  # begins the name of a column that is aligned to the right


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), gap: int = 2) -> list[str]:
    """Return a line for each row, its cells padded to the width of their columns.

    `right` are the columns whose text is aligned to the right; `gap` spaces lie between two columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (" " * gap)
        .join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]


def under_header(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the columns and the rows below them, aligned."""
    right = [place for place, name in enumerate(columns) if name.startswith(RIGHT)]
    return aligned([[name.removeprefix(RIGHT) for name in columns], *rows], right=right)


def fitted(rows: Sequence[Sequence[str]], *, gap: int = 2, width: int = WIDTH) -> list[str]:
    """Return `aligned` rows; if a line would be wider than `width`, each row's cells are stacked under its first."""
    lines = aligned(rows, gap=gap)
    if max(map(len, lines), default=0) <= width:
        return lines
    return [line for row in rows for line in _stacked(row, width)]


def described(rows: Sequence[tuple[str, str]], width: int, *, indent: str = "") -> Iterator[str]:
    """Yield rows of two columns no wider than `width`: the second is wrapped, and below the first if that is long.

    The second has at least 20 characters, however narrow `width` is.
    """
    left = min(max((len(first) for first, _ in rows), default=0), 2 * width // 5)
    for first, second in rows:
        hanging = " " * (len(indent) + left + 2)
        lines = textwrap.wrap(second, max(width - len(hanging), 20)) or [""]
        if len(first) > left:
            yield f"{indent}{first}"
            yield from (f"{hanging}{line}" for line in lines if line)
        else:
            yield f"{indent}{first.ljust(left)}  {lines[0]}".rstrip()
            yield from (f"{hanging}{line}" for line in lines[1:])


def _stacked(row: Sequence[str], width: int) -> list[str]:
    """Return the first cell and the others indented below it; texts are wrapped, names stay whole."""
    first, *others = [cell for cell in row if cell]
    wrap = textwrap.TextWrapper(
        width, initial_indent="    ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
    return [first, *(line for cell in others for line in wrap.wrap(cell))]
