"""The commands that only read: `ls`, `show`, `verify`, `diff` and `plan`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nameplate import checkpoint as store
from nameplate.checkpoint import layout, location
from nameplate.checkpoint.manifest import Manifest, TensorRecord
from nameplate.checkpoint.reading import read_manifest
from nameplate.naming.rules import parse_rules
from nameplate.training import console
from nameplate.training.weight_sources import WeightSource, open_source
from nameplate.weights import named as weights
from nameplate.weights.named import Difference, Weights
from nameplate.weights.plan import COLUMNS, WeightPlan, bridges, match

DAMAGED = 1


def ls(arguments: argparse.Namespace) -> int:
    """List the checkpoints of a run by step; a damaged one with what its manifest says."""
    place = location.find(arguments.path)
    pointers = _pointers(place)
    # A running job may delete some meanwhile.
    rows = [_summary(path, pointers) for path in place.paths if path.exists()]
    if arguments.json:
        console.as_json(rows)
        return 0
    for path, error in store.lacking(place.directory).items() if place.directory else ():
        if path not in place.paths:  # else it is a row of the table
            console.line(str(error))
    metrics = sorted({name for row in rows for name in row["metrics"]})
    console.table(
        str(place.directory or place.newest),
        ["checkpoint", ">step", ">epoch", ">position", ">size", *(f">{name}" for name in metrics), "is"],
        [_row(row, metrics) for row in rows],
    )
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Show one checkpoint: position, metrics, provenance, files and tensors."""
    path = location.find_one(arguments.path)
    with store.open(path) as checkpoint:
        content = checkpoint.manifest
    if arguments.json:
        console.as_json({"path": str(path)} | _document(content))
        return 0
    console.line(f"{path}: step {content.step}, epoch {content.epoch}, position {content.position}")
    if content.metrics:
        console.table("metrics", ["metric", ">value"], sorted(content.metrics.items()))
    for key, value in content.about.items():
        if key != "origins" or not value:
            console.line(f"{key}: {_short(value)}")
    _show_origins(content)
    _show_tensors(content)
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read every byte of the given checkpoints and report all damage; exit 1 if there is any.

    For a run also check that its pointers lead to existing checkpoints.
    """
    damages: dict[Path, list[store.Damage]] = {}
    for text in arguments.path:
        place = location.find(text)
        damages |= {path: store.verify(path) for path in place.paths if layout.has_manifest(path)}
        lost = store.lacking(place.directory or place.newest.parent)
        named = place.paths if place.directory is None else lost
        damages |= {path: [store.Damage(path.name, None, str(lost[path]))] for path in named if path in lost}
        for path in set(place.paths) - damages.keys():  # deleted since it was listed, or not a checkpoint: raises
            store.verify(path)
    if arguments.json:
        console.as_json([_verdict(path, own) for path, own in damages.items()])
    else:
        for path, own in damages.items():
            console.line(f"{path}: {'DAMAGED' if own else _good(path)}")
            for damage in own:
                console.line(f"  {damage}")
    return DAMAGED if any(damages.values()) else 0


def _pointers(place: location.CheckpointPaths) -> dict[Path, list[str]]:
    """Return the names of the pointers by the checkpoint that they lead to."""
    names: dict[Path, list[str]] = {}
    for name, target in store.pointers(place.directory or place.newest.parent).items():
        names.setdefault(target, []).append(name)
    return names


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
        return "newer format"
    return "damaged" if isinstance(error, store.DamagedError) else "unreadable"


def _row(row: dict[str, Any], metrics: list[str]) -> list[object]:
    size = console.size(row["size"]) if "size" in row else None
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
    """Show where initial values come from: the file, the name in it, and the rule."""
    rows = [
        (name, origin.get("file"), origin.get("name"), origin.get("rule"))
        for name, origin in content.about.get("origins", {}).items()
    ]
    if rows:
        console.table("origins", ["initial value of", "file", "name there", "rule"], rows)


def _show_tensors(content: Manifest) -> None:
    console.table(
        "files",
        ["file", ">size", "xxh3-128"],
        [(name, console.size(record.size), record.xxh3) for name, record in content.files.items()],
    )
    for group, records in content.tensors.items():
        total = console.size(sum(record.nbytes for record in records.values()))
        console.line(f"{group}: {len(records)} tensors, {total}")
        if records:
            rows = [_tensor_row(name, record) for name, record in records.items()]
            console.table(group, ["name", "class", "role", "dtype", "shape", ">size"], rows)


def _tensor_row(name: str, record: TensorRecord) -> list[object]:
    shape = " x ".join(map(str, record.shape)) or "scalar"
    return [name, record.layer_class, record.role, record.dtype.name, shape, console.size(record.nbytes)]


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
    return text if len(text) <= 300 else f"{text[:300]} ... (all with --json)"


def _verdict(path: Path, damages: list[store.Damage]) -> dict[str, Any]:
    return {
        "path": str(path),
        "good": not damages,
        "damages": [vars(damage) for damage in damages],
    }


def _good(path: Path) -> str:
    content = read_manifest(path)
    tensors = sum(map(len, content.tensors.values()))
    return f"good, {tensors} tensors, {console.size(sum(record.size for record in content.files.values()))}"


FITS, LEFT_OVER = 0, 1


def diff(arguments: argparse.Namespace) -> int:
    """Compare two checkpoints or files by name: names, shapes, dtypes, and changes of values."""
    with open_source(arguments.a) as a, open_source(arguments.b) as b:
        groups = {group: weights.difference(one, other) for group, one, other in _pairs(a, b, arguments.only)}
        labels = (a.label, b.label)
    if arguments.json:
        console.as_json(
            {"a": labels[0], "b": labels[1]}
            | {group: _difference_document(difference) for group, difference in groups.items()}
        )
        return 0
    console.line(f"a: {labels[0]}\nb: {labels[1]}")
    for group, difference in groups.items():
        console.line(f"{group}: {_difference_summary(difference)}")
        if rows := list(_rows(difference)):
            console.table(group, ["name", "difference", ">largest", ">relative"], rows)
    return 0


def plan(arguments: argparse.Namespace) -> int:
    """Show what loading SOURCE into TARGET would do with every name of both; exit 1 if anything is left over."""
    rules = parse_rules(arguments.rules)
    with open_source(arguments.source) as source, open_source(arguments.target) as target:
        made = match(source.forms, target.forms, rules=rules, label=source.label)
        fits = not made.problems  # also where a rule drops all there is: then nothing is left over
        offered = [] if rules or fits else bridges(source.forms, target.forms)
    if arguments.json:
        console.as_json(made.document() | {"fits": fits, "bridges": offered})
    else:
        _print_plan(made, offered, fits=fits, verbose=arguments.verbose)
    return FITS if fits else LEFT_OVER


def _pairs(a: WeightSource, b: WeightSource, only: list[str]) -> Iterator[tuple[str, Weights, Weights]]:
    """Yield the groups that both have; a plain file has only weights."""
    for group in a.groups if a.checkpoint and b.checkpoint and not only else ["weights"]:
        one, other = a.groups[group], b.groups[group]
        if only:
            weights.require_matches(one.keys() | other.keys(), only)
            one, other = _picked(one, only), _picked(other, only)
        yield group, one, other


def _picked(arrays: Weights, only: list[str]) -> Weights:
    return weights.partition(arrays, lambda name: any(weights.matches(name, pattern) for pattern in only))[0]


def _difference_summary(difference: Difference) -> str:
    shaped = difference.shape.keys() | (difference.dtype.keys() - difference.moved.keys())
    counts = {
        "the same": len(difference.same),
        "moved": len(difference.moved),
        "of another shape": len(shaped),
        "only in a": len(difference.only_a),
        "only in b": len(difference.only_b),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "empty"


def _rows(difference: Difference) -> Iterator[list[object]]:
    for name in difference.only_a:
        yield [name, "only in a", None, None]
    for name in difference.only_b:
        yield [name, "only in b", None, None]
    for name, (one, other) in difference.shape.items():
        yield [name, f"{_shape(one)} in a, {_shape(other)} in b", None, None]
    for name, move in difference.moved.items():
        dtypes = difference.dtype.get(name)
        what = f"moved; {dtypes[0]} in a, {dtypes[1]} in b" if dtypes else "moved"
        yield [name, what, move.largest, move.relative]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _difference_document(difference: Difference) -> dict[str, Any]:
    return {
        "only_a": list(difference.only_a),
        "only_b": list(difference.only_b),
        "shape": {name: {"a": list(one), "b": list(other)} for name, (one, other) in difference.shape.items()},
        "dtype": {name: {"a": one.name, "b": other.name} for name, (one, other) in difference.dtype.items()},
        "moved": {name: vars(move) for name, move in difference.moved.items()},
        "same": list(difference.same),
    }


def _print_plan(made: WeightPlan, offered: list[str], *, fits: bool, verbose: bool) -> None:
    console.line(f"{'It fits' if fits else 'It does not fit'}: {made.total() or 'nothing on either side'}.")
    if offered:
        console.line(f"These rules would bridge it: {' '.join(offered)}")
    shown = made if verbose else made.with_lines(made.problems)
    if shown.lines:
        console.table("plan" if verbose else "left over (--verbose: all)", COLUMNS, shown.rows())
