"""The leaderboard of a sweep: jobs that differ only in their seed or fold are one row, with mean and spread."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nameplate.checkpoint import durable, layout
from nameplate.checkpoint.errors import explained
from nameplate.checkpoint.location import find_one
from nameplate.checkpoint.remote import url_of
from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean
from nameplate.training.config import From
from trainer.ledger.ledger import Ledger, is_sweep
from trainer.ledger.record import FOLD, REPEATED, SEED, JobRecord, State, varying

CSV, JSON = "leaderboard.csv", "leaderboard.json"


@dataclass(frozen=True)
class Group:
    """Jobs that differ only in their seed or fold."""

    settings: Mapping[str, Any]  # those that vary over the sweep, without the seed and the fold
    jobs: tuple[JobRecord, ...]

    @property
    def reached(self) -> list[float]:
        """Return the best value of each job that is done."""
        return [job.best for job in self.jobs if job.is_usable and job.best is not None]

    @property
    def mean(self) -> float | None:
        """Return the mean over the seeds and folds that are done; None if there are none."""
        return statistics.fmean(self.reached) if self.reached else None

    @property
    def spread(self) -> float | None:
        """Return the sample standard deviation over the seeds and folds that are done; None for fewer than 2."""
        return statistics.stdev(self.reached) if len(self.reached) > 1 else None


@dataclass(frozen=True)
class Board:
    """All jobs of a sweep, in groups, the best group first."""

    monitor: str | None  # the value by which jobs are ranked
    upwards: bool
    keys: tuple[str, ...]  # the settings that vary, without the seed and the fold
    groups: tuple[Group, ...]
    repeated: str = "seeds"  # what the jobs of a group differ in

    @property
    def best(self) -> JobRecord | None:
        """Return the best single job; None if none is done."""
        usable = [job for group in self.groups for job in group.jobs if job.is_usable]
        return min(usable, key=lambda job: _order(job.best, upwards=self.upwards), default=None)


def board_of(records: Sequence[JobRecord]) -> Board:
    """Return the leaderboard of these jobs."""
    measured = next((record for record in records if record.monitor is not None), None)
    upwards = measured is not None and measured.upwards
    vary = varying_keys(records)
    keys = tuple(key for key in vary if key not in REPEATED)
    equals: dict[str, list[JobRecord]] = {}
    for record in records:
        equal = {key: value for key, value in record.settings.items() if key not in REPEATED}
        equals.setdefault(json.dumps(equal, sort_keys=True, default=str), []).append(record)
    groups = [Group({key: jobs[0].setting(key) for key in keys}, tuple(jobs)) for jobs in equals.values()]
    groups.sort(key=lambda group: _order(group.mean, upwards=upwards))
    repeated = "folds" if FOLD in vary else "seeds"
    return Board(measured.monitor if measured else None, upwards, keys, tuple(groups), repeated)


def varying_keys(records: Sequence[JobRecord]) -> list[str]:
    """Return the settings in which jobs differ; the option of a group stands for settings that only it has."""
    keys = varying(record.settings for record in records)
    groups = [key for key in keys if "." not in key]
    everywhere = [key for key in keys if all(key in record.settings or key in record.usual for record in records)]
    return [key for key in keys if key in everywhere or key.partition(".")[0] not in groups]


def columns(board: Board) -> tuple[str, ...]:
    """Return the columns of the table that `rows` fills."""
    value = board.monitor or "best"
    return (
        "",
        value,
        "spread",
        board.repeated,
        *(short_key(key, board.keys) for key in board.keys),
        "best job",
        "not done",
    )


def rows(board: Board) -> list[tuple[str, ...]]:
    """Return a row a group, for `columns`."""
    table = []
    for rank, group in enumerate(board.groups, 1):
        best = board_of(group.jobs).best
        others = [f"{job.job} {job.state}" for job in group.jobs if job.state is not State.done]
        table.append(
            (
                str(rank),
                _shown(group.mean),
                _shown(group.spread),
                f"{len(group.reached)}/{len(group.jobs)}",
                *(as_text(group.settings[key]) for key in board.keys),
                best.job if best else "",
                ", ".join(others),
            )
        )
    return table


def write(ledger: Ledger, board: Board) -> list[Path]:
    """Write the board beside the jobs, as CSV and as JSON, and return the files."""
    texts = {CSV: as_csv(board), JSON: json.dumps(as_plain(board), indent=2) + "\n"}
    paths = []
    for name, text in texts.items():
        path = ledger.directory / name
        with explained("Writing", path):
            durable.replace_file(path, text.encode())
        paths.append(path)
    return paths


def as_csv(board: Board) -> str:
    """Return the board as CSV, a line a job: the rank, mean and spread of its group, then its own values."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    fold = ("fold",) if board.repeated == "folds" else ()
    own = ("job", "state", "seed", *fold, board.monitor or "best", "steps", "seconds", "exit_code", "error")
    writer.writerow(("rank", "mean", "spread", *board.keys, *own))
    for rank, group in enumerate(board.groups, 1):
        of_group = (
            rank,
            _exact(group.mean),
            _exact(group.spread),
            *(as_text(group.settings[key]) for key in board.keys),
        )
        for job in group.jobs:
            error = (job.error or "").partition("\n")[0]
            of_fold = (job.setting(FOLD),) if fold else ()
            of_job = (job.job, job.state, job.setting(SEED), *of_fold)
            values = (*of_job, _exact(job.best), job.steps, f"{job.seconds:.3f}")
            writer.writerow((*of_group, *values, job.exit_code, error))
    return buffer.getvalue()


