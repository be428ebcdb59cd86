"""Atomic, durable writes: a file is written beside its target, fsynced, and renamed into place.

Every file that this project replaces goes through `replace_file`, `replacement` or `put_in_place`. Errors of the
operating system pass through as `OSError`. After a failed fsync the file is abandoned, never fsynced again: the kernel
has marked its pages clean, so a second fsync would succeed without the data (Rebello et al., USENIX ATC 2020).
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

NEW = ".new-"  # prefix of a file that is about to replace another


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Create `path`, which must not exist, and yield its descriptor; fsync and close it after the block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
        os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # an error here counts: some file systems report lost writes only on close


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, data: bytes) -> None:
    """Create `path`, which must not exist, with `data` as its content, and fsync it."""
    with new_file(path) as descriptor:
        write_all(descriptor, data)


def sync_directory(path: Path) -> None:
    """Fsync directory `path`, so that the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Create directory `path` and its missing parents, and fsync each parent."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with suppress(FileExistsError):  # another process was faster; a file of that name fails at the next step
        path.mkdir()
    sync_directory(path.parent)


def replace_file(path: Path, data: bytes, *, temporary: Path | None = None) -> None:
    """Replace the file `path` by one with the content `data`: readers see the old file or the new one."""
    with replacement(path, temporary=temporary, synced=True) as draft:
        write_file(draft, data)


@contextmanager
def replacement(path: Path, *, temporary: Path | None = None, synced: bool = False) -> Iterator[Path]:
    """Yield the path of a draft for the block to write; the draft then replaces `path`, durably and by one rename.

    The draft is removed when the block raises.

    Args:
        path: the file to replace; it need not exist.
        temporary: the draft's path, beside `path`. By default it ends as `path` does, since some writers choose a
            format by the suffix.
        synced: whether the block fsyncs the draft itself.
    """
    draft = temporary or path.with_name(f"{NEW}{secrets.token_hex(4)}-{path.name}")
    try:
        yield draft
        if not synced:
            sync_tree(draft)
        draft.rename(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    sync_directory(path.parent)


def put_in_place(draft: Path, path: Path) -> None:
    """Fsync `draft`, a file or a whole directory, and rename it to `path` on the same file system, durably."""
    sync_tree(draft)
    draft.rename(path)
    sync_directory(path.parent)


def sync_tree(path: Path) -> None:
    """Fsync a file, or a directory with everything in it."""
    for folder, _, names in os.walk(path, topdown=False):  # yields nothing for a file
        for name in names:
            _sync_file(Path(folder, name))
        sync_directory(Path(folder))
    if path.is_file():
        _sync_file(path)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(path: Path, prefix: str) -> Path:
    """Return an unused path beside `path`: `<prefix><name>-<random>`."""
    return path.with_name(f"{prefix}{path.name}-{secrets.token_hex(4)}")


def remove_tree(path: Path) -> None:
    """Delete directory `path` with everything in it, or a file; a link is deleted, not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


STRIDE = 8 << 20  # bytes

_WRITE = 2  # SYNC_FILE_RANGE_WRITE of linux/fs.h: start writing out, do not wait


class Writeback:
    """Asks the kernel to start writing a file out after every `STRIDE` bytes, so that the final fsync is short."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = 0
        self._written = 0

    def add(self, nbytes: int) -> None:
        """Count `nbytes` appended to the file."""
        self._written += nbytes
        if self._written - self._begun >= STRIDE:
            _sync_file_range()(self._descriptor, self._begun, self._written - self._begun, _WRITE)
            self._begun = self._written


@cache
def _sync_file_range() -> Callable[[int, int, int, int], object]:
    """Return Linux' sync_file_range(2), which Python lacks; on other systems a function that does nothing."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return lambda descriptor, offset, nbytes, flags: None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function  # type: ignore[no-any-return]
