"""One safetensors file by itself, ours or anyone's: read by name, its header taken strictly; or written.

There are no hashes to verify against; what a header says is checked before a byte of a tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from nameplate.checkpoint import durable, header, layout, tensor_names
from nameplate.checkpoint.errors import DamagedError, StoreError, explained
from nameplate.checkpoint.files import OpenFiles
from nameplate.checkpoint.tensors import write_tensors


class TensorFile(Mapping[str, np.ndarray]):
    """The arrays of a safetensors file by name, in the order of their bytes; `[]` reads that tensor's bytes
    alone.
    """

    def __init__(self, path: Path, files: OpenFiles, head: header.Header) -> None:
        self.path = path
        self.entries = head.entries
        self.metadata = head.metadata
        self._files = files

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        data = np.empty(entry.nbytes, np.uint8)
        with explained("Reading", self.path):
            count = self._files.read_into(self.path.name, entry.offset, data.data)
        if count != entry.nbytes:
            raise DamagedError(f"{self.path} became shorter while it was read.")
        return data.view(entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def open_tensors(path: Path) -> TensorFile:
    """Open the safetensors file at `path`.

    Names may be wider than ours, never dangerous. Raises `DamagedError` with the first thing in the header
    that the format does not allow, `StoreError` when there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise StoreError(f"{path} is a directory; a safetensors file was expected.")
    with explained("Opening", path):
        real = path.resolve(strict=True)  # downloaded files are often links into a cache
        files = OpenFiles(real.parent)
        try:
            return TensorFile(real, files, _header(files, real.name))
        except DamagedError as error:
            raise DamagedError(f"{path} is not a sound safetensors file: {error}.") from None


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file to `path`, durably and by one rename, in the place of a file that is there.

    Raises `StoreError` when a name or a dtype cannot be stored, or the disk refuses.
    """
    path = Path(path)
    tensor_names.require(tensors, where=path.name)
    with explained("Saving", path):
        durable.make_directories(path.parent)
        temporary = durable.beside(path, layout.SAVING)
        try:
            write_tensors(temporary, tensors, metadata=metadata)
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        durable.sync_directory(path.parent)


def _header(files: OpenFiles, name: str) -> header.Header:
    size = files.open(name)
    length = header.length(files.read(name, 0, min(8, size)), file_size=size)
    text = files.read(name, 8, length - 8)
    return header.decode(text, file_size=size, name_fault=tensor_names.foreign_fault)
