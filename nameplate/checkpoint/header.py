"""The header of a safetensors file: encoded, and decoded strictly.

A file is 8 bytes of little-endian header length, a JSON object, and the tensors back to back. `decode` accepts what the
format allows and nothing else: no duplicate key, no overlap, no gap, no impossible number, all within size limits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nameplate.checkpoint import dtypes, tensor_names
from nameplate.checkpoint.errors import DamagedError

LARGEST_HEADER = 16 << 20  # bytes; in practice about 300 a tensor
LARGEST_METADATA = 4 << 20  # bytes; in practice a few lines
MOST_TENSORS = 1 << 16  # in one file; more are split into shards

_METADATA = "__metadata__"
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrtu])*+"')
_ENTRY = re.compile(rb"\{[^{}]{0,1024}\}")
_SPACE = re.compile(rb"[ \t\r\n]*+")
_ALIGNMENT = 8
_LONGEST_KEY = 12 * tensor_names.LONGEST_KEY + 2  # bytes; JSON may write a character as two \\uXXXX
_LARGEST = 1 << 62  # bytes; larger sizes overflow in some readers


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies in its file: `offset` and `nbytes` in bytes, from the start of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the tensor."""
        return self.offset + self.nbytes


@dataclass(frozen=True)
class Header:
    """A decoded header: entries in file order, the writer's metadata, and the header's own size in bytes."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]
    size: int


def encode(
    tensors: Iterable[tuple[str, np.dtype, tuple[int, ...]]], *, metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, TensorEntry]]:
    """Return the header of a file that holds `tensors` in this order, and the place of each tensor."""
    fields: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    spans: dict[str, tuple[np.dtype, tuple[int, ...], int, int]] = {}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + math.prod(shape) * dtype.itemsize
        fields[name] = {"dtype": dtypes.code(dtype.name), "shape": list(shape), "data_offsets": [start, end]}
        spans[name] = (dtype, shape, start, end)
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    base = 8 + len(text)
    entries = {
        name: TensorEntry(dtype, shape, base + start, stop - start)
        for name, (dtype, shape, start, stop) in spans.items()
    }
    return len(text).to_bytes(8, "little") + text, entries


def length(first: bytes, *, file_size: int) -> int:
    """Return the size of a header in bytes, including its first 8 bytes `first`, which hold its length."""
    if len(first) < 8:
        raise DamagedError(f"it ends after {len(first)} bytes; a safetensors file has at least 8")
    size = int.from_bytes(first, "little")
    if size > LARGEST_HEADER:
        raise DamagedError(f"its header claims {size} bytes; at most {LARGEST_HEADER} are read")
    if 8 + size > file_size:
        raise DamagedError(f"its header claims {size} bytes, but the file has {file_size}")
    return 8 + size


def decode(text: bytes, *, file_size: int, name_fault: Callable[[str], str | None] = tensor_names.fault) -> Header:
    """Decode the header `text` (without the 8 bytes of length) of a file of `file_size` bytes.

    Raises `DamagedError` for the first thing that is not allowed; the caller adds the file's name.
    """
    base = 8 + len(text)
    if text.count(b'"data_offsets"') > MOST_TENSORS:
        raise DamagedError(f"its header has more than {MOST_TENSORS} tensors")
    entries, metadata = _Scanner(text, base, name_fault).scan()
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)))
    check_coverage(ordered, start=base, end=file_size)
    return Header(ordered, metadata, base)


def check_coverage(entries: Mapping[str, TensorEntry], *, start: int, end: int) -> None:
    """Raise `DamagedError` unless `entries`, in file order, fill [start, end) without overlap or gap."""
    position = start
    for name, entry in entries.items():
        if entry.offset != position:
            what = "overlaps the tensor before it" if entry.offset < position else "leaves a gap before it"
            raise DamagedError(f"tensor {name!r:.120} {what}: it begins at byte {entry.offset}, not {position}")
        position = entry.end
    if position != end:
        raise DamagedError(f"its tensors end at byte {position}, but the file has {end} bytes")


class _Scanner:
    """Parses the JSON object of a header entry by entry, so that memory is bounded by what is accepted."""

    def __init__(self, text: bytes, base: int, name_fault: Callable[[str], str | None]) -> None:
        self._text = text
        self._base = base
        self._name_fault = name_fault
        self._at = 0

    def scan(self) -> tuple[dict[str, TensorEntry], dict[str, str]]:
        entries: dict[str, TensorEntry] = {}
        metadata: dict[str, str] | None = None
        for key in self._members():
            if key == _METADATA:
                if metadata is not None:
                    raise DamagedError(f"its header has {_METADATA!r} twice")
                metadata = self._strings()
            elif key in entries:
                raise DamagedError(f"its header has the tensor {key!r:.120} twice")
            elif len(entries) == MOST_TENSORS:
                raise DamagedError(f"its header has more than {MOST_TENSORS} tensors")
            else:
                entries[key] = self._entry(key)
        self._space()
        if self._at != len(self._text):
            raise DamagedError(f"its header goes on after its end, at byte {self._at}")
        return entries, metadata or {}

    def _members(self) -> Iterable[str]:
        """Yield the keys of the object that starts here; the caller consumes each value."""
        self._expect(b"{")
        if self._accept(b"}"):
            return
        while True:
            key = self._string(longest=_LONGEST_KEY)
            self._expect(b":")
            yield key
            if self._accept(b"}"):
                return
            self._expect(b",")

    def _strings(self) -> dict[str, str]:
        strings: dict[str, str] = {}
        start = self._at
        for key in self._members():
            if key in strings:
                raise DamagedError(f"its metadata has {key!r:.120} twice")
            strings[key] = self._string(longest=LARGEST_METADATA - (self._at - start))
        return strings

    def _entry(self, name: str) -> TensorEntry:
        if fault := self._name_fault(name):
            raise DamagedError(f"the tensor name {name!r:.120} {fault}")
        self._space()
        match = _ENTRY.match(self._text, self._at)
        if not match:
            raise DamagedError(f"tensor {name!r:.120} is not described by a small JSON object")
        self._at = match.end()
        return _entry(name, match.group(), self._base)

    def _string(self, *, longest: int) -> str:
        self._space()
        match = _STRING.match(self._text, self._at)
        if not match:
            raise DamagedError(f"its header is not JSON: a string was expected at byte {self._at}")
        if match.end() - self._at > longest:
            raise DamagedError(f"its header has a string of more than {max(0, longest)} bytes at byte {self._at}")
        self._at = match.end()
        try:
            return str(json.loads(match.group().decode()))
        except ValueError:
            raise DamagedError("its header has a string that is not UTF-8 or JSON") from None

    def _expect(self, token: bytes) -> None:
        if not self._accept(token):
            raise DamagedError(f"its header is not JSON: {token.decode()!r} was expected at byte {self._at}")

    def _accept(self, token: bytes) -> bool:
        self._space()
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None  # it matches the empty string
        self._at = match.end()


def _entry(name: str, text: bytes, base: int) -> TensorEntry:
    try:
        pairs = json.loads(text.decode(), object_pairs_hook=list)
        fields = dict(pairs)
    except (ValueError, TypeError, RecursionError):
        raise DamagedError(f"tensor {name!r:.120} is not described by JSON") from None
    if sorted(key for key, _ in pairs) != ["data_offsets", "dtype", "shape"]:
        raise DamagedError(f"tensor {name!r:.120} must have exactly one dtype, shape and data_offsets")
    dtype = dtypes.of_code(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        raise DamagedError(f"tensor {name!r:.120} has the unknown dtype {str(fields['dtype'])!r:.40}")
    shape, offsets = fields["shape"], fields["data_offsets"]
    if not (is_shape(shape, dtype) and _are_counts(offsets) and len(offsets) == 2):
        raise DamagedError(f"tensor {name!r:.120} has an impossible shape or offsets")
    nbytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise DamagedError(
            f"tensor {name!r:.120} of shape {shape!s:.80} needs {nbytes} bytes, "
            f"but its offsets span {offsets[1] - offsets[0]}"
        )
    return TensorEntry(dtype, tuple(shape), base + offsets[0], nbytes)


def is_shape(value: Any, dtype: np.dtype) -> bool:
    """Return whether `value` is the shape of a possible array: counts whose product is below 2**62 bytes."""
    return _are_counts(value) and math.prod(max(1, size) for size in value) * dtype.itemsize < _LARGEST


def _are_counts(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 32
        and all(type(value) is int and 0 <= value < _LARGEST for value in values)
    )
