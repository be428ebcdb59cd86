"""`nameplate.sweep`: a sweep from Python, of configured runs or of a user's function, over the same ledger."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from nameplate.arguments import BY_VERB, checked
from nameplate.errors import Exit, NameplateError, as_path
from nameplate.naming.names import did_you_mean
from nameplate.training.config import Mode
from nameplate.training.report import imported
from nameplate.training.run_record import RunRecord
from trainer.config.overrides import spelt
from trainer.ledger import leaderboard
from trainer.ledger.leaderboard import Board, SweepError, best_job, board_of
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State
from trainer.sweep.function_jobs import Function, Ranking, Settings, run_function


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep, read from its ledger; another process may still add to them."""

    directory: Path

    @property
    def jobs(self) -> list[JobRecord]:
        """The record of every job, in the order in which they were planned."""
        return Ledger(self.directory).records()

    @property
    def failed(self) -> list[JobRecord]:
        """The jobs that failed; `error` says why, and the traceback is in `failure.txt` of the job's directory."""
        return [job for job in self.jobs if job.state is State.failed]

    @property
    def best(self) -> JobRecord:
        """The job with the best value.

        Raises:
            SweepError: no job has a value, or a record is damaged, and its job may be the best.
        """
        job = best_job(Ledger(self.directory))
        if job is None:
            raise SweepError(f"No job of the sweep {self.directory} has a value{self._why()}")
        return job

    def _why(self) -> str:
        reasons = {f"{job.job}: {(job.error or '').partition(chr(10))[0]}" for job in self.failed}
        return "".join(f"\n  {reason}" for reason in sorted(reasons))

    @property
    def board(self) -> Board:
        """The jobs in groups that differ only in their seed, the best group first."""
        return board_of(self.jobs)

    def home(self, job: JobRecord | str | None = None) -> Path:
        """Return the directory of a job, by default of the best one; `nameplate.load` reads it."""
        name = job if isinstance(job, str) else (job or self.best).job
        names = [record.job for record in self.jobs]
        if name not in names:
            raise SweepError(f"{self.directory} has no job {name!r}.{did_you_mean(name, names)}")
        return self.directory / name

    def run(self, job: JobRecord | str | None = None) -> RunRecord:
        """Return the measurements and checkpoints of a job, by default of the best one."""
        return RunRecord(self.home(job))

    def frame(self) -> Any:
        """Return a pandas data frame, a row a job: its settings, its state and what it measured.

        Raises:
            NameplateError: pandas is not installed.
        """
        return imported("pandas").DataFrame(
            [
                {"job": job.job, **job.settings, "state": str(job.state), "best": job.best, **job.values}
                for job in self.jobs
            ]
        )

    def __str__(self) -> str:
        board = self.board
        return "\n".join("  ".join(row) for row in [leaderboard.columns(board), *leaderboard.rows(board)])

    def _repr_html_(self) -> str:
        """Return the leaderboard as a table."""
        return leaderboard.as_html(self.board)


@checked
def sweep(
    job: Function | Sequence[str],
    grid: Annotated[Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]], BY_VERB],
    *,
    run: str | os.PathLike[str],
    monitor: str | None = None,
    mode: str = "auto",
    fail_fast: bool = False,
) -> Sweep:
    """Run a job for each combination of a grid, and return the results; the same call again runs what is not done.

    Jobs are identified by their settings. Each has a directory in the sweep's, and is done once, also if the script is
    killed, or runs twice at the same time (on two GPUs, say: the processes share the jobs). A job that fails is
    recorded with its traceback, and the others go on. `python -m trainer.sweep` lists and compares the jobs.

    Args:
        job: the overrides that all jobs have, e.g. ["model=resnet"]: each then trains as `python -m trainer` would, in
            a process of its own. Or a function that is called with the settings of a job as keyword arguments, in this
            process, and with `run`, the directory of the job, if it takes that: `nameplate.fit(..., run=run)` makes the
            job resume exactly. Before each call random numbers are seeded with the setting `seed`, or 0. It returns a
            number, a dict of numbers, the History of `fit` or the report of `train`.
        grid: values by key, of which all combinations are run; or a list of the settings of each job.
        run: directory of the sweep, e.g. "runs/rates".
        monitor: name of the value that ranks the jobs of a function; None: chosen from what it returns. Overrides have
            `checkpoint.monitor`.
        mode: whether a lower ("min") or a higher ("max") value of `monitor` is better; "auto": by its name.
        fail_fast: start no more jobs after one has failed.

    Returns:
        The sweep: `.best`, `.jobs`, `.failed`, `.run()`, `.frame()`; shows its leaderboard in a notebook.

    Raises:
        NameplateError: nothing was run: settings that a ledger cannot hold, arguments that the function does not take,
            or a sweep of other jobs in that directory.
        StoppedError: a signal ended it; the same call goes on.
    """
    directory = as_path(run, "run")
    jobs = _combinations(grid)
    if callable(job):
        run_function(job, jobs, directory, Ranking(monitor, _mode(mode)), fail_fast=fail_fast)
    else:
        if monitor is not None or mode != "auto":
            raise NameplateError(
                "monitor, mode: of configured runs they are the overrides checkpoint.monitor and .mode"
            )
        _sweep_of_overrides(job, grid, jobs, directory, fail_fast=fail_fast)
    return Sweep(directory)


