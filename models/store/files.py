"""The files of one checkpoint, held open, so that deleting or replacing the checkpoint does not disturb its
reader.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from models.store.errors import DamagedError
from models.store.patience import patiently

T = TypeVar("T")

PIECE = 1 << 20  # bytes read and hashed at a time

_FLAGS = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
)  # a link or a pipe in a checkpoint is no file of ours


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
        """Open file `name` and return its size in bytes. Raises `FileNotFoundError`, or `DamagedError` for
        what is no file.
        """
        descriptor = _open(name, self._directory)
        self._descriptors[name] = descriptor
        return os.fstat(descriptor).st_size

    def size(self, name: str) -> int:
        """Return the size of the open file `name` in bytes."""
        return os.fstat(self._descriptors[name]).st_size

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
        return sorted(os.listdir(self._directory))

    def close(self) -> None:
        """Close all files; reading afterwards is an error."""
        self._finalizer()

    def _reading(self, name: str, action: Callable[..., T], *arguments: object) -> T:
        """Return `action(descriptor, *arguments)` for file `name`, on a fresh descriptor where the server
        lost the old one.
        """
        try:
            return action(self._descriptors[name], *arguments)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return patiently(lambda: action(self._refreshed(name), *arguments))

    def _refreshed(self, name: str) -> int:
        fresh = os.open(self.path / name, _FLAGS)
        os.close(self._descriptors[name])
        self._descriptors[name] = fresh
        return fresh


def _open(name: str, directory: int) -> int:
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise DamagedError(f"{name} is a link or a device, not a file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError(f"{name} is not a file")
    return descriptor


def _close(directory: int, descriptors: dict[str, int]) -> None:
    for descriptor in (directory, *descriptors.values()):
        os.close(descriptor)
    descriptors.clear()
