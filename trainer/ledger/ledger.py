"""The ledger of a sweep: a record a job, beside the jobs' directories, each written by one process at a time."""

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
from trainer.ledger.record import JobRecord, State, decode, encode, is_name

FOLDER = "ledger"  # inside a sweep's directory
ABOUT = "sweep.json"
_RECORD, _LOCK = ".job", ".lock"
_LARGEST = 16 << 20  # bytes of a record
_OLD = 3600.0  # seconds after which a temporary is nobody's any more


class Ledger:
    """All that is known of the jobs of the sweep in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def home(self, job: str) -> Path:
        """Return the directory of a job: a run like any other."""
        return self.directory / job

    def hold(self, job: str, *, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[int]:
        """Hold a job for this process and those it hands the descriptor to, once nobody else does."""
        return lock.held(self._path(job, _LOCK), waiting=waiting)

    def try_hold(self, job: str) -> int | None:
        """Return the descriptor that holds a job, or None when somebody else does."""
        return lock.take(self._path(job, _LOCK))

    def commit(self, record: JobRecord) -> None:
        """Write a record, whole or not at all; only who holds the job may.

        How a job ended survives a power cut. That it is planned or begun need not: what is lost of that, or cut short,
        is found out again.
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
        """Return what is known of a job, None for nothing: also where its record is damaged, as `damaged` tells.

        A job that says it runs, and that nobody holds, was interrupted.
        """
        try:
            found = self._read(job)
            if found.state is State.running and lock.is_free(self._path(job, _LOCK)):
                # Its end may have been written between the two looks.
                again = self._read(job)
                return replace(again, state=State.interrupted) if again.state is State.running else again
        except (FileNotFoundError, DamagedError):
            return None
        return found

    def records(self) -> list[JobRecord]:
        """Return all records that are whole, in the order in which the jobs were planned."""
        found = [record for job in self.jobs() if (record := self.record(job)) is not None]
        return sorted(found, key=lambda each: (each.planned or each.started or "", each.job))

    def damaged(self) -> dict[str, str]:
        """Return the jobs whose records are damaged, and why: what they have reached is not known."""
        found = {}
        for job in self.jobs():
            try:
                self._read(job)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                found[job] = f"the record of {job} is damaged: {self._path(job, _RECORD)}: {error}"
        return found

    def _read(self, job: str) -> JobRecord:
        """Return a job's record. Raises `DamagedError`, or `FileNotFoundError` where there is none."""
        path = self._path(job, _RECORD)
        try:
            data = patiently(lambda: files.read_regular(path, most=_LARGEST))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DamagedError(reason(error)) from None
        found = decode(data)
        if found.job != job:
            raise DamagedError(f"it is of another job, {found.job!r:.80}")
        return found

    def jobs(self) -> Iterator[str]:
        """Yield the name of every job that has a record."""
        for name in layout.listing(self.directory / FOLDER):
            if name.endswith(_RECORD) and is_name(name.removesuffix(_RECORD)):
                yield name.removesuffix(_RECORD)

    def changed(self) -> int:
        """Return a number that is another one after a record was written."""
        try:
            return (self.directory / FOLDER).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def tidy(self) -> None:
        """Delete what writers left that died an hour ago or more."""
        folder = self.directory / FOLDER
        for name in layout.listing(folder):
            with suppress(OSError):
                if name.startswith(durable.NEW) and time.time() - (folder / name).stat().st_mtime > _OLD:
                    (folder / name).unlink()

    def tell(self, about: dict[str, Any]) -> None:
        """Write what concerns the sweep as a whole: its command."""
        path = self.directory / ABOUT
        with explained("Writing", path):
            durable.make_directories(path.parent)
            text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            durable.replace_file(path, text.encode())

    def about(self) -> dict[str, Any]:
        """Return what `tell` wrote; empty where there is nothing."""
        try:
            found = json.loads(files.read_regular(self.directory / ABOUT, most=_LARGEST))
        except (OSError, ValueError, RecursionError, DamagedError):
            return {}
        return found if isinstance(found, dict) else {}

    def command(self) -> list[str]:
        """Return the command that made the sweep, as `tell` wrote it; empty where it is no call of this program."""
        found = self.about().get("command")
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            return []
        return found if found[1:3] == ["-m", "trainer"] else []

    def _path(self, job: str, ending: str) -> Path:
        return self.directory / FOLDER / f"{job}{ending}"


def is_sweep(directory: Path) -> bool:
    """Say whether a directory is a sweep's."""
    return (directory / FOLDER).is_dir()
