"""What a person sees: rich on a terminal, plain lines in a log file."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_SHOWN_ROWS = 400  # of a table in a log file


class Screen:
    """Where a run writes; the same words on a terminal and in a file, the dress differs."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Take whether only errors are shown: one of several workers speaks for all."""
        self.console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Say whether a person looks on."""
        return self.console.is_terminal

    def say(self, line: str) -> None:
        """Write one line."""
        self.console.print(escape(line))
        sys.stdout.flush()

    def fail(self, message: str) -> None:
        """Write an error: what was wrong, in red where there are colours."""
        head, _, rest = message.partition("\n")
        self.errors.print(f"[bold red]{escape(head)}[/]" + (f"\n{escape(rest)}" if rest else ""))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows under columns."""
        if self.is_terminal:
            table = Table(*columns, title=escape(title), title_justify="left", header_style="bold")
            for row in rows:
                table.add_row(*(escape(cell) for cell in row))
            self.console.print(table)
            return
        self.say(plain_table(title, columns, rows[:_SHOWN_ROWS]))
        if len(rows) > _SHOWN_ROWS:
            self.say(f"... and {len(rows) - _SHOWN_ROWS} more rows")


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text with aligned columns."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([title, *text])


def in_words(values: Mapping[str, float]) -> str:
    """Return measured values in one line, e.g. `loss 0.1234  accuracy 0.9876`."""
    return "  ".join(f"{name} {_number(value)}" for name, value in values.items())


def tool(name: str) -> str:
    """Return a tool as one can type it here: by its path where its environment is not the active one."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not own.exists() or (found and Path(found) == own):
        return name
    inside = own.is_relative_to(Path.cwd())
    return shlex.quote(str(own.relative_to(Path.cwd()) if inside else own))


def _number(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.0f}"
