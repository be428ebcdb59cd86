"""The jobs of a sweep that call a function of the user's own, one after the other in this process."""

from __future__ import annotations

import inspect
import math
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from nameplate.errors import Exit, NameplateError, StoppedError
from nameplate.graph.keras_private import automatic_counts
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from nameplate.training.config import CheckpointConfig, Mode
from nameplate.training.console import Screen
from nameplate.training.monitor import default_monitor, numbers
from trainer.ledger import leaderboard
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import SEED, JobRecord, State, differences, identity, now
from trainer.sweep.processes import write_failure

Function = Callable[..., Any]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Ranking:
    """The value that ranks the jobs."""

    monitor: str | None  # None: chosen from what the function returns
    mode: Mode

    def measured(self, result: Any) -> dict[str, Any]:
        """Return the fields of a job's record for what its function returned.

        Raises:
            NameplateError: it has no value that can be ranked.
        """
        series = _series(result)
        monitor = self.monitor or (next(iter(series)) if len(series) == 1 else default_monitor(series))
        if monitor not in series:
            returned = ", ".join(series) or "nothing"
            missing = (
                f"{monitor!r} was not returned.{did_you_mean(monitor, list(series))}" if self.monitor else "not given"
            )
            raise NameplateError(f"monitor: {missing}; choose one of what the function returned: {returned}")
        upwards = CheckpointConfig(mode=self.mode).improves_upwards(monitor)
        finite = [value for value in series[monitor] if math.isfinite(value)]
        best = (max if upwards else min)(finite) if finite else math.nan
        values = {name: each[-1] for name, each in series.items()}
        return {"monitor": monitor, "upwards": upwards, "best": best, "values": values}


def _series(result: Any) -> dict[str, list[float]]:
    """Return what a function measured, by name: one value, or one an epoch."""
    history = getattr(result, "history", None)  # of a History, or a Report
    given = history if isinstance(history, Mapping) else result if isinstance(result, Mapping) else {"value": result}
    try:
        if given is not history:
            return {name: [float(value)] for name, value in numbers(given).items()}
        rows = [numbers(dict(zip(given, row, strict=True))) for row in zip(*given.values(), strict=False)]
        return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
    except (TypeError, ValueError):
        raise NameplateError(
            f"the function returned {result!r:.60}; return a number, a dict of numbers, or what nameplate.fit or "
            "nameplate.train returned"
        ) from None


def run_function(
    function: Function, jobs: Sequence[Settings], directory: Path, ranking: Ranking, *, fail_fast: bool
) -> None:
    """Call a function for each job that is not done; those that another process runs are waited for at the end.

    Raises:
        NameplateError: nothing was run: the function does not take a setting, or the sweep has jobs of another kind.
        StoppedError: a signal ended a job; so does a KeyboardInterrupt.
    """
    takes_run = _require_parameters(function, jobs)
    screen, ledger = Screen(), Ledger(directory)
    planned = _planned(ledger, function, jobs)
    caller = _Caller(function, takes_run, ledger, ranking, screen, fail_fast)
    done = sum(caller.is_done(record.job) for record in planned)
    screen.say(f"sweep {directory}: {len(planned)} jobs, {done} of them already done")
    busy = [record for record in planned if not caller.attempt(record)]
    for record in busy:
        screen.say(f"{record.job} runs in another process")
        caller.wait_for(record)
    board = leaderboard.board_of(ledger.records())
    screen.table(f"leaderboard of {directory}", leaderboard.columns(board), leaderboard.rows(board))
    leaderboard.write(ledger, board)


