"""Where each record of a TFRecord file begins: numpy only.

The format (https://www.tensorflow.org/tutorials/load_data/tfrecord), little-endian: for each record its
length (8 bytes), the masked CRC-32C of the length (4), the data, the masked CRC-32C of the data (4).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np

HEADER = struct.Struct("<QI")
FOOTER = 4  # bytes of the CRC after the data
COMPRESSED = {b"\x1f\x8b": "GZIP", b"\x78\x01": "ZLIB", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB"}


class RecordError(ValueError):
    """A file that is no sound TFRecord file; the message says at which byte."""


def scan(path: Path) -> np.ndarray:
    """Return the offset and the length of each record's data, int64 (records, 2).

    The checksum of every length is verified; that of the data is not, as the whole file would be read.

    Raises:
        RecordError: the file is empty, compressed, cut short, or no TFRecord file.
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
        return "no TFRecord file: the checksum at byte 8 does not fit"
    return f"damaged: the checksum of the record length at byte {place} does not fit"


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
