"""A running sweep: a live table of its jobs on a terminal, a line for each change in a log file."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from types import TracebackType

from rich.live import Live
from rich.table import Table
from rich.text import Text

from nameplate.training.console import Screen, drawn_table
from trainer.ledger.leaderboard import as_text, short_key, varying_keys
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State

PAUSE = 0.3  # seconds between two reads of the ledger
_WIDEST = 80  # characters of an error
_MOST = 24  # rows of the table: running jobs and the latest others
_COLOURS = {
    State.planned: "dim",
    State.running: "yellow",
    State.done: "green",
    State.failed: "red",
    State.interrupted: "magenta",
}


class Watch:
    """While entered, reports changes in a ledger, whichever processes make them."""

    def __init__(self, ledger: Ledger, screen: Screen, *, jobs: Collection[str] | None) -> None:
        """Take the jobs to report; None: all in the ledger, now or later."""
        self._ledger, self._screen, self._jobs = ledger, screen, jobs
        self._seen: dict[str, tuple[State, int]] = {record.job: _mark(record) for record in self._records()}
        self._changed = -1
        self._end = threading.Event()
        self._live = Live(console=screen.console, auto_refresh=False) if screen.is_terminal else None
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()
        if self._live:
            self._live.stop()

    def _watch(self) -> None:
        while not self._end.wait(PAUSE):
            self._look()

    def _look(self) -> None:
        changed = self._ledger.changed()
        if changed == self._changed and not self._live:
            return
        self._changed = changed
        records = self._records()
        if self._live:
            self._live.update(table(records), refresh=True)
            return
        keys = varying_keys(records)
        for record in records:
            if _mark(record) != self._seen.get(record.job) and record.state is not State.planned:
                self._screen.say(line(record, records, keys))
            self._seen[record.job] = _mark(record)

    def _records(self) -> list[JobRecord]:
        records = self._ledger.records()
        return [record for record in records if self._jobs is None or record.job in self._jobs]


def line(record: JobRecord, records: Sequence[JobRecord], keys: Sequence[str]) -> str:
    """Return the line about a job whose state has changed."""
    done = sum(other.state is State.done for other in records)
    head = f"{record.job}  {record.state:<11} {_settings(record, keys)}"
    if record.state is State.running:
        return f"{head}  pid {record.pid}" if record.pid else head
    reached = f"  {record.monitor} {record.best:.4f}" if record.best is not None else ""
    pruned = "  stopped early" if record.pruned else ""
    error = f"  exit {record.exit_code}: {_first(record.error)}" if record.error else ""
    return f"{head}{reached}{pruned}  {record.seconds:.1f} s  ({done} of {len(records)} done){error}"


def table(records: Sequence[JobRecord]) -> Table:
    """Return the jobs as a table: running ones first, then the latest to end, then planned ones."""
    keys = varying_keys(records)
    count = Counter(record.state for record in records)
    title = ", ".join(f"{count[state]} {state}" for state in State if count[state])
    columns = ("job", "state", *(short_key(key, keys) for key in keys), "best", "seconds", "")
    order = sorted(records, key=lambda record: record.ended or "", reverse=True)
    order.sort(key=lambda record: (record.state is not State.running, record.state is State.planned))
    rows = [_row(record, keys) for record in order[:_MOST]]
    if len(order) > _MOST:
        rows.append([f"... {len(order) - _MOST} more"])
    return drawn_table(title, columns, rows)


def _row(record: JobRecord, keys: Sequence[str]) -> list[str | Text]:
    return [
        record.job,
        Text(record.state, style=_COLOURS[record.state]),
        *(as_text(record.setting(key)) for key in keys),
        "" if record.best is None else f"{record.best:.4f}",
        f"{_seconds(record):.1f}",
        _first(record.error or record.pruned or ""),
    ]


def _seconds(record: JobRecord) -> float:
    """Return how long a job has taken so far."""
    if record.state is not State.running or record.started is None:
        return record.seconds
    return record.seconds + (datetime.now(UTC) - datetime.fromisoformat(record.started)).total_seconds()


def _first(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."


def _settings(record: JobRecord, keys: Sequence[str]) -> str:
    return " ".join(f"{key}={as_text(record.setting(key))}" for key in keys)


def _mark(record: JobRecord) -> tuple[State, int]:
    return record.state, record.attempts
