"""A disk that loses power: the system calls of a real save, replayed on a model in which only fsync makes
anything last.

What a file holds lasts after its fsync; what is in a directory lasts after the directory's. Everything else
may be there after the crash, or not, or in part, in any combination: worse than any real file system.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)", re.MULTILINE)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RANDOM_CRASHES = 6  # a point, beside the systematic ones


@dataclass(frozen=True)
class Call:
    """One successful system call: its name, its strings (paths or data), the rest of its arguments, its
    result.
    """

    name: str
    strings: tuple[bytes, ...]
    rest: str
    result: int


@dataclass(eq=False)
class File:
    """A file: its content now, and what is certain to survive a power cut."""

    data: bytes = b""
    durable: bytes = b""


@dataclass(eq=False)
class Directory:
    """A directory: its names now, those that last, and the changes between the two in their order."""

    names: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[dict[str, File | Directory | None]] = field(default_factory=list)


class Disk:
    """A tree of files below `root` that follows the calls of a process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = _loaded(root)
        self._descriptors: dict[int, tuple[Path, File | Directory]] = {}

    def apply(self, call: Call) -> None:
        """Apply the effect of `call`."""
        getattr(self, f"_{call.name}")(call)

    def crash(self, draw: random.Random, *, names: str, data: str) -> Directory:
        """Return what could exist after the power is back.

        `names` and `data` say what became of what was not fsynced: all of it is there, none, or it is drawn.
        """
        return _survivor(self.top, draw, names=names, data=data)

    def _mkdir(self, call: Call) -> None:
        self._change(_path(call.strings[0]), Directory())

    def _openat(self, call: Call) -> None:
        path = self._where(call)
        if "O_CREAT" in call.rest and self._find(path) is None:
            self._change(path, File())
        node = self._find(path)
        assert node is not None
        self._descriptors[call.result] = (path, node)

    def _write(self, call: Call) -> None:
        if int(call.rest.split(",")[0]) in self._descriptors:  # not the writer's own output
            self._file(call).data += call.strings[0]

    def _pwrite64(self, call: Call) -> None:
        self._file(call).data = call.strings[0]  # the lock's, always from the start

    def _ftruncate(self, call: Call) -> None:
        self._file(call).data = b""

    def _fsync(self, call: Call) -> None:
        _, node = self._descriptors[int(call.rest)]
        if isinstance(node, File):
            node.durable = node.data
        else:
            node.durable = dict(node.names)
            node.pending.clear()

    def _rename(self, call: Call) -> None:
        old, new = map(_path, call.strings)
        node = self._find(old)
        assert node is not None
        assert old.parent == new.parent
        self._change(old, None, {new.name: node})

    def _unlinkat(self, call: Call) -> None:
        self._change(self._where(call), None)

    def _unlink(self, call: Call) -> None:
        self._change(_path(call.strings[0]), None)

    _rmdir = _unlink

    def _close(self, call: Call) -> None:
        self._descriptors.pop(int(call.rest), None)  # duplicates are not watched

    def _flock(self, call: Call) -> None:
        pass

    _getdents64 = _newfstatat = _flock

    def _change(
        self, path: Path, node: File | Directory | None, more: dict[str, File | Directory] | None = None
    ) -> None:
        parent = self._find(path.parent)
        assert isinstance(parent, Directory)
        change: dict[str, File | Directory | None] = {path.name: node, **(more or {})}
        parent.pending.append(change)
        _update(parent.names, change)

    def _find(self, path: Path) -> File | Directory | None:
        node: File | Directory | None = self.top
        for part in path.relative_to(self.root).parts:
            node = node.names.get(part) if isinstance(node, Directory) else None
        return node

    def _file(self, call: Call) -> File:
        _, node = self._descriptors[int(call.rest.split(",")[0])]
        assert isinstance(node, File)
        return node

    def _where(self, call: Call) -> Path:
        """Return the path that a call names relative to a directory's descriptor."""
        path = _path(call.strings[0])
        directory = call.rest.split(",")[0]
        return path if directory == "AT_FDCWD" else self._descriptors[int(directory)][0] / path


def calls(log: str) -> Iterator[Call]:
    """Yield the successful calls in the log of `strace -xx -s 1000000`."""
    for name, arguments, result in _CALL.findall(log):
        if int(result) >= 0:
            strings = tuple(bytes.fromhex(each.replace("\\x", "")) for each in _STRING.findall(arguments))
            yield Call(name, strings, _STRING.sub("", arguments).strip(), int(result))


def crashes(disk: Disk, draw: random.Random) -> Iterator[Directory]:
    """Yield trees that could exist after a crash at this moment: the extremes, and a random sample."""
    for names in ("none", "all"):
        for data in ("none", "all", "zeros", "half"):
            yield disk.crash(draw, names=names, data=data)
    for _ in range(_RANDOM_CRASHES):
        yield disk.crash(draw, names="drawn", data="drawn")


def lay_down(tree: Directory, path: Path) -> None:
    """Write a tree below `path`, which must not exist."""
    path.mkdir()
    for name, node in tree.names.items():
        if isinstance(node, Directory):
            lay_down(node, path / name)
        else:
            (path / name).write_bytes(node.data)


def _survivor(directory: Directory, draw: random.Random, *, names: str, data: str) -> Directory:
    left = dict(directory.durable)
    for change in directory.pending:
        if names == "all" or (names == "drawn" and draw.random() < 0.5):
            _update(left, change)
    found = Directory()
    for name, node in left.items():
        if isinstance(node, Directory):
            found.names[name] = _survivor(node, draw, names=names, data=data)
        else:
            found.names[name] = File(_content(node, draw, data))
    return found


def _content(file: File, draw: random.Random, data: str) -> bytes:
    if data == "drawn":
        data = draw.choice(["none", "all", "zeros", "half"])
    if data == "none" or file.data == file.durable:
        return file.durable
    if data == "all":
        return file.data
    return bytes(len(file.data)) if data == "zeros" else file.data[: len(file.data) // 2]


def _update(names: dict[str, File | Directory], change: dict[str, File | Directory | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _loaded(path: Path) -> Directory:
    found = Directory()
    for entry in path.iterdir():
        node = _loaded(entry) if entry.is_dir() else File(entry.read_bytes(), entry.read_bytes())
        found.names[entry.name] = found.durable[entry.name] = node
    return found


def _path(text: bytes) -> Path:
    return Path(text.decode())
