"""What lies in a folder or in a zip file: its files by their paths inside it, and their bytes, read where they lie."""

from __future__ import annotations

import os
import struct
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nameplate.data.errors import DataError, refuse
from nameplate.data.specs import IMAGES
from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive
from nameplate.formats.limits import Budget

_SHOWN = 10  # unreadable images that a message lists
_MOST_MEMBERS = 1_000_000  # of a zip file of images; its list of them takes about a kilobyte each
_SECONDS = 60  # of processor time for that list
_LARGEST = 256 << 20  # bytes of an image
_HEADER = struct.Struct("<4s22xHH")  # of a member: the signature, the lengths of its name and of what follows that
_SIGNATURE = b"PK\3\4"


@dataclass(frozen=True)
class Tree:
    """The files of a folder or of a zip file, hidden ones left out."""

    place: Path  # the folder or the file
    files: tuple[str, ...]  # paths inside it, with '/', sorted
    folders: frozenset[str]  # likewise, also of empty ones
    unreadable: dict[str, str] = field(default_factory=dict)  # images that are not files: what they are
    archive: Archive | None = None

    def within(self, folder: str) -> Tree:
        """Return the tree of one of its folders; the empty one is the tree itself."""
        if not folder:
            return self
        own = f"{folder}/"
        return replace(
            self,
            place=self.place / folder,
            files=tuple(name.removeprefix(own) for name in self.files if name.startswith(own)),
            folders=frozenset(name.removeprefix(own) for name in self.folders if name.startswith(own)),
            unreadable={name.removeprefix(own): what for name, what in self.unreadable.items() if name.startswith(own)},
        )

    def top(self) -> list[str]:
        """Return the folders that lie in no other, sorted."""
        return sorted(name for name in self.folders if "/" not in name)

    def branches(self) -> dict[str, Tree]:
        """Return the tree of each folder of `top`, by name; in one pass, however many there are."""
        files, folders = _by_first(self.files), _by_first(self.folders)
        return {
            name: Tree(self.place / name, tuple(files.get(name, ())), frozenset(folders.get(name, ())))
            for name in self.top()
        }

    def images(self) -> list[str]:
        """Return the files that are images, by their suffix."""
        return [name for name in self.files if is_image(name)]

    def content(self) -> str:
        """Return how many files of each kind there are."""
        kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in self.files)
        return ", ".join(f"{count} files {kind}" for kind, count in sorted(kinds.items())) or "no files"

    def problems(self) -> list[str]:
        """Return a message for each image that is not a file: reading a pipe would block forever."""
        lines = [f"{self.place / name} is {what}" for name, what in sorted(self.unreadable.items())]
        return lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more such images"] if len(lines) > _SHOWN else [])


