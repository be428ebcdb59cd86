"""TensorFlow's start-up notes kept off the screen; whatever else is written to standard error stays.

Its libraries write two notes straight to the file descriptor before any level of logging can be set
(tensorflow 2.21.0), so they are caught there.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nameplate import text_table

_NOTES = (b"I0000 ", b"WARNING: All log messages before absl::InitializeLog()", b"To enable the following instructions")


def import_tensorflow() -> None:
    """Import TensorFlow, its errors and warnings shown, its notes not."""
    has_gpu = Path("/dev/nvidiactl").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if has_gpu else "3")  # 3: not even its search for a GPU
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import_module("tensorflow")
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught:
                if not line.startswith(_NOTES):
                    os.write(2, line)


INTERRUPTED = 130  # as the shell has it

P = ParamSpec("P")


def interruptible(main: Callable[P, int]) -> Callable[P, int]:
    """Return a command's `main` that ends its process with `INTERRUPTED` on SIGINT; training handles that itself."""

    @wraps(main)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> int:
        try:
            return main(*arguments, **keywords)
        except KeyboardInterrupt:
            print("stopped by SIGINT", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: where the signal came inside `exec` (dataclasses use it), Python would die of it once more.
            os._exit(INTERRUPTED)

    return guarded


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

    @property
    def is_notebook(self) -> bool:
        """Say whether this is the cell of a notebook."""
        return self.console.is_jupyter and not self.console.quiet

    def say(self, line: str) -> None:
        """Write one line."""
        self.console.print(escape(line))
        sys.stdout.flush()

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[..., None] | None]:
        """Show a bar on a terminal; elsewhere yield None.

        What it yields takes the number that is done, the number in total, and what may follow the title.
        """
        if not self.is_terminal:
            yield None
            return
        # Imported here: most commands show no bar, and all of them import this module.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=None)

            def report(done: int, total: int, value: str = "") -> None:
                bar.update(task, completed=done, total=total, description=f"{title}  {value}".rstrip())

            yield report

    def fail(self, message: str) -> None:
        """Write an error: what was wrong, in red where there are colours."""
        head, _, rest = message.partition("\n")
        self.errors.print(f"[bold red]{escape(head)}[/]" + (f"\n{escape(rest)}" if rest else ""))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows under `columns`, as `plain_table` or, on a terminal, as `drawn_table` has them."""
        if self.is_terminal:
            self.console.print(drawn_table(title, columns, rows))
            return
        self.say(plain_table(title, columns, rows[:_SHOWN_ROWS]))
        if len(rows) > _SHOWN_ROWS:
            self.say(f"... and {len(rows) - _SHOWN_ROWS} more rows")


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: the title, then the rows under the names of their columns."""
    return "\n".join([title, *text_table.under_header(columns, rows)])


def drawn_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Return a table for a terminal; a column whose name begins with '>' is aligned to the right."""
    drawn = Table(title=escape(title), title_justify="left", header_style="bold")
    for column in columns:
        right = column.startswith(text_table.RIGHT)
        # Folded: a name that is cut cannot be used.
        drawn.add_column(column.removeprefix(text_table.RIGHT), justify="right" if right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in row))
    return drawn


def in_words(values: Mapping[str, float], *, best: str | None = None) -> str:
    """Return measured values in one line, e.g. `loss 0.1234  accuracy 0.9876 (best)`; `best` names the one to mark."""
    return "  ".join(f"{name} {_number(value)}{' (best)' * (name == best)}" for name, value in values.items())


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


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under `columns`; a column whose name begins with '>' is aligned to the right."""
    columns = [_text(column) for column in columns]
    cells = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        Console().print(drawn_table(title, columns, cells))
    else:
        print("\n".join(text_table.under_header(columns, cells)))


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


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
