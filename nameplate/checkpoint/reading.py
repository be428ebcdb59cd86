"""Opening a checkpoint: the manifest at once, each tensor on demand, and nothing returned unverified."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from xxhash import xxh3_128, xxh3_128_hexdigest

from nameplate.checkpoint import layout, manifest
from nameplate.checkpoint.errors import DamagedError, NewerFormatError, StoreError, explained
from nameplate.checkpoint.files import PIECE, OpenFiles, patiently
from nameplate.checkpoint.manifest import FileRecord, Manifest, TensorRecord
from nameplate.checkpoint.plain_data import LARGEST_TEXT
from nameplate.naming.names import did_you_mean

T = TypeVar("T")

_READERS = min(4, os.cpu_count() or 1)  # threads; copying and hashing release the interpreter lock
_WORTH_THREADS = 8 << 20  # bytes
_LARGEST_DESCRIPTION = 64 << 20  # bytes of model.json or config.yaml; a layer takes some 1500


class Checkpoint:
    """One checkpoint on disk: its manifest, and its arrays by name, read and verified one at a time.

    Its files stay open, so it can be read to the end even if retention deletes it meanwhile. Use it in a `with` block,
    or leave closing to garbage collection.
    """

    def __init__(self, path: Path, files: OpenFiles, content: Manifest) -> None:
        self.path = path
        self.manifest = content
        self.weights = Tensors(path, files, content.files, content.tensors["weights"])
        self.optimizer = Tensors(path, files, content.files, content.tensors["optimizer"])
        self.state = Tensors(path, files, content.files, content.tensors["state"])
        self._files = files

    @property
    def step(self) -> int:
        """Steps done, over the whole run."""
        return self.manifest.step

    @property
    def model(self) -> str:
        """The text of model.json, verified."""
        return self._text(layout.MODEL)

    @property
    def config(self) -> str:
        """The text of config.yaml, verified."""
        return self._text(layout.CONFIG)

    def groups(self) -> dict[str, Tensors]:
        """Return the arrays by group: weights, optimizer, state."""
        return {"weights": self.weights, "optimizer": self.optimizer, "state": self.state}

    def tensor(self, name: str) -> np.ndarray:
        """Return the tensor `name` of any group, reading only its bytes. Raises `StoreError` with the nearest names."""
        for group in self.groups().values():
            if name in group:
                return group[name]
        known = [key for group in self.groups().values() for key in group]
        raise StoreError(f"{self.path} has no tensor {name!r}.{did_you_mean(name, known)} It has {len(known)} tensors.")

    def close(self) -> None:
        """Close the files; arrays already read stay valid."""
        self._files.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _text(self, name: str) -> str:
        record = self.manifest.files.get(name)
        if record is None:
            raise StoreError(f"{self.path} has no {name}.")
        if record.size > _LARGEST_DESCRIPTION:
            raise StoreError(f"{self.path}: {name} has {record.size} bytes; at most {_LARGEST_DESCRIPTION} are read.")
        with explained("Reading", self.path / name):
            data = self._files.read(name, 0, record.size)
        if xxh3_128_hexdigest(data) != record.xxh3:
            raise DamagedError(f"{self.path} is damaged: {name} does not match its hash.")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DamagedError(f"{self.path} is damaged: {name} is not text ({error.reason}).") from None


class Tensors(Mapping[str, np.ndarray]):
    """The arrays of one group by name, in file order; `[]` reads and verifies one of them.

    Each array is new and writable. Raises `DamagedError` naming the file and the tensor.
    """

    def __init__(
        self,
        path: Path,
        files: OpenFiles,
        file_records: Mapping[str, FileRecord],
        records: Mapping[str, TensorRecord],
    ) -> None:
        self.records = records
        self._path = path
        self._files = files
        self._file_records = file_records
        self._verified_headers: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        record = self.records[name]
        with explained("Reading", self._path / record.file):
            self._verify_header(record.file)
            data, digest = read_hashed(self._files, record)
        if digest != record.xxh3:
            raise DamagedError(f"{self._path} is damaged: tensor {name!r} in {record.file} does not match its hash.")
        return data.view(record.dtype).reshape(record.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def load(self) -> dict[str, np.ndarray]: ...

    @overload
    def load(self, take: Callable[[np.ndarray], T]) -> dict[str, T]: ...

    def load(self, take: Callable[[np.ndarray], Any] | None = None) -> dict[str, Any]:
        """Read all of them, several at a time: faster than `dict(tensors)`, which reads one after the other.

        `take` is called with each array, in some thread, and its result is returned in the array's place, so that an
        array that is copied elsewhere is freed at once.
        """
        if sum(record.nbytes for record in self.records.values()) < _WORTH_THREADS:
            return {name: take(self[name]) if take else self[name] for name in self.records}
        with ThreadPoolExecutor(_READERS, "reading") as pool:
            taken = pool.map(lambda name: take(self[name]) if take else self[name], self.records)
            return dict(zip(self.records, taken, strict=True))

    def _verify_header(self, name: str) -> None:
        if name in self._verified_headers:
            return
        record = self._file_records[name]
        if xxh3_128_hexdigest(self._files.read(name, 0, record.header_size)) != record.header_xxh3:
            raise DamagedError(f"{self._path} is damaged: the header of {name} does not match its hash.")
        self._verified_headers.add(name)


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint at `path`: its manifest is verified, and all its files exist with the right sizes.

    Raises `DamagedError` with everything that is missing or truncated, `NewerFormatError` for a later format, and
    `StoreError` when there is no checkpoint at `path`.
    """
    path = Path(path)
    with explained("Opening", path):
        return patiently(lambda: _open(path))


