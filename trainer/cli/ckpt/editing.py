"""The commands that write or delete: `rename`, `extract`, `convert`, `merge` and `prune`.

They write a plain safetensors file, a file of Keras or PyTorch, or a run with one checkpoint, and overwrite nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint import durable, layout, location
from nameplate.checkpoint.errors import StoreError
from nameplate.checkpoint.location import CHECKPOINTS, NoCheckpointError
from nameplate.checkpoint.remote import url_of
from nameplate.errors import FileFormatError
from nameplate.formats import limits
from nameplate.formats.name_table import Array, of_config
from nameplate.formats.pytorch_file import write_state_dict
from nameplate.formats.pytorch_weights import to_torch
from nameplate.formats.registry import read_table
from nameplate.naming import names
from nameplate.naming.rules import RuleError, apply_rules, parse_rules
from nameplate.training import console
from nameplate.training.console import import_tensorflow
from nameplate.training.remote_run import push_run
from nameplate.training.weight_sources import SUFFIX, WeightSource, open_source
from nameplate.weights import merge, named
from nameplate.weights.named import Weights


def write(
    target: str,
    source: WeightSource,
    *,
    weights: Weights,
    optimizer: Weights,
    state: Weights,
    edit: Mapping[str, Any],
    classes: Mapping[str, str] | None = None,
) -> Path:
    """Write arrays to `target` and return what was written.

    A path that ends in `.safetensors` becomes a plain file with only the weights; any other becomes a run, whose
    checkpoint has the step, metrics and texts of `source`, and `edit` in its provenance. Raises `StoreError` if the
    path exists.
    """
    path = Path(target)
    _refuse_foreign(path)
    if path.name.endswith(SUFFIX):
        _refuse_existing(path)
        store.save_tensors(path, dict(weights), metadata={"step": str(source.step), "from": source.label})
        return path
    directory = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    _refuse_existing(directory / layout.step_name(source.step))
    snapshot = _snapshot(source, dict(weights), dict(optimizer), dict(state), edit, classes)
    with store.RunLock(directory.parent):
        store.probe(directory)
        written = store.save(directory, snapshot)
        store.point(directory, "latest", written)
    return written


def refuse_existing(target: str, source: WeightSource, *, foreign: bool = False) -> None:
    """Raise at once what `write`, or with `foreign` `write_foreign`, would raise after the work is done."""
    path = Path(target)
    if not foreign:
        _refuse_foreign(path)
    directory = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    plain = path.name.endswith(SUFFIX) or is_foreign(target)
    _refuse_existing(path if plain else directory / layout.step_name(source.step))


def is_foreign(target: str) -> bool:
    """Say whether a path is that of a file in a foreign format, which `write_foreign` writes."""
    return Path(target).name.casefold().endswith((*_KERAS, *_TORCH, *_NOT_WRITTEN))


def write_foreign(target: str, source: WeightSource, *, modules: Mapping[str, str]) -> Path:
    """Write the weights of `source` as a file of Keras or PyTorch, and return it.

    For Keras the model is built, with TensorFlow. PyTorch's layouts depend on the classes of the layers; `modules` is
    `{PyTorch module: layer}`.

    Raises:
        FileFormatError: `source` lacks the model or the classes, or the format cannot be written.
    """
    path = Path(target)
    _refuse_existing(path)
    if path.name.endswith(_KERAS):
        if modules:
            raise FileFormatError(f"{path}: MODULE=LAYER is for a .pt target; `ckpt rename` renames")
        import_tensorflow()
        model = nameplate.load(source.label)
        if isinstance(model, dict):
            raise FileFormatError(
                f"{source.label} has weights but no model; {path.name} needs one: a checkpoint, .keras, .h5"
            )
        nameplate.save(model, path)
        return path
    if not path.name.endswith(_TORCH):
        status = "only read" if path.name.endswith(_READ_ONLY) else "not written"
        raise FileFormatError(
            f"{path}: such files are {status}; weights are written to {', '.join((SUFFIX, *_KERAS, *_TORCH))}, and "
            "to a run: a path without such a suffix. nameplate.export writes a SavedModel"
        )
    layers = _layers(source)
    state = to_torch(source.weights, classes=layers, modules=modules, rows=_rows(path, source, layers))
    with durable.replacement(path, temporary=durable.beside(path, layout.SAVING)) as draft:
        write_state_dict(draft, state)
    return path


def _rows(path: Path, source: WeightSource, layers: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the row order of layers after a flattened image, whose features PyTorch orders differently.

    Raises:
        FileFormatError: there may be such layers, and the model cannot be built to find them.
    """
    kinds = set(layers.values())
    if not kinds & {"Flatten", "Reshape"} or not any(kind.startswith("Conv") for kind in kinds):
        return {}
    import_tensorflow()
    try:
        model = nameplate.load(source.label)
    except FileFormatError as error:
        raise FileFormatError(
            f"{path}: PyTorch flattens an image in another order, and the model, which is needed to find the affected "
            f"rows, cannot be built here; write it with nameplate.save(model, {path.name!r}) instead. {error}"
        ) from None
    if isinstance(model, dict):
        return {}
    rows: Mapping[str, Any] = import_module("nameplate.io.channel_order").rows_by_layer(model)
    return rows


