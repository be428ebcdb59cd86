"""One safetensors file: written with a hash of every tensor, or read by name, ours or anyone's.

On writing, bytes go from the array to the kernel in pieces that stay in the processor's cache between hashing and
writing; only an array that is not in C order is copied, piece by piece. On reading there are no hashes to verify, so
the header is decoded strictly before a byte of a tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from nameplate.checkpoint import dtypes, durable, header, layout, tensor_names
from nameplate.checkpoint.durable import Writeback, new_file, write_all
from nameplate.checkpoint.errors import DamagedError, StoreError, explained
from nameplate.checkpoint.files import OpenFiles

PIECE = 1 << 20  # bytes hashed and written at a time
_RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class WrittenFile:
    """What `write_tensors` wrote: sizes in bytes, hashes xxh3-128 in hexadecimal."""

    size: int
    xxh3: str
    header_size: int
    header_xxh3: str
    entries: Mapping[str, header.TensorEntry]
    hashes: Mapping[str, str]  # of each tensor's bytes


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> WrittenFile:
    """Create the safetensors file `path`, which must not exist, and fsync it.

    Raises `StoreError`, before anything is written, for what the format cannot hold, and `OSError` for disk errors.
    """
    require_storable(tensors, where=path.name)
    ordered = _widest_first(tensors)
    head, entries = header.encode(((name, a.dtype, a.shape) for name, a in ordered.items()), metadata=metadata)
    whole = xxh3_128(head)
    hashes: dict[str, str] = {}
    with new_file(path) as descriptor:
        write_all(descriptor, head)
        writeback = Writeback(descriptor)
        for name, array in ordered.items():
            digest = xxh3_128()
            for piece in pieces(array):
                digest.update(piece)
                whole.update(piece)
                write_all(descriptor, piece)
                writeback.add(len(piece))
            hashes[name] = digest.hexdigest()
    size = len(head) + sum(entry.nbytes for entry in entries.values())
    return WrittenFile(size, whole.hexdigest(), len(head), xxh3_128(head).hexdigest(), entries, hashes)


def require_storable(tensors: Mapping[str, np.ndarray], *, where: str) -> None:
    """Raise `StoreError` with every array whose dtype safetensors lacks."""
    faults = [
        f"  {name!r:.120} is {array.dtype}" for name, array in tensors.items() if dtypes.code(array.dtype.name) is None
    ]
    if faults:
        listed = "\n".join(sorted(faults)[:20])
        known = ", ".join(dtypes.KNOWN)
        raise StoreError(f"{len(faults)} arrays cannot be stored in {where}:\n{listed}\nSupported dtypes: {known}.")


def pieces(array: np.ndarray) -> Iterator[memoryview]:
    """Yield the little-endian bytes of `array` in C order, at most `PIECE` at a time, never copying the whole."""
    raw = _as_integers(array)
    if raw.flags.c_contiguous:
        flat = raw.reshape(-1).view(np.uint8).data
        yield from (flat[start : start + PIECE] for start in range(0, len(flat), PIECE))
        return
    buffered = np.nditer(
        raw,
        flags=["external_loop", "buffered", "zerosize_ok"],
        order="C",
        buffersize=PIECE // raw.dtype.itemsize,
    )
    yield from (np.ascontiguousarray(part).view(np.uint8).data for part in buffered)


def _as_integers(array: np.ndarray) -> np.ndarray:
    """Return a view of `array` as unsigned integers, which every NumPy routine accepts; a big-endian one is copied."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.view(_RAW[array.dtype.itemsize])


def _widest_first(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return `tensors` with the widest dtypes first, so that every tensor is aligned to its item size."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))


# ---- a file by itself, not in a checkpoint ------------------------------------------------------------------------


class TensorFile(Mapping[str, np.ndarray]):
    """The arrays of a safetensors file by name, in file order; `[]` reads only the bytes of that tensor."""

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
            raise DamagedError(f"{self.path} was truncated while it was being read.")
        return data.view(entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def open_tensors(path: Path) -> TensorFile:
    """Open the safetensors file at `path`.

    Names may go beyond our grammar, but harmful ones are refused. Raises `DamagedError` with the first thing in the
    header that the format does not allow, `StoreError` when there is no such file.
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
            raise DamagedError(f"{path} is not a valid safetensors file: {error}.") from None


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file to `path`, durably and by one rename, replacing an existing file.

    Raises `StoreError` when a name or a dtype cannot be stored, and for disk errors.
    """
    path = Path(path)
    tensor_names.require(tensors, where=path.name)
    with explained("Saving", path):
        durable.make_directories(path.parent)
        with durable.replacement(path, temporary=durable.beside(path, layout.SAVING), synced=True) as draft:
            write_tensors(draft, tensors, metadata=metadata)


def _header(files: OpenFiles, name: str) -> header.Header:
    size = files.open(name)
    length = header.length(files.read(name, 0, min(8, size)), file_size=size)
    text = files.read(name, 8, length - 8)
    return header.decode(text, file_size=size, name_fault=tensor_names.foreign_fault)