def _by_first(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the rest of each path by its first folder; without those that lie in none."""
    found: dict[str, list[str]] = {}
    for name in names:
        first, inside, rest = name.partition("/")
        if inside:
            found.setdefault(first, []).append(rest)
    return found


def is_image(name: str) -> bool:
    """Say whether a file is read as an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGES


def tree_of(place: Path) -> Tree:
    """Return the tree of a folder, or of a zip file; of that one, the folder that holds everything else is left out.

    Raises:
        DataError: it cannot be read, or the zip file is refused: its members leave it, or grow without bound.
    """
    if place.is_dir():
        return _tree_of_folder(place)
    archive = Archive(place)
    folders = {"/".join(parts[:depth]) for parts in archive.paths() for depth in range(1, len(parts))}
    names = [name for name in archive.names if not name.endswith("/")]
    folders |= {name.rstrip("/") for name in archive.names if name.endswith("/")}
    tree = Tree(place, tuple(sorted(names)), frozenset(folders), archive=archive)
    while len(tree.top()) == 1 and all("/" in name for name in tree.files) and tree.within(tree.top()[0]).top():
        tree = tree.within(tree.top()[0])
    return tree


def _tree_of_folder(place: Path) -> Tree:
    files, folders, unreadable = [], set(), {}
    start = len(os.fspath(place).rstrip(os.sep)) + 1
    for entry, is_folder in _entries(place):
        name = entry.path[start:].replace(os.sep, "/")
        if is_folder:
            folders.add(name)
            continue
        files.append(name)
        if is_image(name) and not _holds(entry, os.DirEntry.is_file):
            broken = os.path.islink(entry.path) and not os.path.exists(entry.path)
            unreadable[name] = "a broken link" if broken else "a pipe, a socket or a device, not a file"
    return Tree(place, tuple(sorted(files)), frozenset(folders), unreadable)


def _entries(folder: str | os.PathLike[str]) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Yield everything under a folder, and whether it is a folder; links are followed, hidden files are not listed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_folder = _holds(entry, os.DirEntry.is_dir)
                yield entry, is_folder
                if is_folder:
                    yield from _entries(entry.path)
    except OSError as error:
        refuse([f"{os.fspath(folder)} cannot be read: {error.strerror}"])


def _holds(entry: os.DirEntry[str], test: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return test(entry)
    except OSError:  # a circular link
        return False


@dataclass(frozen=True)
class _Member:
    start: int  # byte of its header
    stored: int  # bytes in the file
    size: int  # bytes after unpacking
    deflated: bool
    crc: int


class Archive:
    """A zip file whose members are read in any order, by several threads, and never written to disk.

    Its list of members is checked once: a member that leaves the archive, a link, a duplicate, an overlap, and a total
    that its size on disk does not warrant are refused. Hidden members are left out, and those that macOS adds.
    """

    def __init__(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            budget = Budget(str(path), size, seconds=_SECONDS, most_items=_MOST_MEMBERS)
            with zip_archive.opened(path, ".zip", budget=budget, most_members=_MOST_MEMBERS) as archive:
                infos = [info for info in archive.infolist() if not _is_hidden(info.filename)]
            refuse(line for info in infos if (line := _fault(path, info)))
            self._descriptor = os.open(path, os.O_RDONLY)  # kept: a file that is replaced meanwhile stays readable
        except (FileFormatError, OSError) as error:
            raise DataError(str(error)) from None
        weakref.finalize(self, os.close, self._descriptor)
        self.path, self.names = path, [info.filename for info in infos]
        self._members = {
            info.filename: _Member(
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type == zipfile.ZIP_DEFLATED,
                info.CRC,
            )
            for info in infos
        }

    def paths(self) -> Iterator[list[str]]:
        """Yield the parts of each member's path."""
        yield from (name.split("/") for name in self.names)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member.

        Raises:
            DataError: it is damaged.
        """
        member = self._members[name]
        header = self._bytes(_HEADER.size, member.start)
        if len(header) < _HEADER.size or header[:4] != _SIGNATURE:
            raise DataError("the header of the member is damaged")
        _, named, more = _HEADER.unpack(header)
        content = self._bytes(member.stored, member.start + _HEADER.size + named + more)
        try:
            content = zlib.decompressobj(-15).decompress(content, member.size + 1) if member.deflated else content
        except zlib.error as error:
            raise DataError(f"cannot be unpacked ({error})") from None
        if len(content) != member.size or zlib.crc32(content) != member.crc:
            raise DataError("the checksum of the member does not match")
        return content

    def read_all(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the bytes of members, empty for those that are damaged."""
        return [self._read_or_nothing(name.decode()) for name in names]

    def _read_or_nothing(self, name: str) -> bytes:
        try:
            return self.read(name)
        except DataError:
            return b""

    def _bytes(self, count: int, start: int) -> bytes:
        return os.pread(self._descriptor, count, start)


def _is_hidden(name: str) -> bool:
    parts = name.rstrip("/").split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)


def _fault(path: Path, info: zipfile.ZipInfo) -> str:
    where = f"{path}: {info.filename}"
    if info.flag_bits & 1:
        return f"{where} is encrypted; unpack it and zip it without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"{where} is neither stored nor deflated; zip it as usual, or with no compression (zip -0)"
    if info.file_size > _LARGEST:
        return f"{where} has {info.file_size} bytes; at most {_LARGEST} are read"
    return ""
