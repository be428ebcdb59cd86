"""A whole sweep: planned in its ledger, launched, watched, and summarized at the end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nameplate.engine.signals import STOPPING
from nameplate.errors import Exit, NameplateError
from nameplate.section import ConfigError
from nameplate.training.console import Screen, tool
from trainer.ledger import leaderboard
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State, differences, now
from trainer.sweep.hparams import write_hparams
from trainer.sweep.multirun import JobFailedError, SweepRequest, better, grid_of, launch, request_of
from trainer.sweep.task import BEGAN, SweepJob, is_done
from trainer.sweep.watch import Watch


class SweepStop(BaseException):
    """A signal that ends the sweep; a BaseException, so that every launcher lets it through."""

    def __init__(self, received: signal.Signals) -> None:
        self.received = received
        super().__init__(received.name)


def sweep(arguments: Sequence[str], *, records_command: bool = True) -> int:
    """Run the jobs of a command line with `-m` that are not done; return the exit code.

    `records_command` is false for a call that is not the sweep's own command, e.g. for one job of it.

    Raises:
        NameplateError: the command line cannot be used, or does not fit what the sweep has done before.
    """
    request = request_of(arguments)
    return run_jobs(request, grid_of(request), records_command=records_command)


def run_jobs(request: SweepRequest, jobs: Sequence[SweepJob] | None, *, records_command: bool = True) -> int:
    """Run those of these jobs that are not done, or all that a sampler chooses; return the exit code.

    Raises:
        NameplateError: as `sweep`.
    """
    screen = Screen()
    if request.base.dry_run:
        return _dry(jobs)
    ledger = Ledger(SweepJob(request.base, "", ()).directory)
    os.environ[BEGAN] = began = now()
    wanted = _planned(ledger, request, jobs, screen)
    ledger.tidy()
    if records_command:
        _record_command(ledger, request)
    open_jobs = None if wanted is None else [job for job in wanted if not _is_done(ledger, job)]
    received = _launched(ledger, request, wanted, open_jobs, screen)
    return _summary(ledger, wanted, screen, began=began, received=received)


def _planned(
    ledger: Ledger, request: SweepRequest, jobs: Sequence[SweepJob] | None, screen: Screen
) -> list[SweepJob] | None:
    """Write the new jobs of a grid into the ledger; return all jobs of the grid, each once.

    Raises:
        ConfigError: the ledger has jobs that cannot be compared with these.
    """
    records = ledger.records()
    if not request.base.resume and any(record.attempts for record in records):
        raise NameplateError(
            f"resume=false, and {ledger.directory} has jobs that have started; nothing was touched. "
            "Leave resume out to resume it, or choose another run=NAME."
        )
    if jobs is not None:
        _refuse_incomparable(ledger, records, jobs)
    if request.sweeper == "optuna":
        better(request)  # so that it is refused before Hydra starts
    if jobs is None:
        screen.say(f"sweep {ledger.directory}: {request.sweeper} chooses the jobs; {len(records)} are in the ledger")
        return None
    distinct = {job.name: job for job in jobs}
    if len(distinct) < len(jobs):
        screen.say(
            f"{len(jobs)} jobs, but {len(distinct)} results: the others differ in no setting that a result depends on. "
            "sweep.distinct=[KEY] keeps them apart by a key"
        )
    for job_name, damage in ledger.damaged().items():
        again = "the job resumes from its last checkpoint" if job_name in distinct else "it is not in this call"
        screen.fail(f"{damage}; {again}")
    known = {record.job for record in records}
    for job in distinct.values():
        if job.name not in known:
            _plan(ledger, job)
    done = sum(_is_done(ledger, job) for job in distinct.values())
    screen.say(f"sweep {ledger.directory}: {len(distinct)} jobs, {done} of them already done")
    return list(distinct.values())


def _record_command(ledger: Ledger, request: SweepRequest) -> None:
    about = {"command": ["python", "-m", "trainer", *request.arguments], "called": now(), "sweeper": request.sweeper}
    ledger.write_about(about | {"launcher": request.launcher, "mode": str(request.base.sweep.mode)})


def _plan(ledger: Ledger, job: SweepJob) -> None:
    lock = ledger.try_hold(job.name)
    if lock is None:
        return  # another call of the same sweep has it
    try:
        if ledger.record(job.name) is None:
            ledger.commit(job.planned())
    finally:
        os.close(lock)


def _launched(
    ledger: Ledger,
    request: SweepRequest,
    jobs: Sequence[SweepJob] | None,
    left: Sequence[SweepJob] | None,
    screen: Screen,
) -> signal.Signals | None:
    """Run the jobs that are left; return the signal that stopped them, if any."""
    if left is not None and not left:
        return None
    names = None if jobs is None else {job.name for job in jobs}
    try:
        with _signals(), Watch(ledger, screen, jobs=names):
            launch(request, left)
    except SweepStop as stop:
        return stop.received
    except KeyboardInterrupt:
        return signal.SIGINT
    except JobFailedError as error:
        screen.fail(str(error))
    except NameplateError:
        raise
    except Exception as error:  # e.g. a sampler with nothing to choose from, a launcher that lost its workers
        screen.fail(f"{request.sweeper} with {request.launcher} gave up: {type(error).__name__}: {error}")
        if not any(record.state is State.failed for record in ledger.records()):
            raise
    return None


def _summary(
    ledger: Ledger,
    jobs: Sequence[SweepJob] | None,
    screen: Screen,
    *,
    began: str,
    received: signal.Signals | None,
) -> int:
    """Print and write the results of the sweep; return the exit code."""
    records = ledger.records()
    board = leaderboard.board_of(records)
    if records:
        screen.table(f"leaderboard of {ledger.directory}", leaderboard.columns(board), leaderboard.rows(board))
        paths = leaderboard.write(ledger, board)
        write_hparams(ledger, records)
        screen.say(f"also in {' and '.join(map(str, paths))}")
        screen.say(f"  look         {tool('tensorboard')} --logdir {shlex.quote(str(ledger.directory))}")
    names = None if jobs is None else {job.name for job in jobs}
    mine = [
        record for record in records if (record.job in names if names is not None else (record.ended or "") >= began)
    ]
    for record in mine:
        if record.state is State.failed:
            reason = (record.error or "").partition("\n")[0]
            where = ledger.home(record.job) / "failure.txt"
            screen.fail(f"{record.job} failed, exit {record.exit_code}: {reason}\n  {where}")
    for damage in ledger.damaged().values():
        screen.fail(f"{damage}; it is not on the leaderboard")
    if received is not None:
        screen.fail(f"stopped by {received.name}. The same command resumes the sweep.")
        return Exit.INTERRUPTED if received is signal.SIGINT else Exit.TERMINATED
    return _code(mine)


def _code(records: Sequence[JobRecord]) -> int:
    if any(record.state is State.failed for record in records):
        return Exit.FAILED
    if any(record.state is State.interrupted for record in records):
        return Exit.TERMINATED
    return Exit.DONE


def _is_done(ledger: Ledger, job: SweepJob) -> bool:
    record = ledger.record(job.name)
    return record is not None and is_done(record, job)


def _refuse_incomparable(ledger: Ledger, records: Sequence[JobRecord], jobs: Sequence[SweepJob]) -> None:
    changed = differences(list(map(_all_settings, records)), list(map(_all_settings, jobs))) if records else {}
    if changed:
        both = " ".join(f"{key}={_word(old)},{_word(new)}" for key, (old, new) in changed.items())
        raise ConfigError(
            [
                *(f"{key}: {_word(old)} -> {_word(new)}" for key, (old, new) in changed.items()),
                f"the {len(records)} jobs in {ledger.directory} cannot be compared with these. "
                f"Choose another run=NAME, or sweep over both: {both}",
            ]
        )


def _all_settings(job: SweepJob | JobRecord) -> dict[str, Any]:
    return {**job.usual, **job.settings}


def _word(value: Any) -> str:
    return leaderboard.as_text(value)


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the first stopping signal into `SweepStop`; the second one has its default effect and kills the process.

    A handler that a launcher has set stays: submitit's requeues the job with Slurm.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        for stopping in STOPPING:
            signal.signal(stopping, signal.SIG_DFL)
        raise SweepStop(signal.Signals(number))

    usual = (signal.SIG_DFL, signal.default_int_handler)
    handlers = {stopping: signal.getsignal(stopping) for stopping in STOPPING}
    previous = {stopping: handler for stopping, handler in handlers.items() if handler in usual}
    for stopping in previous:
        signal.signal(stopping, stop)
    try:
        yield
    finally:
        for stopping, handler in previous.items():
            signal.signal(stopping, handler)


def _dry(jobs: Sequence[SweepJob] | None) -> int:
    """Try one step of every job of a grid, each in a process of its own; nothing is written."""
    if jobs is None:
        raise ConfigError(["dry_run: the sampler chooses the jobs during the sweep; try one without -m"])
    codes = [subprocess.run([sys.executable, "-m", "trainer", *job.overrides], check=False).returncode for job in jobs]
    return next((code for code in codes if code), Exit.DONE)
