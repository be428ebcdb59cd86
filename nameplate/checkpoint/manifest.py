"""The manifest of a checkpoint: what it holds, and a hash of every byte, its own included.

It is JSON with one line per tensor. The first line holds the hash of everything after it and has only one valid
spelling, so that no bit of the file can change unnoticed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from xxhash import xxh3_128_hexdigest

from nameplate.checkpoint import dtypes, header, layout, plain_data, tensor_names
from nameplate.checkpoint.errors import DamagedError, NewerFormatError, StoreError

VERSION = 1
_FORMAT = "nameplate checkpoint"
_SEAL = re.compile(rb'\{"manifest_xxh3":"([0-9a-f]{32})",\n')
_HASH = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the checkpoint: sizes in bytes and xxh3-128 hashes, of its header too where it holds tensors."""

    size: int
    xxh3: str
    header_size: int = 0
    header_xxh3: str = ""


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor of the checkpoint: its file and place, its form, and the hash of its bytes."""

    file: str
    offset: int  # bytes from the start of the file
    dtype: np.dtype
    shape: tuple[int, ...]
    xxh3: str
    layer_class: str | None  # class of the layer that owns it, where known
    role: str  # "kernel", "momentum", ...

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def entry(self) -> header.TensorEntry:
        """Its place in the file, as the file's header has it."""
        return header.TensorEntry(self.dtype, self.shape, self.offset, self.nbytes)


@dataclass(frozen=True)
class Manifest:
    """Everything about a checkpoint but the bytes of its files."""

    step: int
    epoch: int
    position: int
    metrics: Mapping[str, float]
    about: Mapping[str, Any]
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, Mapping[str, TensorRecord]]  # group -> name -> record


def encode(manifest: Manifest) -> bytes:
    """Return the text of manifest.json. Raises `StoreError` when `about` or `metrics` is too large or not plain."""
    top = {
        "format": _FORMAT,
        "version": VERSION,
        "step": manifest.step,
        "epoch": manifest.epoch,
        "position": manifest.position,
        "metrics": plain_data.plain(dict(manifest.metrics), where="metrics"),
        "about": plain_data.plain(dict(manifest.about), where="about"),
    }
    lines = [f"{plain_data.encode(key)}:{plain_data.encode(value)}" for key, value in top.items()]
    lines.append(_table("files", {name: _file_fields(record) for name, record in manifest.files.items()}))
    groups = [
        _table(group, {name: _tensor_fields(record) for name, record in records.items()})
        for group, records in manifest.tensors.items()
    ]
    lines.append('"tensors":{\n' + ",\n".join(groups) + "\n}")
    body = (",\n".join(lines) + "\n}\n").encode("ascii")
    _require_readable(body)
    return _seal(body) + body


def decode(data: bytes) -> Manifest:
    """Return the manifest whose text is `data`. Raises `DamagedError` for anything that `encode` does not write."""
    if len(data) > plain_data.LARGEST_TEXT:
        raise DamagedError(f"it has {len(data)} bytes; at most {plain_data.LARGEST_TEXT} are read")
    match = _SEAL.match(data)
    if not match:
        raise DamagedError("its first line is not a manifest's")
    body = memoryview(data)[match.end() :]
    if xxh3_128_hexdigest(body) != match[1].decode():
        raise DamagedError("its hash does not match its content")
    fields = plain_data.decode(data)
    _require_version(fields)
    try:
        return _manifest(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"a field is missing or of the wrong type ({error!r:.120})") from None


def _seal(body: bytes) -> bytes:
    return f'{{"manifest_xxh3":"{xxh3_128_hexdigest(body)}",\n'.encode("ascii")


def _require_readable(body: bytes) -> None:
    try:
        plain_data.decode(b"{" + body)
    except DamagedError as error:
        raise StoreError(
            f"The manifest would be unreadable: {error}. Store less in `about`, or fewer tensors."
        ) from None


def _table(name: str, rows: Mapping[str, Any]) -> str:
    lines = ",\n".join(f"{plain_data.encode(key)}:{plain_data.encode(value)}" for key, value in rows.items())
    return f"{plain_data.encode(name)}:{{\n{lines}\n}}"


