"""The process of one job: it trains, records how it ended, and saves and stops when its parent is gone."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nameplate.engine.signals import asked_to_stop
from nameplate.errors import Exit, NameplateError, StoppedError, exit_code
from nameplate.training.console import Screen, import_tensorflow
from trainer.config import remember
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, PrunedError, State, now
from trainer.sweep.processes import Spec, write_failure

GRACE = 0.5  # seconds in which a signal sent to all processes also reaches the job


def watch_parent(descriptor: int) -> None:
    """Stop this process when its parent closes the pipe or dies, unless a signal has stopped it already.

    A second signal would kill the job before it has saved.
    """
    threading.Thread(target=_watch, args=(descriptor,), name="parent-watchdog", daemon=True).start()


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    time.sleep(GRACE)
    if not asked_to_stop():
        os.kill(os.getpid(), signal.SIGTERM)


if TYPE_CHECKING:
    from nameplate.training.report import Report
    from trainer.sweep.processes import Handed

_KEPT: list[object] = []  # descriptors that hold the job and its devices until the process ends


def fresh() -> int:
    """Run the job that comes through standard input, in a process that was started for it."""
    spec = pickle.load(sys.stdin.buffer)
    return _run(spec, int(sys.argv[1]))


def forked(spec: Spec, line: Handed, keep: list[Handed]) -> None:
    """Run a job in a fork of a warm process, and exit with the job's exit code."""
    os.setsid()
    _KEPT.extend(keep)
    os.environ.clear()
    os.environ.update(spec.environment)
    sys.path[:] = spec.search
    _redirect(spec.output)
    sys.exit(_run(spec, line.descriptor))


def _run(spec: Spec, line: int) -> int:
    faulthandler.enable()
    watch_parent(line)
    if spec.cores is not None:
        os.sched_setaffinity(0, spec.cores)
    began = time.monotonic()
    if spec.records:
        spec.failure.unlink(missing_ok=True)
    remember([*spec.record.overrides, f"runs={spec.directory}"])
    ledger, running = Ledger(spec.directory), replace(spec.record, pid=os.getpid())
    if spec.records:
        ledger.commit(running)
    try:
        import_tensorflow()
        from trainer.run import train
        from trainer.sweep.pruning import pruners

        ended = _done(running, train(spec.config, observers=pruners(spec.config, ledger)), spec)
    except PrunedError as error:
        Screen().say(str(error))
        ended = replace(running, state=State.done, exit_code=Exit.DONE, pruned=str(error), **error.reached)
    except BaseException as error:
        ended = _ended(running, error, spec)
    if spec.records:
        ledger.commit(replace(ended, ended=now(), seconds=running.seconds + time.monotonic() - began))
    sys.stdout.flush()
    assert ended.exit_code is not None
    return ended.exit_code


def _done(running: JobRecord, report: Report, spec: Spec) -> JobRecord:
    return replace(
        running,
        state=State.done,
        exit_code=Exit.DONE,
        monitor=report.monitor,
        upwards=report.monitor is not None and spec.config.checkpoint.improves_upwards(report.monitor),
        best=report.best,
        values=dict(report.values),
        steps=report.steps,
        pruned=None,
        error=None,
    )


def _ended(running: JobRecord, error: BaseException, spec: Spec) -> JobRecord:
    """Return the record of a job that was stopped or failed; its error goes to its output and to `failure.txt`."""
    if isinstance(error, StoppedError):
        Screen().fail(str(error))
        return replace(running, state=State.interrupted, exit_code=error.exit_code, error=str(error))
    known = isinstance(error, NameplateError)
    text = str(error) if known else "".join(traceback.format_exception(error))
    if isinstance(error, NameplateError):
        Screen().fail(text)
    else:
        sys.stderr.write(text)
    details = text if not known else f"{text}\n\n{''.join(traceback.format_exception(error))}"
    if spec.records:
        write_failure(spec.failure, details)
    code = exit_code(error) if isinstance(error, NameplateError) else _code(error)
    summary = text if known else f"{type(error).__name__}: {error}"
    state = State.interrupted if code in (Exit.INTERRUPTED, Exit.TERMINATED) else State.failed
    return replace(running, state=state, exit_code=code, error=summary.strip())


def _code(error: BaseException) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code or Exit.FAILED  # exit(0) in the middle of a run is a failure too
    return Exit.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Exit.FAILED


def _redirect(path: Path) -> None:
    """Redirect the output of this process to a file, with what TensorFlow writes to the descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(fresh())
