"""An flock that a child process can hold on to: it is free when all that hold it are gone, however they went."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.store import durable, files
from models.store.errors import explained

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
