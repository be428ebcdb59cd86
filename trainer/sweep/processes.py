"""What a job's process is given: plain data that travels through a pipe."""

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
    """One job, ready to begin."""

    config: RunConfig  # run is the job, runs the sweep's directory
    record: JobRecord  # as it is while the job runs
    directory: Path  # of the sweep
    environment: Mapping[str, str]
    search: tuple[str, ...]  # sys.path
    cores: tuple[int, ...] | None  # None: all
    records: bool = True  # this process writes how the job ended: not one that follows another worker of it

    @property
    def home(self) -> Path:
        """Return the job's directory."""
        return self.directory / self.record.job

    @property
    def output(self) -> Path:
        """Return the file of all that the job says; a worker that follows has one of its own."""
        return self.home / ("output.log" if self.records else f"output-{socket.gethostname()}-{os.getpid()}.log")

    @property
    def failure(self) -> Path:
        """Return the file of what ended the job; there is none for one that did well."""
        return self.home / "failure.txt"


def write_failure(path: Path, text: str) -> None:
    """Write what ended a job; a full disk must not hide it."""
    try:
        path.write_text(text if text.endswith("\n") else f"{text}\n", "utf-8")
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error}\n")


@dataclass
class JobProcess:
    """A job under way; the pipes are this process' ends."""

    pid: int
    lifeline: int  # open as long as the job shall go on
    alive: int  # at its end when the job's process is gone, whoever its parent was
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
        """Let go, and be done with it."""
        self.let_go()
        os.close(self.alive)


def start(spec: Spec, *, keep: Sequence[int]) -> JobProcess:
    """Start a job in a process of its own, which holds on to the descriptors in `keep` as long as it lives.

    It is in a session of its own: what a terminal sends to all of its processes comes through the lifeline, once.
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
    with suppress(BrokenPipeError), process.stdin as pipe:  # it ended before it read: its exit code tells
        pickle.dump(spec, pipe)
    return process.pid, process.wait


class Handed:
    """A descriptor that goes with the arguments of a process that is forked elsewhere."""

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
    arguments = (spec, Handed(lifeline), [Handed(each) for each in keep])
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
    """Tell the forked process a start method that it knows: joblib's workers have one of their own, `loky`."""
    usual = multiprocessing.get_start_method()
    if usual in multiprocessing.get_all_start_methods():
        yield
        return
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(usual, force=True)