def _combinations(grid: Any) -> list[Settings]:
    """Return the settings of each job.

    Raises:
        NameplateError: with everything that is not a grid of plain values.
    """
    if isinstance(grid, Mapping):
        problems = [
            f"grid: {key!r} has {values!r:.60}; give a list of its values"
            for key, values in grid.items()
            if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence | range) or not len(values)
        ]
        rows = [] if problems else [dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values())]
    elif isinstance(grid, Sequence) and all(isinstance(row, Mapping) for row in grid):
        rows, problems = [dict(row) for row in grid], [] if grid else ["grid: it is empty"]
    else:
        rows, problems = (
            [],
            [f"grid={grid!r:.60}: give values by key, e.g. {{'rate': [0.1, 0.01]}}, or a list of dicts"],
        )
    problems += sorted({problem for row in rows for problem in _unrecordable(row)})
    if problems:
        raise NameplateError("\n".join(problems))
    return rows


def _unrecordable(settings: Settings) -> Iterator[str]:
    for key, value in settings.items():
        if not isinstance(key, str):
            yield f"grid: {key!r} is not the name of a setting"
        elif not _is_plain(value):
            yield (
                f"grid: {key}={value!r:.60} cannot be recorded, and would not identify the job; give numbers, texts, "
                "booleans, None or lists of them, and make the object in the function"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _mode(mode: Any) -> Mode:
    if mode not in list(Mode):
        raise NameplateError(f"mode={mode!r}: there are {', '.join(map(repr, map(str, Mode)))}")
    return Mode(mode)


def _sweep_of_overrides(
    overrides: Any, grid: Any, jobs: Sequence[Settings], directory: Path, *, fail_fast: bool
) -> None:
    """Run the jobs of a command line with `-m`."""
    from trainer.sweep.control import run_jobs  # here, because only configured jobs need Hydra
    from trainer.sweep.control import sweep as sweep_of
    from trainer.sweep.multirun import grid_of, request_of

    if (
        isinstance(overrides, str)
        or not isinstance(overrides, Sequence)
        or not all(isinstance(o, str) for o in overrides)
    ):
        raise NameplateError(f'job={overrides!r:.80}: a function, or a list of overrides such as ["model=mlp"]')
    place = [f"runs={spelt(str(directory.parent))}", f"run={spelt(directory.name)}"]
    fixed = [*overrides, *place, *(["sweep.fail_fast=true"] if fail_fast else [])]
    if isinstance(grid, Mapping):
        swept = [f"{key}={','.join(map(spelt, values))}" for key, values in grid.items()]
        code = sweep_of(["-m", *fixed, *swept])
    else:
        request = request_of(["-m", *fixed])
        own = [[f"{key}={spelt(value)}" for key, value in row.items()] for row in jobs]
        planned = [grid_of(replace(request, overrides=(*request.overrides, *words))) for words in own]
        if not request.plain or any(job is None for job in planned):
            raise NameplateError("grid: a launcher or sampler of Hydra's takes values by key, not a list of settings")
        code = run_jobs(request, [job for each in planned if each for job in each], records_command=False)
    if code in (Exit.INTERRUPTED, Exit.TERMINATED) and not Sweep(directory).failed:
        raise _SweepStoppedError(code)


class _SweepStoppedError(NameplateError, SystemExit):
    """A sweep of configured runs that a signal ended."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__("The sweep was stopped; the same script resumes it.")
