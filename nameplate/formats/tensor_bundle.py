"""TensorFlow's tensor bundle: the tensors of a checkpoint by key, read without TensorFlow.

The index is a sorted string table (tensorflow/core/lib/io/table_format.txt) of protocol buffers
(tensorflow/core/protobuf/tensor_bundle.proto), of which the part of the wire format that a reader needs is here
(https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nameplate.checkpoint import dtypes
from nameplate.errors import FileFormatError
from nameplate.formats.limits import Budget, budget_of

Fields = dict[int, list[int | bytes]]  # field number -> its values in order: numbers, or bytes for what has a length

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # key of the TrackableObjectGraph
_STRING = 7
_LARGEST_INDEX = 64 << 20  # bytes; some 80 an entry
_LONGEST_KEY = 4096  # bytes
_GRAPH_FLOOR = 1 << 20  # bytes that any object graph may have
_GRAPH_ENTRY = 4096  # plus so many per entry of the index
_OVERHEAD = 400  # bytes that an entry takes in memory, beside four copies of its key and value
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_TRAILER = 5  # bytes after a block: its compression and its checksum
_DTYPES = {  # tensorflow/core/framework/types.proto
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at` and the position after it. Raises ValueError beyond 64 bits, IndexError at the end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than 64 bits")


def fields(data: bytes) -> Fields:
    """Return the fields of a message. Raises ValueError or IndexError for anything else."""
    message: Fields = defaultdict(list)
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at : at + width], "little"), at + width
        elif kind == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"a field has the unknown wire type {kind}")
        if at > len(data):
            raise ValueError("a field exceeds its message")
        message[number].append(value)
    return message


def number(message: Fields, field: int) -> int:
    """Return the last value of a numeric field, 0 when it is absent. Raises ValueError for another type."""
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value


def messages(message: Fields, field: int) -> list[bytes]:
    """Return the values of a field of bytes, texts or messages. Raises ValueError for numbers."""
    values = message.get(field, [])
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError(f"field {field} is a number")
    return [value for value in values if isinstance(value, bytes)]


def text(message: Fields, field: int) -> str:
    """Return the last value of a text field, empty when it is absent."""
    return [b"", *messages(message, field)][-1].decode("utf-8", "replace")


@dataclass(frozen=True)
class BundleEntry:
    """The place and form of one tensor."""

    dtype: str  # NumPy's name; empty for a text or an unknown dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    nbytes: int


class Bundle:
    """The tensors of a TensorFlow checkpoint by key."""

    def __init__(self, prefix: Path) -> None:
        """Read the index.

        Raises:
            FileFormatError: when it is invalid.
        """
        self._prefix = prefix
        index = prefix.with_name(f"{prefix.name}.index")
        try:
            self.budget = budget_of(index)
            if self.budget.stored > _LARGEST_INDEX:
                raise FileFormatError(f"{index} has more than {_LARGEST_INDEX} bytes")
            table = dict(_table(index.read_bytes(), self.budget))
            head = fields(table.pop(b"", b""))
            self._shards = number(head, 1)
            self._texts: dict[str, BundleEntry] = {}
            self.entries: dict[str, BundleEntry] = {}
            for key, value in table.items():
                self._add(key.decode("utf-8", "replace"), fields(value))
        except OSError as error:
            raise FileFormatError(f"{index} cannot be read: {error.strerror}") from None
        except (ValueError, IndexError) as error:
            raise FileFormatError(f"{index} is not the index of a TensorFlow checkpoint: {error}") from None
        if number(head, 2):
            raise FileFormatError(f"{index}: only little-endian files are read")
        sizes = self._check()
        self.budget = Budget(str(index), self.budget.stored + sum(sizes.values()))

    def read(self, key: str) -> np.ndarray:
        """Return one tensor."""
        entry = self.entries[key]
        dtype = dtypes.of_name(entry.dtype)
        assert dtype is not None
        return np.frombuffer(self._bytes(entry), dtype).reshape(entry.shape).copy()

    def object_graph(self) -> bytes:
        """Return the serialized TrackableObjectGraph, empty when there is none."""
        entry = self._texts.get(GRAPH)
        if entry is None:
            return b""
        if entry.nbytes > _GRAPH_FLOOR + _GRAPH_ENTRY * (len(self.entries) + len(self._texts)):
            raise FileFormatError(
                f"{self._prefix} is refused: its object graph has {entry.nbytes} bytes for "
                f"{len(self.entries)} variables"
            )
        data = self._bytes(entry)
        length, at = varint(data, 0)
        return data[at + 4 : at + 4 + length]  # four bytes of checksum in between

    def _add(self, key: str, message: Fields) -> None:
        kind = number(message, 1)
        shape = [number(fields(dim), 1) for text in messages(message, 2) for dim in messages(fields(text), 2)]
        places = [number(message, field) for field in (3, 4, 5)]
        entry = BundleEntry(_DTYPES.get(kind, ""), tuple(shape), *places)
        if kind == _STRING:
            self._texts[key] = entry
        elif entry.dtype and 7 not in message:  # field 7: the slices of a partitioned tensor
            self.entries[key] = entry

    def _check(self) -> dict[int, int]:
        """Check that every entry lies in its file, and return the sizes of the files."""
        sizes: dict[int, int] = {}
        for key, entry in {**self.entries, **self._texts}.items():
            if entry.shard not in sizes:
                sizes[entry.shard] = self._size(entry.shard)
            size = sizes[entry.shard]
            dtype = dtypes.of_name(entry.dtype)
            wrong = dtype is not None and math.prod(entry.shape) * dtype.itemsize != entry.nbytes
            if wrong or entry.offset + entry.nbytes > size:
                raise FileFormatError(
                    f"{self._prefix}: the {entry.nbytes} bytes of {key!r:.120}, shape {entry.shape!s:.80}, do not fit "
                    f"into the {size} bytes of its file"
                )
        return sizes

    def _data(self, shard: int) -> Path:
        return self._prefix.with_name(f"{self._prefix.name}.data-{shard:05}-of-{self._shards:05}")

    def _size(self, shard: int) -> int:
        path = self._data(shard)
        if path.is_symlink() or not path.is_file():
            raise FileFormatError(f"{path} is missing or is a link")
        return path.stat().st_size

    def _bytes(self, entry: BundleEntry) -> bytes:
        with self._data(entry.shard).open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.nbytes)
        if len(data) != entry.nbytes:
            raise FileFormatError(f"{self._data(entry.shard)} was truncated while it was being read")
        return data


def _table(data: bytes, budget: Budget) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a sorted string table."""
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("its footer is not a table's")
    _, at = varint(footer, 0)
    _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, _ = varint(footer, at)
    total = 0
    for _, handle in _block(data, offset, size, budget):
        start, at = varint(handle, 0)
        length, _ = varint(handle, at)
        total += length
        if total > len(data):
            raise ValueError("its blocks overlap")
        yield from _block(data, start, length, budget)


def _block(data: bytes, offset: int, size: int, budget: Budget) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + _TRAILER > len(data):
        raise ValueError("a block exceeds the file")
    if data[offset + size]:
        raise ValueError("a block is compressed, which TensorFlow never does")
    block = data[offset : offset + size]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        if shared + fresh > _LONGEST_KEY:
            raise ValueError(f"it has a key of more than {_LONGEST_KEY} bytes")
        key = key[:shared] + block[at : at + fresh]
        budget.spend(4 * (len(key) + length) + _OVERHEAD)
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length
