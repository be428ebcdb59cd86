"""TensorBoard's event files; a resume removes the events that a killed process wrote after its last checkpoint.

An event file is a sequence of TFRecords: length (8 bytes, little endian), its checksum (4), data, its checksum (4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.util.tensor_util import make_tensor_proto

import nameplate
from nameplate.checkpoint import durable
from nameplate.engine.event_files import EventFile
from nameplate.graph.tree import seeds
from nameplate.training.observers import Observer, Record, RunLength

_BEFORE, _AFTER = 12, 4  # bytes around the data of a record


def remove_events_after(directory: Path, step: int) -> None:
    """Delete the events after `step` from every event file in a directory; at step 0 the files themselves.

    Nothing after a damaged event can be read, so it is removed too.
    """
    for path in sorted(path for path in directory.glob("events.out.tfevents.*") if path.is_file()):
        if step == 0:
            path.unlink()
            continue
        data = path.read_bytes()
        kept = b"".join(record for record, at in _steps(data) if at <= step)
        if kept != data:
            # The draft has no `tfevents` in its name: TensorBoard may be watching.
            durable.replace_file(path, kept, temporary=durable.beside(path.with_name("events"), durable.NEW))


def _steps(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield records and their steps, up to the first that is damaged."""
    for record in _records(data):
        try:
            event = Event.FromString(record[_BEFORE:-_AFTER])
        except DecodeError:
            return
        yield record, int(event.step)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield whole records; the last may have been cut short by a kill, and is omitted then."""
    start = 0
    while start + _BEFORE <= len(data):
        end = start + _BEFORE + int.from_bytes(data[start : start + 8], "little") + _AFTER
        if end > len(data):
            return
        yield data[start:end]
        start = end


BUCKETS = 30  # of a histogram, as many as `tf.summary.histogram` makes


class TensorBoard(Observer):
    """Writes event files: `train/` and `validation/` under the directory."""

    def __init__(self, directory: Path, *, texts: Mapping[str, str], histograms_every: int | None) -> None:
        self._directory, self._texts, self._every = directory, texts, histograms_every

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Remove the events after the step where the run resumes, and open the writers."""
        self._model = model
        for part in ("train", "validation"):
            remove_events_after(self._directory / part, run_length.first_step)
        self._train, self._validation = EventFile(self._directory / "train"), EventFile(self._directory / "validation")
        if run_length.first_step == 0:
            for name, text in self._texts.items():
                self._train.write_text(name, f"```\n{text}\n```", step=0)

    def recorded(self, record: Record) -> None:
        """Write the scalars, and at the end of an epoch the histograms."""
        train, validation = Summary(), Summary()
        for name, value in record.values.items():
            into = validation if name.startswith("val_") else train
            into.MergeFrom(scalar_pb(_tag(name, of_epoch=record.of_epoch), value))
        if record.of_epoch and self._every and (record.epoch + 1) % self._every == 0:
            self._draw_histograms(train)
        for events, summary in ((self._train, train), (self._validation, validation)):
            if summary.value:
                events.write_summary(summary.SerializeToString(), step=record.step)
                events.flush()

    def ended(self) -> None:
        """Close the writers."""
        self._train.close()
        self._validation.close()

    def _draw_histograms(self, summary: Summary) -> None:
        drawn = {f"{name}/state" for name in seeds(self._model)}
        for name, variable in nameplate.variables(self._model).items():
            if name not in drawn:
                tensor = make_tensor_proto(buckets(variable.numpy()), dtype=np.float64)
                described = metadata.create_summary_metadata(display_name=None, description=None)
                summary.value.add(tag=name, metadata=described, tensor=tensor)


def buckets(values: np.ndarray) -> np.ndarray:
    """Return a histogram in TensorBoard's format, (30, 3) float64: left edge, right edge and count of each bucket.

    If all values are the same, the last bucket holds them. Values that are not finite are omitted. The result is as of
    `tf.summary.histogram`, which takes 240 bytes of memory for each value.
    """
    values = np.asarray(values, "float64").ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return np.zeros((BUCKETS, 3))
    edges = np.linspace(values.min(), values.max(), BUCKETS + 1)
    width = (edges[-1] - edges[0]) / BUCKETS
    places = np.minimum((values - edges[0]) / width, BUCKETS - 1) if width else np.full(values.size, BUCKETS - 1)
    counts = np.bincount(places.astype(np.intp), minlength=BUCKETS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def _tag(name: str, *, of_epoch: bool) -> str:
    """Return the tag of a value; training and validation have the same, so that they share a chart."""
    return f"{'epoch' if of_epoch else 'step'}/{name.removeprefix('val_')}"
