"""Files and directories that survive a power cut: written, fsynced, closed, and only then given their name.

Errors of the operating system pass through as `OSError`. No file is ever written in place, and after a failed
fsync none is fsynced again: the kernel has marked its pages clean, so a second fsync would lie (Rebello et
al., USENIX ATC 2020).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Create `path`, which must not exist, for the block to write to; fsync and close it after the block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
        os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # its error counts: some file systems report lost writes only here


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however little of it each call takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, data: bytes) -> None:
    """Create `path`, which must not exist, with `data` in it."""
    with new_file(path) as descriptor:
        write_all(descriptor, data)


def sync_directory(path: Path) -> None:
    """Make the names in directory `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Create directory `path` and the missing ones above it, each with its name made durable."""
    if path.is_dir():
        return
    make_directories(path.parent)
    # another process was faster, which is as good; a file shows in what follows
    with suppress(FileExistsError):
        path.mkdir()
    sync_directory(path.parent)


def replace_file(path: Path, data: bytes, *, temporary: Path) -> None:
    """Put a file with `data` in the place of `path` by one rename: readers see the old or the new one."""
    try:
        write_file(temporary, data)
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def beside(path: Path, prefix: str) -> Path:
    """Return a name next to `path` that nothing has: `<prefix><name>-<random>`."""
    return path.with_name(f"{prefix}{path.name}-{secrets.token_hex(4)}")


def remove_tree(path: Path) -> None:
    """Delete directory `path` and all in it; a link is deleted, not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


STRIDE = 8 << 20  # bytes

_WRITE = 2  # SYNC_FILE_RANGE_WRITE of linux/fs.h: begin, do not wait


class Writeback:
    """Asks the kernel to begin writing a file out, each time another `STRIDE` bytes were added to it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = 0
        self._written = 0

    def add(self, nbytes: int) -> None:
        """Note that `nbytes` more were written at the end of the file."""
        self._written += nbytes
        if self._written - self._begun >= STRIDE:
            _sync_file_range()(self._descriptor, self._begun, self._written - self._begun, _WRITE)
            self._begun = self._written


@cache
def _sync_file_range() -> Callable[[int, int, int, int], object]:
    """Return Linux' sync_file_range(2), which Python does not have; elsewhere something that does nothing."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return lambda descriptor, offset, nbytes, flags: None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function  # type: ignore[no-any-return]
