"""Locks on files: an flock is held until every process with its descriptor has closed it or died.

`take`, `held` and `is_free` lock any file, for jobs and devices; `RunLock` is the one lock of a run directory, which
says who holds it.
"""

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
from nameplate.checkpoint.errors import LockedError, StoreError, explained

NAME = ".lock"  # of a run directory
PAUSE = 0.1  # seconds between two attempts at a lock that another process holds
SILENCE = 1.0  # seconds of waiting before it is reported

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


def take(path: Path) -> int | None:
    """Return a descriptor that holds the lock file `path`, created if missing; None when another process holds it.

    Closing the descriptor releases the lock. A child process that inherits it holds the same lock.
    """
    with explained("Locking", path):
        durable.make_directories(path.parent)
        return _locked(files.open_lock(path))


def is_free(path: Path) -> bool:
    """Return whether no process holds the lock; the check takes it for a moment, shared."""
    try:
        descriptor = _locked(files.open_regular(path), shared=True)
    except FileNotFoundError:
        return True
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


@contextmanager
def held(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Wait for the lock and hold it inside a `with` block; `waiting` is called once when that takes a while."""
    with _waited_for(lambda: take(path), waiting) as descriptor:
        yield descriptor


@contextmanager
def directory_held(path: Path) -> Iterator[int]:
    """Wait for the lock on directory `path` itself and hold it inside a `with` block; no file is created."""
    with _waited_for(lambda: _locked(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))) as descriptor:
        yield descriptor


@contextmanager
def _waited_for(attempt: Callable[[], int | None], waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    started, reported = time.monotonic(), False
    while (descriptor := attempt()) is None:
        if not reported and time.monotonic() - started > SILENCE:
            waiting()
            reported = True
        time.sleep(PAUSE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int, *, shared: bool = False) -> int | None:
    """Return `descriptor` with the lock on its file; None, and the descriptor closed, when another holds it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _TAKEN:
            return None
        raise
    return descriptor


class RunLock:
    """Holds directory `run` for this process alone inside a `with` block, creating it if it is missing.

    Raises `LockedError` at once, naming the holder, when another process or another lock of this one holds it. The
    lock file stays on disk; only the flock on it counts, so a file that a dead process left is simply taken.
    """

    def __init__(self, run: Path) -> None:
        self.path = Path(run) / NAME
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        descriptor = take(self.path)
        if descriptor is None:
            raise LockedError(
                f"{self.path.parent} is in use by {_holder(self.path)}. "
                "Wait until it ends, stop it, or choose another run."
            )
        try:
            with explained("Locking", self.path):
                _sign(descriptor)
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
        """Release the lock; harmless when it is not held."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with suppress(OSError):  # the lock is released even so
                os.close(descriptor)


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _release_in_child() -> None:
    """Close the locks in a forked child, which would otherwise hold them after its parent has died."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)


def _sign(descriptor: int) -> None:
    """Write who holds the lock into its file."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(about).encode(), 0)


def _holder(path: Path) -> str:
    """Return who holds the lock, as its file says."""
    try:
        about = json.loads(files.read_regular(path, most=1024))
        return f"process {about['pid']:d} on host {about['host']!r:.100}, since {about['started']!s:.40}"
    except (OSError, StoreError, ValueError, KeyError, TypeError):
        return "another process, whose name and host are unknown"
