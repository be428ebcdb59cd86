"""Network file systems lose handles of files that another machine replaced: ask again, a few times."""

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

_PAUSES = (
    0.0,
    0.05,
    0.2,
    0.5,
)  # seconds; a second look by name gets a fresh handle, the rest is for a slow server


def patiently(action: Callable[[], T]) -> T:
    """Return `action()`, repeated while it fails with ESTALE, five times at most."""
    for pause in _PAUSES:
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(pause)
    return action()


PIECE = 1 << 20  # bytes read and hashed at a time

_FLAGS = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
)  # a link or a pipe in a checkpoint is no file of ours


def open_regular(path: Path) -> int:
    """Return a descriptor for reading the file at `path`; links are followed, and nothing is waited for.

    Raises `DamagedError` for a pipe or a device, `OSError` for a directory and as `os.open`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return _regular(descriptor, path)


def read_regular(path: Path, *, most: int) -> bytes:
    """Return the first `most` bytes of the file at `path`. Raises as `open_regular`."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(most)


def open_lock(path: Path) -> int:
    """Return a descriptor for reading and writing the lock file at `path`, made where it is missing.

    Raises `StoreError` for a link, in whose place another file would be locked or written, and for what is not a file.
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
        raise StoreError(f"{path} is a second name of another file (a hard link), which it would overwrite; delete it.")
    return descriptor


def _regular(descriptor: int, path: Path) -> int:
    """Return the descriptor where it is of a file; else close it and raise `DamagedError`."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise DamagedError(f"{path} is not a file")
    return descriptor


class OpenFiles:
    """Files of directory `path`, opened together and read at any offset; closed with `close` or with the last
    reference.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors: dict[str, int] = {}
        self._finalizer = weakref.finalize(self, _close, self._directory, self._descriptors)

    def open(self, name: str) -> int:
        """Open file `name` and return its size in bytes.

        Raises `FileNotFoundError`, or `DamagedError` for what is no file.
        """
        descriptor, size = self._unless_stale(
            lambda: _open(name, directory=self._directory), lambda: _open(self.path / name, directory=None)
        )
        self._descriptors[name] = descriptor
        return size

    def read(self, name: str, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` of file `name` from `offset` on, fewer at its end."""
        parts: list[bytes] = []  # one, as a rule, which join returns without copying it
        while nbytes:
            part = self._reading(name, os.pread, nbytes, offset)
            if not part:
                break
            parts.append(part)
            offset, nbytes = offset + len(part), nbytes - len(part)
        return b"".join(parts)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` on and return how much of it could be filled: less at the end of the
        file.
        """
        filled = 0
        while filled < len(buffer):
            count = self._reading(name, os.preadv, [buffer[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled

    def names(self) -> list[str]:
        """Return the names of all that is in the directory now, sorted."""
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
        """Return the first, or, where a network file system lost the descriptor, the second, patiently."""
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
        with suppress(OSError):  # nothing was written: nothing is lost
            os.close(descriptor)
    descriptors.clear()
