"""Starting the process of a job, fresh or as a fork of a warm one, and waiting for it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from trainer.config.run_config import RunConfig, SweepMode
from trainer.ledger.record import JobRecord


@dataclass(frozen=True)
class Spec:
    """What a job's process gets, through a pipe: one job, ready to run."""

    config: RunConfig  # `run` is the job, `runs` the sweep's directory
    record: JobRecord  # as it is while the job runs
    directory: Path  # of the sweep
    environment: Mapping[str, str]
    search: tuple[str, ...]  # sys.path
    cores: tuple[int, ...] | None  # None: all
    records: bool = True  # this process records how the job ended; false for a worker that is not the chief

    @property
    def home(self) -> Path:
        """Return the job's directory."""
        return self.directory / self.record.job

    @property
    def output(self) -> Path:
        """Return the file of the job's output; each worker that is not the chief has its own."""
        return self.home / ("output.log" if self.records else f"output-{socket.gethostname()}-{os.getpid()}.log")

    @property
    def failure(self) -> Path:
        """Return the file with the error of a job that failed."""
        return self.home / "failure.txt"


def write_failure(path: Path, text: str) -> None:
    """Write the error of a job; a full disk must not hide it."""
    try:
        path.write_text(text if text.endswith("\n") else f"{text}\n", "utf-8")
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error}\n")


@dataclass
class JobProcess:
    """A running job, with this process' ends of two pipes."""

    pid: int
    lifeline: int  # write end: the job stops when it is closed
    alive: int  # read end: at end of file when the job's process is gone, whoever its parent is
    _exit_code: Callable[[], int]

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code; negative for the signal that ended it."""
        while os.read(self.alive, 1):
            pass
        return self._exit_code()

    def let_go(self) -> None:
        """Ask the job to save and end."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def close(self) -> None:
        """Close both pipes."""
        self.let_go()
        os.close(self.alive)


def start(spec: Spec, *, keep: Sequence[int]) -> JobProcess:
    """Start a job in a process of its own, which keeps the descriptors in `keep` open as long as it lives.

    It has its own session, so a signal from the terminal reaches it only once, through the lifeline.
    """
    lifeline, own_lifeline = os.pipe()
    own_alive, alive = os.pipe()
    spec.home.mkdir(parents=True, exist_ok=True)
    begin = _forked if spec.config.sweep.mode is SweepMode.warm else _fresh
    try:
        pid, exit_code = begin(spec, lifeline, [alive, *keep])
    except BaseException:
        os.close(own_lifeline)
        os.close(own_alive)
        raise
    finally:
        os.close(lifeline)
        os.close(alive)
    return JobProcess(pid, own_lifeline, own_alive, exit_code)


def _fresh(spec: Spec, lifeline: int, keep: list[int]) -> tuple[int, Callable[[], int]]:
    command = [sys.executable, "-m", "trainer.sweep.job_process", str(lifeline)]
    with spec.output.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(lifeline, *keep),
            env={**spec.environment, "PYTHONPATH": os.pathsep.join(filter(None, spec.search))},
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # it ended before it read; the exit code says why
        pickle.dump(spec, pipe)
    return process.pid, process.wait


class Handed:
    """A descriptor among the arguments of a process that the fork server forks."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.descriptor)

    def __setstate__(self, state: Any) -> None:
        self.descriptor = state.detach()


def _forked(spec: Spec, lifeline: int, keep: list[int]) -> tuple[int, Callable[[], int]]:
    from trainer.sweep import job_process

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.sweep.warm"])
    arguments = (spec, Handed(lifeline), list(map(Handed, keep)))
    process = context.Process(target=job_process.forked, args=arguments, name=spec.record.job)
    with _known_start_method():
        process.start()
    assert process.pid is not None

    def exit_code() -> int:
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    return process.pid, exit_code


@contextmanager
def _known_start_method() -> Iterator[None]:
    """Use a start method that the forked process knows: joblib's workers have their own, `loky`."""
    usual = multiprocessing.get_start_method()
    if usual in multiprocessing.get_all_start_methods():
        yield
        return
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(usual, force=True)
