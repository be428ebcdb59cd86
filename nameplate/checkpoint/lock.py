"""An flock that a child process can hold on to: it is free when all that hold it are gone, however they went."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from nameplate.checkpoint import durable, files
from nameplate.checkpoint.errors import LockedError, explained

PAUSE = 0.1  # seconds between two looks at a lock that another process holds
SILENCE = 1.0  # seconds of waiting that need no words


def take(path: Path) -> int | None:
    """Return the descriptor that holds the lock file `path`, made where it is missing; None when another holds it.

    The descriptor belongs to the caller. A child process that it is handed to holds the same lock.
    """
    with explained("Locking", path):
        durable.make_directories(path.parent)
        descriptor = files.open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
    return descriptor


def is_free(path: Path) -> bool:
    """Say whether nobody holds the lock; looking takes it for no longer than a moment, and shared."""
    try:
        descriptor = files.open_regular(path)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def held(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock inside a `with` block, once it is free; `waiting` is called once when that takes a while."""
    began, told = time.monotonic(), False
    while (descriptor := take(path)) is None:
        if not told and time.monotonic() - began > SILENCE:
            waiting()
            told = True
        time.sleep(PAUSE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


NAME = ".lock"


class RunLock:
    """Holds directory `run` for this process alone inside a `with` block, creating it where it is missing.

    Raises `LockedError` at once when another process (or another lock of this one) holds it, saying which.
    The file stays; only the lock on it counts, so one that a dead process left is simply taken.
    """

    def __init__(self, run: Path) -> None:
        self.path = Path(run) / NAME
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        with explained("Locking", self.path):
            durable.make_directories(self.path.parent)
            descriptor = files.open_lock(self.path)
            try:
                self._take(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        _held.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let another process have the run; harmless when it is not held."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with suppress(OSError):  # the lock is gone all the same
                os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise LockedError(
                f"{self.path.parent} is in use by {_holder(descriptor)}. "
                "Wait until it ends, stop it, or choose another run=NAME."
            ) from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _release_in_child() -> None:
    """Close the locks in a forked child, which would hold them on after the death of its parent."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 1024, 0))
        return f"process {about['pid']:d} on host {about['host']!r:.100}, since {about['started']!s:.40}"
    except (ValueError, KeyError, TypeError):
        return "another process, which has not yet said who it is"
