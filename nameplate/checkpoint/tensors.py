"""Writing arrays as a safetensors file, hashed on the way, at the speed of the disk.

The bytes go from the array to the kernel in pieces that stay in the processor's cache between hashing and
writing; an array is copied only where its memory is not in C order, and then piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from nameplate.checkpoint import dtypes, header
from nameplate.checkpoint.durable import Writeback, new_file, write_all
from nameplate.checkpoint.errors import StoreError

PIECE = 1 << 20  # bytes hashed and written at a time
_RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class WrittenFile:
    """What `write_tensors` put on disk; hashes are xxh3-128 in hexadecimal, sizes in bytes."""

    size: int
    xxh3: str
    header_size: int
    header_xxh3: str
    entries: Mapping[str, header.Entry]
    hashes: Mapping[str, str]  # of each tensor's bytes


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> WrittenFile:
    """Create the safetensors file `path`, which must not exist, and fsync it.

    Raises `StoreError` for what the format cannot hold before anything is written, `OSError` when the disk
    refuses.
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
    """Raise `StoreError` with every array of a dtype that safetensors does not have."""
    faults = [
        f"  {name!r:.120} is {array.dtype}" for name, array in tensors.items() if dtypes.code(array.dtype.name) is None
    ]
    if faults:
        listed = "\n".join(sorted(faults)[:20])
        known = ", ".join(dtypes.KNOWN)
        raise StoreError(f"{len(faults)} arrays cannot be stored in {where}:\n{listed}\nWhat can be: {known}.")


def pieces(array: np.ndarray) -> Iterator[memoryview]:
    """Yield the little-endian bytes of `array` in C order, at most `PIECE` at a time, without copying all of
    it.
    """
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
    """Return a view of `array` as unsigned integers, which every NumPy routine knows; big-endian numbers are
    copied.
    """
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.view(_RAW[array.dtype.itemsize])


def _widest_first(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return `tensors` with the widest numbers first, so that each begins at a multiple of its size."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
