"""What is to be saved: a value, all of it in host memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128_hexdigest

from nameplate.checkpoint import durable, layout, manifest, tensor_names
from nameplate.checkpoint.directory import sweep_leftovers
from nameplate.checkpoint.errors import StoreError, explained
from nameplate.checkpoint.header import MOST_TENSORS
from nameplate.checkpoint.tensors import require_storable, write_tensors
from nameplate.checkpoint.verification import verify


@dataclass(frozen=True)
class Snapshot:
    """A training job at the end of a step, as arrays and plain data.

    The arrays must not change while the snapshot is being saved.
    """

    step: int  # steps done, over the whole run
    epoch: int  # index of the epoch that the next step belongs to
    position: int  # examples of that epoch consumed
    weights: Mapping[str, np.ndarray]  # qualified variable name -> array
    optimizer: Mapping[str, np.ndarray]  # slot -> array: "backbone/stem_conv/kernel@momentum"
    state: Mapping[str, np.ndarray]  # seeds, metrics, counters, by names of the same grammar
    metrics: Mapping[str, float]  # logged values: for showing, for the best, for retention
    model: str  # text of model.json
    config: str  # text of config.yaml
    about: Mapping[str, Any]  # plain JSON data: provenance, versions, history, state of callbacks
    classes: Mapping[str, str] = field(default_factory=dict)  # variable name -> class of its layer ("Conv2D")

    def groups(self) -> dict[str, Mapping[str, np.ndarray]]:
        """Return the arrays by the group of files that holds them."""
        return {"weights": self.weights, "optimizer": self.optimizer, "state": self.state}


LARGEST_FILE = 4 << 30  # bytes of tensors in one file; a single larger tensor has a file to itself


def save(directory: Path, snapshot: Snapshot, *, largest_file: int = LARGEST_FILE) -> Path:
    """Save `snapshot` as `<directory>/step_<step>`, durably, and return that path.

    The caller holds the run's lock. Where that step is already there with the same content, nothing changes;
    with another content, or damaged, the old one is moved aside, the new one takes its name, and the old one
    is deleted. Raises `StoreError`; whatever it says, the checkpoints that were there before are still whole.
    """
    _require_valid(snapshot)
    directory = Path(directory)
    target = directory / layout.step_name(snapshot.step)
    with explained("Saving", target):
        durable.make_directories(directory)
        sweep_leftovers(directory)
        temporary = durable.beside(target, layout.SAVING)
        try:
            temporary.mkdir()
            _write_contents(temporary, snapshot, largest_file=largest_file)
            _commit(temporary, target)
        except BaseException:
            with suppress(OSError):
                durable.remove_tree(temporary)
            raise
    return target


def _require_valid(snapshot: Snapshot) -> None:
    for count in ("step", "epoch", "position"):
        if getattr(snapshot, count) < 0:
            raise StoreError(f"The {count} of a checkpoint is a count; received {getattr(snapshot, count)}.")
    for group, tensors in snapshot.groups().items():
        tensor_names.require(tensors, where=group)
        require_storable(tensors, where=group)


def _write_contents(directory: Path, snapshot: Snapshot, *, largest_file: int) -> None:
    files: dict[str, manifest.FileRecord] = {}
    records: dict[str, dict[str, manifest.TensorRecord]] = {}
    for group, tensors in snapshot.groups().items():
        records[group] = {}
        shards = list(_shards(tensors, largest_file))
        for index, shard in enumerate(shards):
            name = layout.shard_name(group, index, len(shards))
            files[name], found = _write_group(directory / name, shard, classes=snapshot.classes)
            records[group] |= found
    for name, text in ((layout.MODEL, snapshot.model), (layout.CONFIG, snapshot.config)):
        data = text.encode()
        durable.write_file(directory / name, data)
        files[name] = manifest.FileRecord(len(data), xxh3_128_hexdigest(data))
    content = manifest.Manifest(
        step=snapshot.step,
        epoch=snapshot.epoch,
        position=snapshot.position,
        metrics={name: float(value) for name, value in snapshot.metrics.items()},
        about=snapshot.about,
        files=files,
        tensors=records,
    )
    durable.write_file(directory / layout.MANIFEST, manifest.encode(content))
    durable.sync_directory(directory)


def _write_group(
    path: Path, tensors: Mapping[str, np.ndarray], *, classes: Mapping[str, str]
) -> tuple[manifest.FileRecord, dict[str, manifest.TensorRecord]]:
    written = write_tensors(path, tensors)
    records = {
        name: manifest.TensorRecord(
            file=path.name,
            offset=entry.offset,
            dtype=entry.dtype,
            shape=entry.shape,
            xxh3=written.hashes[name],
            layer_class=classes.get(tensor_names.owner(name)),
            role=tensor_names.role(name),
        )
        for name, entry in written.entries.items()
    }
    return manifest.FileRecord(written.size, written.xxh3, written.header_size, written.header_xxh3), records


def _shards(tensors: Mapping[str, np.ndarray], largest: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield `tensors` in order in parts of at most `largest` bytes and `MOST_TENSORS` tensors; one part at
    least.
    """
    part: dict[str, np.ndarray] = {}
    size = 0
    for name, array in tensors.items():
        if part and (size + array.nbytes > largest or len(part) == MOST_TENSORS):
            yield part
            part, size = {}, 0
        part[name] = array
        size += array.nbytes
    yield part


def _commit(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        temporary.rename(target)
        durable.sync_directory(target.parent)
        return
    if _same_content(temporary, target):
        durable.remove_tree(temporary)
        return
    old = durable.beside(target, layout.REPLACED)
    target.rename(old)  # a directory that is not empty cannot be renamed over
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    durable.sync_directory(target.parent)
    durable.remove_tree(old)


def _same_content(one: Path, other: Path) -> bool:
    try:
        same = (one / layout.MANIFEST).read_bytes() == (other / layout.MANIFEST).read_bytes()
    except OSError:
        return False
    return same and not verify(other)