def as_html(board: Board) -> str:
    """Return the board as a table of HTML."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns(board))
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows(board))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def as_plain(board: Board) -> dict[str, Any]:
    """Return the board as plain data; a value that is not finite becomes null."""
    return {
        "monitor": board.monitor,
        "direction": "max" if board.upwards else "min",
        "keys": list(board.keys),
        "best": board.best.job if board.best else None,
        "groups": [
            {
                "rank": rank,
                "mean": group.mean,
                "spread": group.spread,
                "settings": dict(group.settings),
                "jobs": [job_as_plain(job) for job in group.jobs],
            }
            for rank, group in enumerate(board.groups, 1)
        ],
    }


def job_as_plain(job: JobRecord) -> dict[str, Any]:
    """Return a job as plain data."""
    finite = {name: value for name, value in job.values.items() if math.isfinite(value)}
    return {
        "job": job.job,
        "state": str(job.state),
        "overrides": list(job.overrides),
        "seed": job.setting(SEED),
        "monitor": job.monitor,
        "best": job.best if job.best is not None and math.isfinite(job.best) else None,
        "values": finite,
        "steps": job.steps,
        "started": job.started,
        "ended": job.ended,
        "seconds": round(job.seconds, 3),
        "attempts": job.attempts,
        "host": job.host,
        "pid": job.pid,
        "exit_code": job.exit_code,
        "pruned": job.pruned,
        "error": job.error,
    }


def short_key(key: str, keys: Sequence[str]) -> str:
    """Return the last word of a dotted key, or the whole key if another one of `keys` ends in the same word."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def as_text(value: Any) -> str:
    """Return a setting as a command line has it."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, default=str)


def _order(value: float | None, *, upwards: bool) -> tuple[int, float]:
    if value is None or not math.isfinite(value):
        return (1, 0.0)
    return (0, -value if upwards else value)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}"


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


class SweepError(NameplateError):
    """A sweep or a job in it that does not exist or cannot be used."""


def sweeps_in(runs: Path) -> list[Ledger]:
    """Return the sweeps in a directory of runs, by name."""
    return [Ledger(runs / name) for name in layout.listing(runs) if is_sweep(runs / name)]


def find_sweep(text: str, *, runs: str) -> Ledger:
    """Return the sweep at the path `text`, or of that name among the runs.

    Raises:
        SweepError: there is none; the message lists the sweeps that exist.
    """
    for path in (Path(text), Path(runs) / text):
        if is_sweep(path):
            return Ledger(path)
    names = [ledger.directory.name for ledger in sweeps_in(Path(runs))]
    listed = f"There are {', '.join(names)} in {runs}" if names else f"There is none in {runs}"
    raise SweepError(f"There is no sweep {text}.{did_you_mean(Path(text).name, names)} {listed}.")


def locate(text: str, *, which: From, runs: str) -> str:
    """Return the path of the weights that `text` means: a path, or the name of a run or of a sweep (its best job).

    The runs of a job in a sweep are those in the sweep's directory and those beside it.

    Raises:
        SweepError: the sweep has no job that is done.
        NoCheckpointError: the run has no checkpoint.
    """
    if url_of(text) or (url_of(runs) and not Path(text).exists()):  # whoever opens it makes a copy
        return text if url_of(text) else f"{url_of(runs)}/{text}"
    places = [Path(text), Path(runs) / text, Path(runs).parent / text]
    if not is_sweep(Path(runs)):
        places.pop()
    path = next((place for place in places if place.exists()), Path(text))
    if is_sweep(path):
        path = best_home(path)
    if which is From.latest and path.is_dir():
        return str(find_one(str(path)))
    return str(path)


def best_home(directory: Path) -> Path:
    """Return the directory of a sweep's best job.

    Raises:
        SweepError: no job has a result, or a record is damaged.
    """
    ledger = Ledger(directory)
    best = best_job(ledger)
    if best is None:
        raise SweepError(f"No job of the sweep {directory} has a result; there is no best one to start from.")
    return ledger.home(best.job)


def best_job(ledger: Ledger) -> JobRecord | None:
    """Return a sweep's best job; None if none has a result.

    Raises:
        SweepError: a record is damaged, and its job may be the best.
    """
    if damaged := ledger.damaged():
        raise SweepError(
            "\n".join(
                [
                    *damaged.values(),
                    "The best job is unknown without it. The sweep's own command resumes the job from its last "
                    "checkpoint; or delete the record to leave the job out.",
                ]
            )
        )
    return board_of(ledger.records()).best
