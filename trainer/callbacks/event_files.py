"""TensorBoard's event files: what a killed process wrote past its last checkpoint is taken back on resume.

An event file is a row of TFRecords: length (8 bytes, little endian), its checksum (4), data, its checksum (4).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from tensorboard.compat.proto.event_pb2 import Event

_BEFORE, _AFTER = 12, 4  # bytes around the data of a record


def forget_after(directory: Path, step: int) -> None:
    """Delete the events after `step` from every event file in a directory; at step 0 the files themselves.

    What follows a damaged event cannot be read by anybody, and is left out.
    """
    for path in sorted(path for path in directory.glob("events.out.tfevents.*") if path.is_file()):
        if step == 0:
            path.unlink()
            continue
        data = path.read_bytes()
        kept = b"".join(record for record, at in _steps(data) if at <= step)
        if kept != data:
            # Not called like an event file until it is whole: TensorBoard may be watching.
            fresh = path.with_name(f".{path.name}")
            fresh.write_bytes(kept)
            os.replace(fresh, path)


def _steps(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield records with their steps, up to the first that is damaged."""
    for record in _records(data):
        try:
            event = Event.FromString(record[_BEFORE:-_AFTER])
        except DecodeError:
            return
        yield record, int(event.step)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield whole records; one that a kill cut short is the last, and is left out."""
    start = 0
    while start + _BEFORE <= len(data):
        end = start + _BEFORE + int.from_bytes(data[start : start + 8], "little") + _AFTER
        if end > len(data):
            return
        yield data[start:end]
        start = end
