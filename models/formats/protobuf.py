"""The wire format of protocol buffers, as much as a reader needs: https://protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

from collections import defaultdict

Fields = dict[
    int, list[int | bytes]
]  # field number -> its values in order: numbers, or bytes for all that has a length


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at` and where the next byte is. Raises ValueError beyond 64 bits, IndexError at the end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than 64 bits")


def fields(data: bytes) -> Fields:
    """Return the fields of a message. Raises ValueError or IndexError for what is none."""
    found: Fields = defaultdict(list)
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
            raise ValueError("a field ends behind its message")
        found[number].append(value)
    return found


def number(message: Fields, field: int) -> int:
    """Return the last value of a numeric field, 0 when it is absent; raises ValueError when it is none."""
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def messages(message: Fields, field: int) -> list[bytes]:
    """Return the values of a field of bytes, texts or messages; raises ValueError when they are numbers."""
    values = message.get(field, [])
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError(f"field {field} is a number")
    return [value for value in values if isinstance(value, bytes)]


def text(message: Fields, field: int) -> str:
    """Return the last value of a text field, empty when it is absent."""
    return [b"", *messages(message, field)][-1].decode("utf-8", "replace")
