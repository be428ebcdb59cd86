"""TFRecord files with random access: `scan` finds each record, `Records` reads and decodes them.

The format (https://www.tensorflow.org/tutorials/load_data/tfrecord), little-endian: for each record its length
(8 bytes), the masked CRC-32C of the length (4), the data, the masked CRC-32C of the data (4).
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nameplate.data.config import RecordsConfig
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.errors import CLOSE, OPEN, refuse
from nameplate.data.images import decode_all
from nameplate.data.source import Example, bundle
from nameplate.data.specs import Encoding, Feature, find_files
from nameplate.data.splits import split

HEADER = struct.Struct("<QI")
FOOTER = 4  # bytes of the CRC after the data
COMPRESSED = {b"\x1f\x8b": "GZIP", b"\x78\x01": "ZLIB", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB"}


class RecordError(ValueError):
    """A file that is not a valid TFRecord file; the message names the byte."""


def scan(path: Path) -> np.ndarray:
    """Return the offset and the length of each record's data, int64 (records, 2).

    The checksum of every length is verified; that of the data is not, since it would mean reading the whole file.

    Raises:
        RecordError: the file is empty, compressed, cut short, or not a TFRecord file.
    """
    size = path.stat().st_size
    if not size:
        raise RecordError("empty: no record at byte 0")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return np.array(_spans(content, size), np.int64)


def _spans(content: mmap.mmap, size: int) -> list[tuple[int, int]]:
    spans, place = [], 0
    while place < size:
        if size - place < HEADER.size:
            raise RecordError(f"cut short: byte {place} begins a record, and the file ends at byte {size}")
        length, check = HEADER.unpack_from(content, place)
        if check != masked_crc(content[place : place + 8]):
            raise RecordError(_damage(content, place))
        end = place + HEADER.size + length + FOOTER
        if end > size:
            raise RecordError(f"cut short: the record at byte {place} ends at byte {end}, and the file at byte {size}")
        spans.append((place + HEADER.size, length))
        place = end
    return spans


def _damage(content: mmap.mmap, place: int) -> str:
    kind = COMPRESSED.get(content[:2])
    if place == 0 and kind:
        return f"compressed ({kind}) from byte 0, which rules out random access; write it uncompressed"
    if place == 0:
        return "not a TFRecord file: the checksum at byte 8 does not match"
    return f"damaged: the checksum of the record length at byte {place} does not match"


def masked_crc(data: bytes) -> int:
    """Return the masked CRC-32C of a few bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    """Return the table of CRC-32C (Castagnoli), reflected polynomial 0x82F63B78."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


class Records:
    """A source of the records of several files, in the order of the files."""

    def __init__(self, spans: dict[Path, np.ndarray], config: RecordsConfig) -> None:
        """Take the spans (records, 2) of each file, as `scan` returns them."""
        self._files = [str(path) for path in spans]
        counts = [len(records) for records in spans.values()]
        self._file_of = np.repeat(np.arange(len(counts)), counts)
        self._first = np.cumsum([0, *counts])
        self._spans = np.concatenate(list(spans.values()))
        self._config, self._schema = config, config.schema()
        self.size = len(self._spans)

    def spec(self) -> Example:
        """Return the structure of one example."""
        return self._example(
            {name: tf.TensorSpec(feature.shape, feature.dtype) for name, feature in self._schema.items()}
        )

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,); an error names the record that does not match the features."""
        contents, names = tf.numpy_function(self._read, [indices], [tf.string, tf.string], stateful=False)
        contents.set_shape(indices.shape)
        names.set_shape(indices.shape)
        parsed = tf.io.parse_example(
            contents,
            {name: _parser(feature) for name, feature in self._schema.items()},
            example_names=tf.strings.join([OPEN, names, " does not match data.features", CLOSE]),
        )
        leaves = {name: self._decoded(name, parsed[name], feature, names) for name, feature in self._schema.items()}
        with tf.control_dependencies(self._label_checks(leaves, names)):
            return tf.nest.map_structure(tf.identity, self._example(leaves))

    def arrays(self) -> None:
        """Return None: records are read when they are needed."""

    def _example(self, leaves: dict[str, Any]) -> Example:
        x, y = (bundle({name: leaves[name] for name in names}) for names in (self._config.inputs, self._config.targets))
        weight = self._config.sample_weight
        return (x, y, leaves[weight]) if weight else (x, y)

    def _read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes of the records, and each record's name for errors."""
        contents = np.array([self._bytes(int(index)) for index in indices], object)
        return contents, np.array([self.name(int(index)) for index in indices], object)

    def _bytes(self, index: int) -> bytes:
        # Opened for each record: there may be more files than file descriptors.
        offset, length = self._spans[index].tolist()
        descriptor = os.open(self._files[self._file_of[index]], os.O_RDONLY)
        try:
            content = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        if len(content) != length:
            raise ValueError(f"{OPEN}{self.name(index)} has been cut short since the run began{CLOSE}")
        if not _is_example(content):  # the parsing operation would not say which record
            raise ValueError(f"{OPEN}{self.name(index)} is damaged: not a tf.train.Example{CLOSE}")
        return content

    def name(self, index: int) -> str:
        """Return the file and the place of a record."""
        file = self._file_of[index]
        return f"{self._files[file]}: record {index - self._first[file]} (byte {self._spans[index, 0]})"

    def _decoded(self, name: str, values: tf.Tensor, feature: Feature, names: tf.Tensor) -> tf.Tensor:
        if feature.encoding is Encoding.FIXED:
            return values
        if feature.encoding is Encoding.RAW:
            size = int(np.prod(feature.shape))
            fits = tf.strings.length(values) == size
            with tf.control_dependencies([_must(fits, names, f" does not hold {size} bytes of {name}")]):
                pixels = tf.io.decode_raw(values, tf.uint8, fixed_length=size)
            return tf.reshape(pixels, [-1, *feature.shape])

        def names_of(positions: tf.Tensor) -> tf.Tensor:
            return tf.gather(names, positions)

        height, width, channels = feature.shape
        return decode_all(values, read=tf.identity, names_of=names_of, shape=(height, width, channels))

    def _label_checks(self, leaves: dict[str, tf.Tensor], names: tf.Tensor) -> list[tf.Operation]:
        """Fail on a label outside the classes: the loss would be NaN, or silently wrong on a GPU."""
        checks = []
        for name, units in self._config.classes.items():
            labels = tf.reshape(leaves[name], [tf.shape(names)[0], -1])
            fits = tf.reduce_all((labels >= 0) & (labels < units), axis=1)
            checks.append(_must(fits, names, f" has a {name} outside 0 to {units - 1}"))
        return checks