def _layers(source: WeightSource) -> dict[str, str]:
    """Return `{layer: class}`, with containers, as far as the source has them."""
    if source.checkpoint is None:
        return {item.name: item.classes[0] for item in read_table(Path(source.label)).layers}
    records = source.checkpoint.weights.records
    arrays = [Array(name, record.shape, record.dtype.name) for name, record in records.items()]
    owners = {names.split(name)[0]: kind for name, kind in classes_of(source).items()}
    text = source.checkpoint.model
    config = limits.parsed(text, f"{source.label}: its model") if text else {}
    return {item.name: item.classes[0] for item in of_config(config, arrays, owners).layers}


_KERAS = (".keras", ".weights.h5")
_TORCH = (".pt", ".pth")
_READ_ONLY = (".h5", ".hdf5", ".bin", ".index", ".json")
# Suffixes of other tools' models and arrays, which cannot be the name of a run.
_NOT_WRITTEN = (
    *_READ_ONLY,
    *(".onnx", ".tflite", ".pb", ".pbtxt", ".ckpt", ".gguf", ".ggml"),
    *(".npz", ".npy", ".pkl", ".pickle", ".joblib", ".msgpack", ".mlmodel", ".mlpackage", ".engine", ".plan", ".zip"),
    *(".tar", ".gz", ".csv", ".txt", ".yaml", ".yml", ".png", ".safetensor", ".pt2", ".torchscript", ".orbax"),
)


def _refuse_foreign(path: Path) -> None:
    if is_foreign(str(path)):
        raise NoCheckpointError(
            f"{path}: this command writes a {SUFFIX} file or a run; `ckpt convert` writes other formats"
        )


def classes_of(source: WeightSource) -> dict[str, str]:
    """Return the class of the layer of each variable, as far as `source` has them."""
    if source.checkpoint is None:
        return {}
    records = source.checkpoint.weights.records
    return {name: record.layer_class for name, record in records.items() if record.layer_class}


def _snapshot(
    source: WeightSource,
    weights: Mapping[str, np.ndarray],
    optimizer: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    edit: Mapping[str, Any],
    classes: Mapping[str, str] | None,
) -> store.Snapshot:
    content = source.checkpoint.manifest if source.checkpoint else None
    about = dict(content.about) if content else {}
    edits = about.get("edits", [])
    about["edits"] = [*(edits if isinstance(edits, list) else []), {**edit, "from": source.label}]
    return store.Snapshot(
        step=source.step,
        epoch=content.epoch if content else 0,
        position=content.position if content else 0,
        weights=weights,
        optimizer=optimizer,
        state=state,
        metrics=content.metrics if content else {},
        model=source.checkpoint.model if source.checkpoint else "",
        config=source.checkpoint.config if source.checkpoint else "",
        about=about,
        classes=classes_of(source) if classes is None else classes,
    )


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise NoCheckpointError(f"{path} exists, and nothing is overwritten. Choose another path, or move it away.")


# Prefixes in a training state of what belongs to a variable: seeds/<its name>, and apart/<its name>@replica1 for what
# differs between replicas.
_OF_VARIABLES = ("seeds/", "apart/")


def rename(arguments: argparse.Namespace) -> int:
    """Write a copy of a checkpoint with the names changed by rules: weights, optimizer slots and seeds together."""
    rules = parse_rules(arguments.rules)
    with open_source(arguments.source) as source:
        refuse_existing(arguments.target, source)
        owners = {
            name: name.partition("/")[2].partition("@")[0] for name in source.state if name.startswith(_OF_VARIABLES)
        }
        known = [*source.weights, *source.optimizer, *owners.values()]
        done = apply_rules(list(dict.fromkeys(known)), rules)
        kept = {name: name for name in source.state if name not in owners}
        moved = {name: _of(name, owner, done.names[owner]) for name, owner in owners.items() if owner in done.names}
        classes = {done.names[name]: kind for name, kind in classes_of(source).items() if name in done.names}
        written = write(
            arguments.target,
            source,
            weights=_under(source.weights, done.names),
            optimizer=_under(source.optimizer, done.names),
            state={new: source.state[old] for old, new in (kept | moved).items()},
            edit={"command": "rename", "rules": [rule.text for rule in rules]},
            classes=classes,
        )
    changed = {old: done.names.get(old) for old in done.rules}
    return _report(arguments, written, {"renamed": changed}, f"{len(changed)} names changed")


def _of(name: str, old: str, new: str) -> str:
    """Return the new name of what belongs to a variable that is renamed."""
    group, _, rest = name.partition("/")
    return f"{group}/{new}{rest.removeprefix(old)}"


