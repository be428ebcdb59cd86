"""The ledger of a sweep: one record a job, beside the jobs' directories, written by one process at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nameplate.checkpoint import durable, files, layout, lock
from nameplate.checkpoint.errors import DamagedError, explained, reason
from nameplate.checkpoint.files import patiently
from nameplate.checkpoint.remote import url_of
from nameplate.errors import NameplateError
from trainer.ledger.record import JobRecord, State, decode, encode, is_name

FOLDER = "ledger"  # inside a sweep's directory
ABOUT = "sweep.json"
_RECORD, _LOCK = ".job", ".lock"
_LARGEST = 16 << 20  # bytes of a record
_OLD = 3600.0  # seconds after which a temporary file is abandoned


class Ledger:
    """The records of the jobs of the sweep in `directory`."""

    def __init__(self, directory: Path) -> None:
        if url := url_of(directory):
            raise NameplateError(
                f"{url}: a sweep keeps its ledger in a directory, which its processes lock, not in a store; choose a "
                "directory here or on a disk that they share"
            )
        self.directory = Path(directory)

    def home(self, job: str) -> Path:
        """Return the directory of a job, which is a run like any other."""
        return self.directory / job

    def hold(self, job: str, *, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[int]:
        """Lock a job for this process and those that inherit the descriptor; wait until it is free."""
        return lock.held(self._path(job, _LOCK), waiting=waiting)

    def try_hold(self, job: str) -> int | None:
        """Lock a job and return the descriptor; None if another process has it."""
        return lock.take(self._path(job, _LOCK))

    def commit(self, record: JobRecord) -> None:
        """Write a record, whole or not at all; the job must be locked.

        The end of a job is fsynced. That it is planned or running is not: if a power cut loses that, it is found again.
        """
        path = self._path(record.job, _RECORD)
        fresh = durable.beside(path, durable.NEW)
        with explained("Writing", path):
            durable.make_directories(path.parent)
            if record.state in (State.planned, State.running):
                fresh.write_bytes(encode(record))
                fresh.rename(path)
            else:
                durable.replace_file(path, encode(record), temporary=fresh)

    def record(self, job: str) -> JobRecord | None:
        """Return the record of a job; None if there is none, or it is damaged (see `damaged`).

        A job whose record says running, but that no process has locked, was interrupted.
        """
        try:
            record = self._read(job)
            if record.state is State.running and lock.is_free(self._path(job, _LOCK)):
                # Read again: the job may have ended between the read and the look at the lock.
                record = self._read(job)
                return replace(record, state=State.interrupted) if record.state is State.running else record
        except (FileNotFoundError, DamagedError):
            return None
        return record

    def records(self) -> list[JobRecord]:
        """Return all undamaged records, in the order in which the jobs were planned."""
        records = [record for job in self.jobs() if (record := self.record(job)) is not None]
        return sorted(records, key=lambda record: (record.planned or record.started or "", record.job))

    def damaged(self) -> dict[str, str]:
        """Return a message for each job whose record is damaged; its results are unknown."""
        problems = {}
        for job in self.jobs():
            try:
                self._read(job)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                problems[job] = f"the record of {job} is damaged: {self._path(job, _RECORD)}: {error}"
        return problems

    def _read(self, job: str) -> JobRecord:
        """Return a job's record. Raises `DamagedError`, or `FileNotFoundError` where there is none."""
        path = self._path(job, _RECORD)
        try:
            data = patiently(lambda: files.read_regular(path, most=_LARGEST))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DamagedError(reason(error)) from None
        record = decode(data)
        if record.job != job:
            raise DamagedError(f"it belongs to another job, {record.job!r:.80}")
        return record

    def jobs(self) -> Iterator[str]:
        """Yield the name of every job that has a record."""
        for name in layout.listing(self.directory / FOLDER):
            if name.endswith(_RECORD) and is_name(name.removesuffix(_RECORD)):
                yield name.removesuffix(_RECORD)

    def changed(self) -> int:
        """Return a number that changes whenever a record is written."""
        try:
            return (self.directory / FOLDER).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def tidy(self) -> None:
        """Delete temporary files that writers left an hour ago or longer."""
        folder = self.directory / FOLDER
        for name in layout.listing(folder):
            with suppress(OSError):
                if name.startswith(durable.NEW) and time.time() - (folder / name).stat().st_mtime > _OLD:
                    (folder / name).unlink()

    def write_about(self, about: dict[str, Any]) -> None:
        """Write what is known about the sweep as a whole, such as its command."""
        path = self.directory / ABOUT
        with explained("Writing", path):
            durable.make_directories(path.parent)
            text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            durable.replace_file(path, text.encode())

    def about(self) -> dict[str, Any]:
        """Return what `write_about` wrote; empty if there is nothing."""
        try:
            about = json.loads(files.read_regular(self.directory / ABOUT, most=_LARGEST))
        except (OSError, ValueError, RecursionError, DamagedError):
            return {}
        return about if isinstance(about, dict) else {}

    def command(self) -> list[str]:
        """Return the command that made the sweep; empty if it is not a call of this program."""
        command = self.about().get("command")
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            return []
        return command if command[1:3] == ["-m", "trainer"] else []

    def _path(self, job: str, ending: str) -> Path:
        return self.directory / FOLDER / f"{job}{ending}"


def is_sweep(directory: Path) -> bool:
    """Say whether a directory is a sweep's."""
    return (directory / FOLDER).is_dir()