def open_records(config: RecordsConfig) -> Dataset:
    """Return the features of the records, as inputs and targets under their names.

    Raises:
        DataError: files that are damaged, compressed or lack the declared features; the message names the byte.
    """
    patterns = {
        "train": config.files,
        "validation": config.validation_files,
        "test": config.test_files,
    }
    files = {part: find_files(wanted) for part, wanted in patterns.items() if wanted}
    spans: dict[Path, np.ndarray] = {}
    problems = []
    for path in dict.fromkeys(path for paths in files.values() for path in paths):
        try:
            spans[path] = scan(path)
            problems += _schema_problems(path, spans[path][0], config.schema())
        except (RecordError, OSError) as error:
            problems.append(f"{path}: {error}")
    refuse(problems)
    sources = {part: Records({path: spans[path] for path in paths}, config) for part, paths in files.items()}
    parts = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    outputs = {name: _output(feature, config.classes.get(name)) for name, feature in _targets(config).items()}
    return describe(parts, inputs=list(config.inputs), outputs=outputs)


def _targets(config: RecordsConfig) -> dict[str, Feature]:
    schema = config.schema()
    return {name: schema[name] for name in config.targets}


def _output(feature: Feature, classes: int | None) -> Output:
    if classes is not None and feature.dtype == "int64":
        return Output(classes, TargetKind.CLASSES)
    return Output(feature.shape[-1] if feature.shape else 1, TargetKind.VALUES)


def _parser(feature: Feature) -> tf.io.FixedLenFeature:
    if feature.encoding is Encoding.FIXED:
        return tf.io.FixedLenFeature(feature.shape, feature.dtype)
    return tf.io.FixedLenFeature((), tf.string)


def _must(fits: tf.Tensor, names: tf.Tensor, problem: str) -> tf.Operation:
    """Fail unless `fits` (n,) is true everywhere, with the first of `names` (n,) where it is not."""
    first = tf.strings.reduce_join(tf.boolean_mask(names, ~fits)[:1])
    message = tf.strings.join([OPEN, first, problem, CLOSE])
    return tf.raw_ops.Assert(condition=tf.reduce_all(fits), data=[message], summarize=1)


def _schema_problems(path: Path, span: np.ndarray, schema: dict[str, Feature]) -> list[str]:
    """Return where the first record of a file differs from the declared features, before training."""
    with path.open("rb") as file:
        file.seek(int(span[0]))
        content = file.read(int(span[1]))
    if not _is_example(content):
        return [f"{path}: record 0 (byte {span[0]}) is not a tf.train.Example"]
    stored = tf.train.Example.FromString(content).features.feature
    problems = [f"{path}: no feature {name!r}; it has {_listed(stored)}" for name in schema if name not in stored]
    for name, feature in schema.items():
        if name in stored and (mismatch := _mismatch(stored[name], feature)):
            problems.append(f"{path}: the feature {name!r} {mismatch}")
    return problems


def _is_example(content: bytes) -> bool:
    try:
        tf.train.Example.FromString(content)
    except DecodeError:
        return False
    return True


def _mismatch(stored: Any, feature: Feature) -> str:
    wanted = {"float32": "float_list", "int64": "int64_list"}.get(feature.dtype, "bytes_list")
    wanted = wanted if feature.encoding is Encoding.FIXED else "bytes_list"
    kind = stored.WhichOneof("kind")
    if kind != wanted:
        return f"is a {kind or 'list of nothing'}, but its declaration needs a {wanted}"
    size = int(np.prod(feature.shape)) if feature.encoding is Encoding.FIXED else 1
    count = len(getattr(stored, kind).value)
    return "" if count == size else f"has {count} values, but {size} are declared"


def _listed(stored: Any) -> str:
    return ", ".join(f"{name} ({stored[name].WhichOneof('kind')})" for name in sorted(stored)) or "none"
