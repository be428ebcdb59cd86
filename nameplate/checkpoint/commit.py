"""Saving a checkpoint: written and hashed under a hidden name, then committed by one rename.

Also what happens in the directory around it: the trial save before a run starts, and the removal of what a dead writer
left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128_hexdigest

from nameplate.checkpoint import durable, layout, manifest, tensor_names
from nameplate.checkpoint.errors import StoreError, explained
from nameplate.checkpoint.header import MOST_TENSORS
from nameplate.checkpoint.tensor_file import require_storable, write_tensors
from nameplate.checkpoint.verification import verify


@dataclass(frozen=True)
class Snapshot:
    """The state of a training run after a step, as arrays in host memory and plain data.

    The arrays must not change while the snapshot is being saved.
    """

    step: int  # steps done, over the whole run
    epoch: int  # index of the epoch of the next step
    position: int  # examples of that epoch already consumed
    weights: Mapping[str, np.ndarray]  # qualified variable name -> array
    optimizer: Mapping[str, np.ndarray]  # slot -> array: "backbone/stem_conv/kernel@momentum"
    state: Mapping[str, np.ndarray]  # seeds, metrics and counters, under names of the same grammar
    metrics: Mapping[str, float]  # logged values, for display, ranking and retention
    model: str  # text of model.json
    config: str  # text of config.yaml
    about: Mapping[str, Any]  # plain JSON data: provenance, versions, history, callback states
    classes: Mapping[str, str] = field(default_factory=dict)  # variable name -> class of its layer ("Conv2D")

    def groups(self) -> dict[str, Mapping[str, np.ndarray]]:
        """Return the arrays by group, each of which has its own files."""
        return {"weights": self.weights, "optimizer": self.optimizer, "state": self.state}


LARGEST_FILE = 4 << 30  # bytes of tensors in one file; a larger tensor gets a file of its own
_TRIAL_STEP = 10**9  # its name is as long as any run will need
_TRIAL_SIZE = 1 << 16  # bytes


def save(directory: Path, snapshot: Snapshot, *, largest_file: int = LARGEST_FILE) -> Path:
    """Save `snapshot` durably as `<directory>/step_<step>` and return that path.

    The caller holds the run's lock. A checkpoint of that step with the same content is left as it is; one that differs
    or is damaged is moved aside, replaced and then deleted. Raises `StoreError`, after which all earlier checkpoints
    are still whole.
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
            raise StoreError(f"A checkpoint's {count} must not be negative; received {getattr(snapshot, count)}.")
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
            files[name], shard_records = _write_shard(directory / name, shard, classes=snapshot.classes)
            records[group] |= shard_records
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


def _write_shard(
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
    """Yield `tensors` in order, in at least one shard, each of at most `largest` bytes and `MOST_TENSORS` tensors."""
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, array in tensors.items():
        if shard and (size + array.nbytes > largest or len(shard) == MOST_TENSORS):
            yield shard
            shard, size = {}, 0
        shard[name] = array
        size += array.nbytes
    yield shard


def _commit(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        temporary.rename(target)
        durable.sync_directory(target.parent)
        return
    if _same_content(temporary, target):
        durable.remove_tree(temporary)
        return
    old = durable.beside(target, layout.REPLACED)
    target.rename(old)  # since rename(2) replaces no directory that has entries
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


# ---- the directory of checkpoints -------------------------------------------------------------------------------


def probe(directory: Path) -> None:
    """Create `directory` if missing and try everything there that a save does: write, fsync, rename, delete.

    Run before the first step, so that a disk that cannot hold checkpoints is found before hours of training. Raises
    `StoreError` with the reason: read-only, full, a file in the way, a path too long.
    """
    directory = Path(directory)
    target = directory / layout.step_name(_TRIAL_STEP)
    trial = durable.beside(target, layout.PROBING)
    renamed = durable.beside(target, layout.PROBING)
    with explained("A trial save in", directory):
        durable.make_directories(directory)
        try:
            trial.mkdir()
            durable.write_file(trial / layout.shard_name("optimizer", 0, 2), b"\0" * _TRIAL_SIZE)
            durable.sync_directory(trial)
            trial.rename(renamed)
            durable.sync_directory(directory)
        except BaseException:
            for path in (trial, renamed):
                with suppress(OSError):
                    durable.remove_tree(path)
            raise
        durable.remove_tree(renamed)


def sweep_leftovers(directory: Path) -> list[Path]:
    """Remove the temporaries in `directory` and return their paths; the caller holds the run's lock.

    A checkpoint that was moved aside for one that never came gets its name back. What cannot be deleted is left for
    the next call. Raises `StoreError` when a name cannot be restored.
    """
    directory = Path(directory)
    swept = []
    for name in layout.listing(directory):
        if not name.startswith(layout.TEMPORARIES):
            continue
        path = directory / name
        if name.startswith(layout.REPLACED) and _restore(path):
            continue
        with suppress(OSError):
            durable.remove_tree(path)
            swept.append(path)
    return swept


def _restore(path: Path) -> bool:
    """Rename `.replaced-step_00000010-1f2e3d4c` to `step_00000010` unless that exists."""
    target = path.with_name(path.name.removeprefix(layout.REPLACED).rsplit("-", 1)[0])
    if layout.step_of(target.name) is None or target.exists():
        return False
    with explained("Restoring", target):
        path.rename(target)
        durable.sync_directory(path.parent)
    return True
