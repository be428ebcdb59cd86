"""A whole sweep: planned in its ledger, launched, watched, and told at its end."""

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
    """A signal: it ends the sweep, and every launcher lets it through."""

    def __init__(self, received: signal.Signals) -> None:
        self.received = received
        super().__init__(received.name)


def sweep(arguments: Sequence[str], *, tells: bool = True) -> int:
    """Run the jobs that a command line with `-m` means and that are not done; return the exit code.

    `tells` is false for a call that is not the sweep's own command, e.g. for one job of it.

    Raises:
        NameplateError: the command line cannot be used, or does not go with what the sweep has done before.
    """
    screen = Screen()
    request = request_of(arguments)
    jobs = grid_of(request)
    if request.base.dry_run:
        return _dry(jobs)
    ledger = Ledger(SweepJob(request.base, "", ()).directory)
    os.environ[BEGAN] = began = now()
    wanted = _planned(ledger, request, jobs, screen)
    ledger.tidy()
    if tells:
        _tell(ledger, request)
    open_jobs = None if wanted is None else [job for job in wanted if not _is_done(ledger, job)]
    received = _launched(ledger, request, wanted, open_jobs, screen)
    return _told(ledger, wanted, screen, began=began, received=received)


def _planned(
    ledger: Ledger, request: SweepRequest, jobs: Sequence[SweepJob] | None, screen: Screen
) -> list[SweepJob] | None:
    """Write the jobs of a grid into the ledger, those that are new as planned; return each once.

    Raises:
        ConfigError: the ledger has jobs that these could not be compared with.
    """
    records = ledger.records()
    if not request.base.resume and any(each.attempts for each in records):
        raise NameplateError(
            f"resume=false, and {ledger.directory} has jobs that have begun; nothing was touched. "
            "Leave resume out to go on from there, or choose another run=NAME."
        )
    if jobs is not None:
        _refuse_incomparable(ledger, records, jobs)
    if request.sweeper == "optuna":
        better(request)  # refused now, not when Hydra has begun
    if jobs is None:
        screen.say(f"sweep {ledger.directory}: {request.sweeper} makes up the jobs; {len(records)} are in the ledger")
        return None
    found = {job.name: job for job in jobs}
    if len(found) < len(jobs):
        screen.say(
            f"{len(jobs)} jobs, and {len(found)} results: the others differ in nothing that decides one. "
            "sweep.distinct=[KEY] tells them apart by a key all the same"
        )
    for job_name, damage in ledger.damaged().items():
        again = "the job goes on from its last checkpoint" if job_name in found else "no job of this call is it"
        screen.fail(f"{damage}; {again}")
    there = {record.job for record in records}
    for job in found.values():
        if job.name not in there:
            _plan(ledger, job)
    done = sum(_is_done(ledger, job) for job in found.values())
    screen.say(f"sweep {ledger.directory}: {len(found)} jobs, {done} of them done before")
    return list(found.values())


def _tell(ledger: Ledger, request: SweepRequest) -> None:
    about = {"command": ["python", "-m", "trainer", *request.arguments], "called": now(), "sweeper": request.sweeper}
    ledger.tell(about | {"launcher": request.launcher, "mode": str(request.base.sweep.mode)})


def _plan(ledger: Ledger, job: SweepJob) -> None:
    lock = ledger.try_hold(job.name)
    if lock is None:
        return  # another call of the same sweep is there already
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
    """Run what is left; return the signal that ended it, None where none did."""
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
    except Exception as error:  # a sampler that has nothing to choose from, a launcher that lost its workers
        screen.fail(f"{request.sweeper} with {request.launcher} gave up: {type(error).__name__}: {error}")
        if not any(each.state is State.failed for each in ledger.records()):
            raise
    return None


def _told(
    ledger: Ledger,
    jobs: Sequence[SweepJob] | None,
    screen: Screen,
    *,
    began: str,
    received: signal.Signals | None,
) -> int:
    """Show and write what the sweep has come to; return the exit code."""
    records = ledger.records()
    made = leaderboard.board_of(records)
    if records:
        screen.table(f"leaderboard of {ledger.directory}", leaderboard.columns(made), leaderboard.rows(made))
        paths = leaderboard.write(ledger, made)
        write_hparams(ledger, records)
        screen.say(f"also in {' and '.join(map(str, paths))}")
        screen.say(f"  look         {tool('tensorboard')} --logdir {shlex.quote(str(ledger.directory))}")
    names = None if jobs is None else {job.name for job in jobs}
    mine = [each for each in records if (each.job in names if names is not None else (each.ended or "") >= began)]
    for record in mine:
        if record.state is State.failed:
            reason = (record.error or "").partition("\n")[0]
            where = ledger.home(record.job) / "failure.txt"
            screen.fail(f"{record.job} failed, exit {record.exit_code}: {reason}\n  {where}")
    for damage in ledger.damaged().values():
        screen.fail(f"{damage}; the leaderboard lacks it")
    if received is not None:
        screen.fail(f"stopped by {received.name}. The same command goes on from there.")
        return Exit.INTERRUPTED if received is signal.SIGINT else Exit.TERMINATED
    return _code(mine)


def _code(records: Sequence[JobRecord]) -> int:
    if any(each.state is State.failed for each in records):
        return Exit.FAILED
    if any(each.state is State.interrupted for each in records):
        return Exit.TERMINATED
    return Exit.DONE


def _is_done(ledger: Ledger, job: SweepJob) -> bool:
    record = ledger.record(job.name)
    return record is not None and is_done(record, job)


def _refuse_incomparable(ledger: Ledger, records: Sequence[JobRecord], jobs: Sequence[SweepJob]) -> None:
    found = differences([_all(each) for each in records], [_all(each) for each in jobs]) if records else {}
    if found:
        both = " ".join(f"{key}={_word(old)},{_word(new)}" for key, (old, new) in found.items())
        raise ConfigError(
            [
                *(f"{key}: {_word(old)} -> {_word(new)}" for key, (old, new) in found.items()),
                f"the {len(records)} jobs in {ledger.directory} could not be compared with these. "
                f"Choose another run=NAME, or sweep over both: {both}",
            ]
        )


def _all(job: SweepJob | JobRecord) -> dict[str, Any]:
    return {**job.usual, **job.settings}


def _word(value: Any) -> str:
    return leaderboard.in_words(value)


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the first stopping signal into `SweepStop`; the second takes its default effect, and ends all at once.

    A handler that a launcher has set is its own business: submitit's hands the job back to Slurm.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)
        raise SweepStop(signal.Signals(number))

    usual = (signal.SIG_DFL, signal.default_int_handler)
    previous = {each: signal.getsignal(each) for each in STOPPING if signal.getsignal(each) in usual}
    for each in previous:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def _dry(jobs: Sequence[SweepJob] | None) -> int:
    """Try every job of a grid for one step, each in a process of its own; nothing is written."""
    if jobs is None:
        raise ConfigError(["dry_run: the jobs are made up as the sweep goes; try one without -m"])
    codes = [subprocess.run([sys.executable, "-m", "trainer", *job.overrides], check=False).returncode for job in jobs]
    return next((code for code in codes if code), Exit.DONE)