def _require_parameters(function: Function, jobs: Sequence[Settings]) -> bool:
    """Say whether a function takes `run`.

    Raises:
        NameplateError: it lacks a parameter for a setting, or a setting for a parameter.
    """
    parameters = inspect.signature(function).parameters.values()
    named = {each.name: each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
    required = [name for name, each in named.items() if each.default is each.empty and name != "run"]
    problems: dict[str, None] = {}
    for settings in jobs:
        for key in settings.keys() - named.keys() if not anything else ():
            problems[f"grid: the function takes no {key!r}.{did_you_mean(key, list(named))}"] = None
        for name in required if not settings.keys() >= set(required) else ():
            if name not in settings:
                problems[f"grid: no value for {name!r}, which the function requires"] = None
        if "run" in settings:
            problems["grid: 'run' is the directory that each job is given; leave it out"] = None
    if problems:
        raise NameplateError("\n".join(problems))
    return anything or "run" in named


def _planned(ledger: Ledger, function: Function, jobs: Sequence[Settings]) -> list[JobRecord]:
    """Return the jobs, each once, the new ones written to the ledger.

    Raises:
        ConfigError: the ledger has jobs that cannot be compared with these.
    """
    usual = {"function": f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"}
    records = ledger.records()
    new = [{**usual, **settings} for settings in jobs]
    if changed := differences([{**record.usual, **record.settings} for record in records], new) if records else {}:
        lines = [f"{key}: {old!r} -> {value!r}" for key, (old, value) in changed.items()]
        raise ConfigError(
            [*lines, f"the jobs in {ledger.directory} cannot be compared with these; choose another directory, run=..."]
        )
    planned = {}
    for settings in jobs:
        name = identity(settings)
        words = tuple(f"{key}={leaderboard.as_text(value)}" for key, value in settings.items())
        planned[name] = JobRecord(name, State.planned, words, settings, usual, planned=now())
    ledger.tidy()
    ledger.write_about({"function": usual["function"], "called": now()})
    known = {record.job for record in records}
    for name, record in planned.items():
        if name not in known and (lock := ledger.try_hold(name)) is not None:
            ledger.commit(record)
            os.close(lock)
    return list(planned.values())


@dataclass
class _Caller:
    """Calls the function for one job after the other."""

    function: Function
    takes_run: bool
    ledger: Ledger
    ranking: Ranking
    screen: Screen
    fail_fast: bool
    failed: list[str] = field(default_factory=list)

    def is_done(self, job: str) -> bool:
        """Say whether a job needs no more calls; one whose directory was deleted does."""
        record = self.ledger.record(job)
        return record is not None and record.state is State.done and self.ledger.home(job).is_dir()

    def attempt(self, planned: JobRecord) -> bool:
        """Do a job unless it is done; return False if another process is at it."""
        lock = self.ledger.try_hold(planned.job)
        if lock is None:
            return False
        try:
            self._do(planned)
        finally:
            os.close(lock)
        return True

    def wait_for(self, planned: JobRecord) -> None:
        """Wait until no other process has a job, and do it if it is still not done."""
        with self.ledger.hold(planned.job):
            self._do(planned)

    def _do(self, planned: JobRecord) -> None:
        if self.is_done(planned.job) or (self.fail_fast and self.failed):
            return
        before = self.ledger.record(planned.job) or planned
        running = replace(
            planned,
            state=State.running,
            planned=before.planned,
            started=now(),
            seconds=before.seconds,
            attempts=before.attempts + 1,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        self.ledger.home(planned.job).mkdir(parents=True, exist_ok=True)
        self.ledger.commit(running)
        self.screen.say(f"{planned.job}  {'  '.join(planned.overrides)}")
        self._call(running)

    def _call(self, running: JobRecord) -> None:
        """Call the function, and record how it ended; only what stops the whole sweep is raised."""
        began, ended = time.monotonic(), running
        home = self.ledger.home(running.job)
        (home / "failure.txt").unlink(missing_ok=True)
        try:
            ended = replace(running, state=State.done, exit_code=Exit.DONE, **self._result(running, home))
            best = "" if ended.best is None else f"{ended.monitor} {ended.best:.4f}"
            self.screen.say(f"{running.job}  done  {best}")
        except (KeyboardInterrupt, StoppedError) as stopped:
            code = Exit.INTERRUPTED if isinstance(stopped, KeyboardInterrupt) else stopped.exit_code
            ended = replace(running, state=State.interrupted, exit_code=code, error=str(stopped) or "SIGINT")
            raise
        except Exception as error:
            ended = self._failure(running, error, home)
        finally:
            self.ledger.commit(replace(ended, ended=now(), seconds=running.seconds + time.monotonic() - began))

    def _result(self, running: JobRecord, home: Path) -> dict[str, Any]:
        """Return what a job measured. What it draws and names does not depend on the jobs before it."""
        seed = running.settings.get(SEED)
        keras.utils.set_random_seed(seed if isinstance(seed, int) else 0)
        with _fresh_names():
            result = self.function(**running.settings, **({"run": home} if self.takes_run else {}))
        return self.ranking.measured(result)

    def _failure(self, running: JobRecord, error: Exception, home: Path) -> JobRecord:
        self.failed.append(running.job)
        text = str(error) if isinstance(error, NameplateError) else f"{type(error).__name__}: {error}"
        write_failure(home / "failure.txt", "".join(traceback.format_exception(error)))
        self.screen.fail(f"{running.job} failed: {text}\n  {home / 'failure.txt'}")
        return replace(running, state=State.failed, exit_code=Exit.FAILED, error=text)


@contextmanager
def _fresh_names() -> Iterator[None]:
    """Inside, Keras counts automatic names from the start: a job has the same ones whenever it runs."""
    counts = automatic_counts()
    before = dict(counts)
    counts.clear()
    try:
        yield
    finally:
        counts.clear()
        counts.update(before)
