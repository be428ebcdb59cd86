"""Errors between a checkpoint and a disk, worded for the user."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nameplate.errors import NameplateError


class StoreError(NameplateError):
    """A checkpoint could not be saved, found or read."""


class DamagedError(StoreError):
    """A checkpoint differs from what was saved; the message names the files and tensors."""


class NothingGoodError(DamagedError):
    """There are checkpoints, and all of them are damaged."""


class NewerFormatError(StoreError):
    """An intact checkpoint in a format that a later Nameplate introduced."""


class LockedError(StoreError):
    """Another process is writing to this run's directory."""


READING = ("Opening", "Reading")  # the actions in which EIO means damage

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space, or put the run on another disk",
    errno.EDQUOT: "your disk quota is used up. Free some space, or put the run on another disk",
    errno.EROFS: "the file system is read-only. Put the run where you may write",
    errno.EACCES: "permission denied. Put the run where you may write, or ask for the permission",
    errno.EPERM: "the operation is not permitted. Put the run where you may write",
    errno.ENOTDIR: "part of the path is a file, not a directory. Choose another path",
    errno.EEXIST: "something else has that name. Move it away, or choose another path",
    errno.EISDIR: "it is a directory. Choose another path",
    errno.ENAMETOOLONG: "the path is too long for the file system. Choose a shorter one",
    errno.ELOOP: "its symbolic links form a loop. Choose another path",
    errno.EIO: "the disk reports an input/output error. Check its health (dmesg, smartctl)",
    errno.ENOENT: "it does not exist",
    errno.ESTALE: "the network file system lost it (stale handle). Try again",
    errno.EMFILE: "this process has too many open files (ulimit -n)",
    errno.ENOLCK: "the file system provides no locks. Put the run on a disk that supports flock",
    errno.EOPNOTSUPP: "the file system does not support it. Put the run on another disk",
}


def reason(error: OSError) -> str:
    """Return why the operating system refused, and what to do, ending with the error's code."""
    text = _REASONS.get(error.errno or 0, error.strerror or str(error))
    code = errno.errorcode.get(error.errno or 0)
    return f"{text} ({code})." if code else f"{text}."


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `StoreError` that says which action failed on which path.

    An unreadable sector is damage like a flipped bit: EIO while reading becomes a `DamagedError`.
    """
    try:
        yield
    except OSError as error:
        unreadable = error.errno == errno.EIO and action in READING
        kind = DamagedError if unreadable else StoreError
        raise kind(f"{action} {path} failed: {reason(error)}") from error
