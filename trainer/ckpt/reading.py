"""`ls`, `show` and `verify`: what checkpoints there are, what is in one, and whether it is whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from models import store
from models.store import layout
from models.store.manifest import Manifest, TensorRecord
from models.store.reading import read_manifest
from trainer import places
from trainer.ckpt import printing

DAMAGED = 1


def ls(arguments: argparse.Namespace) -> int:
    """List the checkpoints of a run by step; a damaged one is listed with what its manifest shows."""
    place = places.find(arguments.path)
    pointers = _pointers(place)
    # its owner may delete meanwhile
    rows = [_summary(path, pointers) for path in place.paths if path.exists()]
    if arguments.json:
        printing.as_json(rows)
        return 0
    for path, error in store.lacking(place.directory).items() if place.directory else ():
        if path not in place.paths:  # else it is a row of the table
            printing.line(str(error))
    metrics = sorted({name for row in rows for name in row["metrics"]})
    printing.table(
        str(place.directory or place.newest),
        ["checkpoint", ">step", ">epoch", ">position", ">size", *(f">{name}" for name in metrics), "is"],
        [_row(row, metrics) for row in rows],
    )
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Show one checkpoint: where the job stood, metrics, provenance, files and tensors."""
    path = places.find_one(arguments.path)
    with store.open(path) as checkpoint:
        content = checkpoint.manifest
    if arguments.json:
        printing.as_json({"path": str(path)} | _document(content))
        return 0
    printing.line(f"{path}: step {content.step}, epoch {content.epoch}, position {content.position}")
    if content.metrics:
        printing.table("metrics", ["metric", ">value"], sorted(content.metrics.items()))
    for key, value in content.about.items():
        if key != "origins" or not value:
            printing.line(f"{key}: {_short(value)}")
    _show_origins(content)
    _show_tensors(content)
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read every byte of every checkpoint named, and say all that is wrong; exit 1 when anything is.

    Of a run its pointers too, and the checkpoints that they lead to and that are gone.
    """
    found: dict[Path, list[store.Damage]] = {}
    for text in arguments.path:
        place = places.find(text)
        found |= {path: store.verify(path) for path in place.paths if layout.has_manifest(path)}
        lost = store.lacking(place.directory or place.newest.parent)
        named = place.paths if place.directory is None else lost
        found |= {path: [store.Damage(path.name, None, str(lost[path]))] for path in named if path in lost}
        for path in set(place.paths) - found.keys():  # gone since it was listed, or what is no checkpoint
            store.verify(path)
    if arguments.json:
        printing.as_json([_verdict(path, damages) for path, damages in found.items()])
    else:
        for path, damages in found.items():
            printing.line(f"{path}: {_good(path) if not damages else 'DAMAGED'}")
            for damage in damages:
                printing.line(f"  {damage}")
    return DAMAGED if any(found.values()) else 0


def _pointers(place: places.Place) -> dict[Path, list[str]]:
    """Return the pointers' names by the checkpoint that they lead to."""
    found: dict[Path, list[str]] = {}
    for name, target in store.pointers(place.directory or place.newest.parent).items():
        found.setdefault(target, []).append(name)
    return found


def _summary(path: Path, pointers: dict[Path, list[str]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": str(path),
        "pointers": pointers.get(path, []),
        "metrics": {},
        "stage": None,
        "state": "good",
    }
    try:
        with store.open(path) as checkpoint:
            content = checkpoint.manifest
    except store.StoreError as error:
        row |= {"state": _state(error), "error": str(error)}
        try:
            content = read_manifest(path)
        except store.StoreError:
            return row
    size = sum(record.size for record in content.files.values())
    where = {"step": content.step, "epoch": content.epoch, "position": content.position, "size": size}
    stage = content.about.get(store.STAGE, {}).get("name")
    return row | where | {"metrics": dict(content.metrics), "stage": stage}


def _state(error: store.StoreError) -> str:
    if isinstance(error, store.NewerFormatError):
        return "of a newer format"
    return "damaged" if isinstance(error, store.DamagedError) else "unreadable"


def _row(row: dict[str, Any], metrics: list[str]) -> list[object]:
    size = printing.size(row["size"]) if "size" in row else None
    ended = [f"end of {row['stage']}"] if row["stage"] else []
    state = [row["state"]] if row["state"] != "good" else []
    return [
        Path(row["path"]).name,
        *(row.get(key) for key in ("step", "epoch", "position")),
        size,
        *(row["metrics"].get(name) for name in metrics),
        ", ".join([*row["pointers"], *ended, *state]),
    ]


def _show_origins(content: Manifest) -> None:
    """Show of each variable whose first value was made elsewhere the file, the name in it, and the rule."""
    rows = [
        (name, origin.get("file"), origin.get("name"), origin.get("rule"))
        for name, origin in content.about.get("origins", {}).items()
    ]
    if rows:
        printing.table("origins", ["first value of", "file", "name there", "rule"], rows)


def _show_tensors(content: Manifest) -> None:
    printing.table(
        "files",
        ["file", ">size", "xxh3-128"],
        [(name, printing.size(record.size), record.xxh3) for name, record in content.files.items()],
    )
    for group, records in content.tensors.items():
        total = printing.size(sum(record.nbytes for record in records.values()))
        printing.line(f"{group}: {len(records)} tensors, {total}")
        if records:
            rows = [_tensor_row(name, record) for name, record in records.items()]
            printing.table(group, ["name", "class", "role", "dtype", "shape", ">size"], rows)


def _tensor_row(name: str, record: TensorRecord) -> list[object]:
    shape = " x ".join(map(str, record.shape)) or "scalar"
    return [name, record.layer_class, record.role, record.dtype.name, shape, printing.size(record.nbytes)]


def _document(content: Manifest) -> dict[str, Any]:
    return {
        "step": content.step,
        "epoch": content.epoch,
        "position": content.position,
        "metrics": dict(content.metrics),
        "about": dict(content.about),
        "files": {name: {"size": record.size, "xxh3": record.xxh3} for name, record in content.files.items()},
        "tensors": {
            group: {name: _tensor_document(record) for name, record in records.items()}
            for group, records in content.tensors.items()
        },
    }


def _tensor_document(record: TensorRecord) -> dict[str, Any]:
    return {
        "class": record.layer_class,
        "role": record.role,
        "dtype": record.dtype.name,
        "shape": list(record.shape),
        "nbytes": record.nbytes,
        "file": record.file,
        "offset": record.offset,
        "xxh3": record.xxh3,
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]} ... (all of it with --json)"


def _verdict(path: Path, damages: list[store.Damage]) -> dict[str, Any]:
    return {
        "path": str(path),
        "good": not damages,
        "damages": [{"file": each.file, "tensor": each.tensor, "message": each.message} for each in damages],
    }


def _good(path: Path) -> str:
    content = read_manifest(path)
    tensors = sum(map(len, content.tensors.values()))
    return f"good, {tensors} tensors, {printing.size(sum(each.size for each in content.files.values()))}"