def _file_fields(record: FileRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {"size": record.size, "xxh3": record.xxh3}
    if record.header_size:
        fields |= {"header_size": record.header_size, "header_xxh3": record.header_xxh3}
    return fields


def _tensor_fields(record: TensorRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {"class": record.layer_class} if record.layer_class else {}
    return fields | {
        "role": record.role,
        "dtype": record.dtype.name,
        "shape": list(record.shape),
        "file": record.file,
        "offset": record.offset,
        "xxh3": record.xxh3,
    }


def _require_version(fields: Any) -> None:
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise DamagedError(f"it is not a {_FORMAT}")
    version = fields.get("version")
    if type(version) is int and version > VERSION:
        raise NewerFormatError(
            f"it has format version {version}; this Nameplate reads up to {VERSION}. "
            "Install the Nameplate that wrote it, or a later one (pip install --upgrade nameplate)"
        )
    if version != VERSION:
        raise DamagedError(f"its format version {version!r:.40} does not exist")


def _manifest(fields: dict[str, Any]) -> Manifest:
    files = {_file_name(name): _file_record(name, row) for name, row in fields["files"].items()}
    tensors = {group: _tensor_records(group, fields["tensors"][group], files) for group in layout.GROUPS}
    if set(fields["tensors"]) != set(layout.GROUPS):
        raise ValueError("unknown groups of tensors")
    _check_coverage(files, tensors)
    return Manifest(
        step=_count(fields["step"]),
        epoch=_count(fields["epoch"]),
        position=_count(fields["position"]),
        metrics={name: float(value) for name, value in fields["metrics"].items()},
        about=_dictionary(fields["about"]),
        files=files,
        tensors=tensors,
    )


def _file_name(name: str) -> str:
    if layout.group_of(name) is None and name not in (layout.MODEL, layout.CONFIG):
        raise DamagedError(f"it lists the file {name!r:.120}, which does not belong in a checkpoint")
    return name


def _file_record(name: str, row: dict[str, Any]) -> FileRecord:
    record = FileRecord(
        _count(row["size"]), _hash(row["xxh3"]), _count(row.get("header_size", 0)), row.get("header_xxh3", "")
    )
    if layout.group_of(name):
        _hash(record.header_xxh3)
    if (layout.group_of(name) is None) != (record.header_size == 0):
        raise DamagedError(f"it lists {name} {'without a' if layout.group_of(name) else 'with a'} header")
    return record


def _tensor_records(group: str, rows: dict[str, Any], files: Mapping[str, FileRecord]) -> dict[str, TensorRecord]:
    return {name: _tensor_record(group, name, row, files) for name, row in rows.items()}


def _tensor_record(group: str, name: str, row: dict[str, Any], files: Mapping[str, FileRecord]) -> TensorRecord:
    if fault := tensor_names.fault(name):
        raise DamagedError(f"the tensor name {name!r:.120} {fault}")
    if row["file"] not in files or layout.group_of(row["file"]) != group:
        raise DamagedError(f"tensor {name!r:.120} is in {row['file']!r:.120}, which is not a file of its group")
    dtype = dtypes.of_name(row["dtype"])
    if dtype is None:
        raise DamagedError(f"tensor {name!r:.120} has the unknown dtype {row['dtype']!r:.40}")
    if not header.is_shape(row["shape"], dtype):
        raise DamagedError(f"tensor {name!r:.120} has an impossible shape")
    layer_class = row.get("class")
    return TensorRecord(
        file=row["file"],
        offset=_count(row["offset"]),
        dtype=dtype,
        shape=tuple(row["shape"]),
        xxh3=_hash(row["xxh3"]),
        layer_class=layer_class if isinstance(layer_class, str) else None,
        role=str(row["role"]),
    )


def _check_coverage(files: Mapping[str, FileRecord], tensors: Mapping[str, Mapping[str, TensorRecord]]) -> None:
    inside: dict[str, dict[str, header.TensorEntry]] = {name: {} for name in files if layout.group_of(name)}
    for records in tensors.values():
        for key, tensor in records.items():
            inside[tensor.file][key] = tensor.entry
    for name, entries in inside.items():
        ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)))
        try:
            header.check_coverage(ordered, start=files[name].header_size, end=files[name].size)
        except DamagedError as error:
            raise DamagedError(f"its records of {name} are impossible: {error}") from None


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def _hash(value: Any) -> str:
    if not isinstance(value, str) or not _HASH.match(value):
        raise ValueError(f"{value!r:.40} is not a hash")
    return value


def _dictionary(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("about is not an object")
    return value