def read_hashed(files: OpenFiles, record: TensorRecord) -> tuple[np.ndarray, str]:
    """Return the bytes of a tensor, shape (nbytes,), and their hash, computed while they are in the CPU cache."""
    data = np.empty(record.nbytes, np.uint8)
    view = data.data
    digest = xxh3_128()
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        count = files.read_into(record.file, record.offset + start, piece)
        digest.update(piece[:count])
    return data, digest.hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Return the verified manifest of the checkpoint at `path`; its other files are not opened."""
    with explained("Opening", path):
        files, content = patiently(lambda: open_manifest(path))
    files.close()
    return content


def open_manifest(path: Path) -> tuple[OpenFiles, Manifest]:
    """Open directory `path` and its manifest, no other file. Raises like `open_checkpoint`, and `OSError`."""
    files = _directory(path)
    try:
        return files, _manifest(path, files)
    except BaseException:
        files.close()
        raise


def _open(path: Path) -> Checkpoint:
    files, content = open_manifest(path)
    try:
        faults = _faults(files, content)
    except BaseException:
        files.close()
        raise
    if faults:
        files.close()
        raise DamagedError(f"{path} is damaged: {'; '.join(faults)}.")
    return Checkpoint(path, files, content)


def _directory(path: Path) -> OpenFiles:
    try:
        return OpenFiles(path)
    except FileNotFoundError:
        raise StoreError(f"There is no checkpoint at {path}.{_nearby(path)}") from None
    except NotADirectoryError:
        raise StoreError(f"{path} is a file; a checkpoint is a directory.") from None


def _nearby(path: Path) -> str:
    steps = [name for name in layout.listing(path.parent) if layout.step_of(name) is not None]
    return f" {path.parent} has {', '.join(steps[-5:])}." if steps else ""


def _manifest(path: Path, files: OpenFiles) -> Manifest:
    try:
        size = files.open(layout.MANIFEST)
    except FileNotFoundError:
        if layout.step_of(path.name) is None and not any(map(layout.group_of, files.names())):
            raise StoreError(f"{path} is not a checkpoint: it has no {layout.MANIFEST}.") from None
        raise DamagedError(f"{path} is damaged: {layout.MANIFEST} is missing.") from None
    try:
        content = manifest.decode(files.read(layout.MANIFEST, 0, min(size, LARGEST_TEXT + 1)))
    except DamagedError as error:
        raise DamagedError(f"{path} is damaged: {layout.MANIFEST}: {error}.") from None
    except NewerFormatError as error:
        raise NewerFormatError(f"{path} cannot be read: {error}.") from None
    named = layout.step_of(path.name)
    if named is not None and named != content.step:
        raise DamagedError(f"{path} is damaged: its manifest is for step {content.step}.")
    return content


def _faults(files: OpenFiles, content: Manifest) -> list[str]:
    """Open every file that `content` lists, and return what is missing or has another size."""
    faults = []
    for name, record in content.files.items():
        try:
            size = files.open(name)
        except FileNotFoundError:
            faults.append(f"{name} is missing")
        except DamagedError as error:
            faults.append(str(error))
        else:
            if size != record.size:
                faults.append(f"{name} has {size} bytes instead of {record.size}")
    return faults
