"""Reading files that may be hostile, on file systems that may lose them.

Links, pipes and devices are refused without waiting for them. A network file system loses the handle of a file that
another machine has replaced (ESTALE); such a read is repeated.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nameplate.checkpoint.errors import DamagedError, StoreError

T = TypeVar("T")

PIECE = 1 << 20  # bytes read and hashed at a time

_PAUSES = (0.0, 0.05, 0.2, 0.5)  # seconds; the first retry gets a fresh handle, the others wait for a slow server
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # no checkpoint of ours has a link or a pipe in it


def patiently(action: Callable[[], T]) -> T:
    """Return `action()`, retried up to four times while it fails with ESTALE."""
    for pause in _PAUSES:
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(pause)
    return action()


def open_regular(path: Path) -> int:
    """Return a descriptor for reading the file at `path`; links are followed, and a pipe is not waited for.

    Raises `DamagedError` for a pipe or a device, `OSError` for a directory and as `os.open`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return _regular(descriptor, path)


def read_regular(path: Path, *, most: int) -> bytes:
    """Return the first `most` bytes of the file at `path`. Raises as `open_regular`."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(most)


def open_lock(path: Path) -> int:
    """Return a descriptor for reading and writing the lock file at `path`, created if missing.

    Raises `StoreError` for a link, through which another file would be locked and overwritten, and for anything that
    is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise StoreError(f"{path} is a link, a device or a directory, not a lock file; delete it.") from None
        raise
    try:
        _regular(descriptor, path)
    except DamagedError as error:
        raise StoreError(f"{error}, so not a lock file; delete it.") from None
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise StoreError(f"{path} is a hard link to another file, which it would overwrite; delete it.")
    return descriptor


def _regular(descriptor: int, path: Path) -> int:
    """Return the descriptor of a regular file; close any other and raise `DamagedError`."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise DamagedError(f"{path} is not a file")
    return descriptor


class OpenFiles:
    """Files of directory `path`, opened once and read at any offset; closed by `close` or garbage collection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors: dict[str, int] = {}
        self._finalizer = weakref.finalize(self, _close, self._directory, self._descriptors)

    def open(self, name: str) -> int:
        """Open file `name` and return its size in bytes.

        Raises `FileNotFoundError`, and `DamagedError` for what is not a regular file.
        """
        descriptor, size = self._unless_stale(
            lambda: _open(name, directory=self._directory), lambda: _open(self.path / name, directory=None)
        )
        self._descriptors[name] = descriptor
        return size

    def read(self, name: str, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` of file `name` from `offset` on, fewer at its end."""
        parts: list[bytes] = []  # usually one, which join returns without a copy
        while nbytes:
            part = self._reading(name, os.pread, nbytes, offset)
            if not part:
                break
            parts.append(part)
            offset, nbytes = offset + len(part), nbytes - len(part)
        return b"".join(parts)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes from `offset` on and return how many there were, fewer at the file's end."""
        filled = 0
        while filled < len(buffer):
            count = self._reading(name, os.preadv, [buffer[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled

    def names(self) -> list[str]:
        """Return the names of everything in the directory at this moment, sorted."""
        return sorted(self._unless_stale(lambda: os.listdir(self._directory), lambda: os.listdir(self.path)))

    def close(self) -> None:
        """Close all files; reading afterwards is an error."""
        self._finalizer()

    def _reading(self, name: str, action: Callable[..., T], *arguments: object) -> T:
        """Return `action(descriptor, *arguments)` for file `name`."""
        return self._unless_stale(
            lambda: action(self._descriptors[name], *arguments),
            lambda: action(self._reopened(name), *arguments),
        )

    def _reopened(self, name: str) -> int:
        descriptor, _ = _open(self.path / name, directory=None)
        os.close(self._descriptors[name])
        self._descriptors[name] = descriptor
        return descriptor

    @staticmethod
    def _unless_stale(by_descriptor: Callable[[], T], by_path: Callable[[], T]) -> T:
        """Return `by_descriptor()`, or `by_path()` where a network file system has lost the descriptor."""
        try:
            return by_descriptor()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return patiently(by_path)


def _open(name: str | Path, *, directory: int | None) -> tuple[int, int]:
    """Return a descriptor for reading `name`, and its size in bytes."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise DamagedError(f"{os.path.basename(name)} is a link or a device, not a file") from None
        raise
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise DamagedError(f"{os.path.basename(name)} is not a file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, about.st_size


def _close(directory: int, descriptors: dict[str, int]) -> None:
    for descriptor in (directory, *descriptors.values()):
        with suppress(OSError):  # opened for reading: nothing can be lost
            os.close(descriptor)
    descriptors.clear()
