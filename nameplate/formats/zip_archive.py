"""A zip file from elsewhere: checked before anything is extracted, and never extracted under its own names."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nameplate.checkpoint import tensor_names
from nameplate.errors import FileFormatError
from nameplate.formats.limits import Budget, budget_of

_MOST_MEMBERS = 30_000  # a PyTorch file has one per storage, a `.keras` file a few
_LARGEST_READ = 8 << 20  # bytes; the directory of so many members takes 3 MiB
_ENTRY = 256  # bytes of the directory for a member with a long name
_DIRECTORY_ENTRY = b"PK\1\2"
_PIECE = 1 << 20  # bytes


class _TooManyError(Exception):
    pass


class _Guarded(io.FileIO):
    """A file whose directory of members is counted before `zipfile` builds an object of a thousand bytes for each."""

    most_members = _MOST_MEMBERS

    def read(self, size: int | None = -1, /) -> bytes:
        largest = max(_LARGEST_READ, _ENTRY * self.most_members)
        if size is None or size < 0:  # to the end
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > largest:
            raise _TooManyError(f"its directory claims {size} bytes; at most {largest} are read")
        data = super().read(max(0, size)) or b""
        if data.count(_DIRECTORY_ENTRY) > self.most_members:
            raise _TooManyError(f"it has more than {self.most_members} members")
        return data


@contextmanager
def opened(
    path: Path, kind: str, *, budget: Budget | None = None, most_members: int = _MOST_MEMBERS
) -> Iterator[zipfile.ZipFile]:
    """Open a zip file of this kind (`.keras`) after checking its members, which together stay within the budget.

    Raises:
        FileFormatError: when it is not a zip file, when a member leaves its directory, is a link, a duplicate, or
            overlaps another, or when all together would expand without bound.
    """
    with ExitStack() as stack:
        try:
            budget = budget or budget_of(path)
            file = stack.enter_context(_Guarded(path))
            file.most_members = most_members
            archive = stack.enter_context(zipfile.ZipFile(file))
        except _TooManyError as error:
            raise FileFormatError(f"{path} is refused: {error}") from None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise FileFormatError(f"{path} cannot be read as a {kind} file: {error}") from None
        if faults := _faults(archive, budget):
            raise FileFormatError("\n".join([f"{path} is refused:", *(f"  {fault}" for fault in faults[:10])]))
        yield archive


def member(archive: zipfile.ZipFile, name: str, path: Path, *, largest: int) -> bytes:
    """Return the bytes of one member.

    Raises:
        FileFormatError: when it is missing, larger than `largest` bytes, or damaged.
    """
    info = _info(archive, name, path)
    if info.file_size > largest:
        raise FileFormatError(f"{path}: {name} has {info.file_size} bytes; at most {largest} are read")
    return b"".join(_pieces(archive, info, path))


def copy_member(archive: zipfile.ZipFile, name: str, path: Path, target: Path) -> None:
    """Write one member to the file `target`.

    Raises:
        FileFormatError: as `member`.
    """
    with target.open("wb") as file:
        for piece in _pieces(archive, _info(archive, name, path), path):
            file.write(piece)


def add_file(path: Path, name: str, source: Path) -> None:
    """Add a file to our own archive, uncompressed."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.write(source, name)


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    left = info.file_size
    try:
        with archive.open(info) as source:
            while piece := source.read(min(_PIECE, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise FileFormatError(f"{path}: {info.filename} is larger than it says")
                yield piece
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise FileFormatError(f"{path}: {info.filename} is damaged ({error})") from None
    except Exception as error:  # zlib.error, lzma.LZMAError and others without a common base
        raise FileFormatError(f"{path}: {info.filename} cannot be unpacked ({error})") from None
    if left:
        raise FileFormatError(f"{path}: {info.filename} ends {left} bytes early")


def _info(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError:
        raise FileFormatError(f"{path} has no {name}; it has {_listed(archive)}") from None


def _listed(archive: zipfile.ZipFile) -> str:
    members = archive.namelist()
    return ", ".join(f"{name!r:.80}" for name in members[:5]) + (", ..." if len(members) > 5 else "") or "nothing"


def _faults(archive: zipfile.ZipFile, budget: Budget) -> list[str]:
    members = archive.infolist()
    budget.spend(sum(info.file_size for info in members), items=len(members))
    faults = []
    seen: set[str] = set()
    for info in members:
        name = info.filename
        if name in seen:
            faults.append(f"{name!r:.120} appears twice")
        seen.add(name)
        if fault := tensor_names.foreign_fault(name.removesuffix("/")):
            faults.append(f"{name!r:.120} {fault}")
        if stat.S_ISLNK(info.external_attr >> 16):
            faults.append(f"{name!r:.120} is a link")
    if sum(info.compress_size for info in members) > budget.stored:
        faults.append("its members overlap")
    return faults