def extract(arguments: argparse.Namespace) -> int:
    """Write some layers, with their slots, to a new file or run."""
    with open_source(arguments.source) as source:
        refuse_existing(arguments.target, source)
        chosen = named.select(source.weights, arguments.patterns)
        slots, _ = named.partition(source.optimizer, lambda name: name.partition("@")[0] in chosen)
        written = write(
            arguments.target,
            source,
            weights=chosen,
            optimizer=slots,
            state={},
            edit={"command": "extract", "patterns": arguments.patterns},
        )
    return _report(arguments, written, {"names": list(chosen)}, f"{len(chosen)} variables")


def convert(arguments: argparse.Namespace) -> int:
    """Write the weights of a checkpoint or of any file in another format, or as a run."""
    with open_source(arguments.source) as source:
        refuse_existing(arguments.target, source, foreign=True)
        if is_foreign(arguments.target):
            written = write_foreign(arguments.target, source, modules=_modules(arguments.rules))
        else:
            _refuse_rules(arguments)
            written = write(
                arguments.target,
                source,
                weights=source.weights,
                optimizer=source.optimizer,
                state=source.state,
                edit={"command": "convert"},
            )
        count = len(source.weights)
    return _report(arguments, written, {"names": count}, f"{count} variables")


def combine(arguments: argparse.Namespace) -> int:
    """Merge several sets of weights: their average, a point between two, or a base plus what others have learned."""
    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(text)) for text in arguments.sources]
        base = stack.enter_context(open_source(arguments.base)) if arguments.base else None
        first = base or sources[0]
        refuse_existing(arguments.target, first)
        merged, how = _merged(arguments, sources, base)
        written = write(
            arguments.target,
            first,
            weights=merged,
            optimizer={},
            state={},
            edit={"command": "merge", **how, "sources": [source.label for source in sources]},
        )
    return _report(arguments, written, {"names": len(merged)}, f"{len(merged)} variables of {len(sources)} sources")


def _merged(
    arguments: argparse.Namespace, sources: Sequence[WeightSource], base: WeightSource | None
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    arrays: list[Weights] = [source.weights for source in sources]
    if base is not None:
        scales = arguments.scales or [1.0] * len(arrays)
        return merge.task_arithmetic(base.weights, arrays, scales), {"base": base.label, "scales": scales}
    if arguments.position is not None:
        if len(arrays) != 2:
            raise merge.MergeError(f"--position is between exactly two sources; received {len(arrays)}.")
        return merge.interpolate(arrays[0], arrays[1], arguments.position), {"position": arguments.position}
    return merge.average(arrays, arguments.scales), {"shares": arguments.scales or "equal"}


def _modules(rules: Sequence[str]) -> dict[str, str]:
    """Return `{PyTorch module: layer}` of rules MODULE=LAYER."""
    return {rule.old: rule.new for rule in parse_rules(rules)}


def _refuse_rules(arguments: argparse.Namespace) -> None:
    if arguments.rules:
        raise RuleError("MODULE=LAYER is for a .pt target; `ckpt rename` renames")


def _under(arrays: Weights, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {names[old]: array for old, array in arrays.items() if old in names}


def _report(arguments: argparse.Namespace, written: Path, about: dict[str, object], text: str) -> int:
    if arguments.json:
        console.as_json({"written": str(written), **about})
    else:
        console.line(f"{written}: {text}")
    return 0


def prune(arguments: argparse.Namespace) -> int:
    """Delete checkpoints of a run that is not being trained; never the newest good one or one that a pointer names."""
    if url_of(arguments.path):
        raise StoreError(f"{arguments.path}: a run prunes its copy in a store while it trains; checkpoint.keep_last=N")
    directory = location.find_directory(arguments.path)
    run = directory.parent if directory.name == location.CHECKPOINTS else directory
    rule = {name: getattr(arguments, name) for name in ("last", "best", "metric", "mode", "every")}
    rule |= {"thorough": True, "partial": True}
    if arguments.dry_run:
        paths = store.to_delete(directory, **rule)
        return _report_deleted(arguments, store.Deleted(tuple(paths), {}), "would be deleted")
    with store.RunLock(run):
        return _report_deleted(arguments, store.keep(directory, **rule), "deleted")


def push(arguments: argparse.Namespace) -> int:
    """Send the store of a run what it lacks; for a run whose end could not wait for it."""
    count = push_run(Path(arguments.path), console.line)
    if arguments.json:
        console.as_json({"path": arguments.path, "checkpoints": count})
    else:
        console.line(
            f"{arguments.path}: the store has everything: {count} checkpoint{'s' * (count != 1)}, and the logs"
        )
    return 0


def _report_deleted(arguments: argparse.Namespace, deleted: store.Deleted, what: str) -> int:
    if arguments.json:
        failed = {str(path): str(error) for path, error in deleted.failed.items()}
        console.as_json({"deleted": [str(path) for path in deleted.removed], "failed": failed, "what": what})
    else:
        for path in deleted.removed:
            console.line(f"{path}: {what}")
        for error in deleted.failed.values():
            console.line(str(error))
        if not deleted.removed and not deleted.failed:
            console.line("Nothing to delete.")
    return int(bool(deleted.failed))
