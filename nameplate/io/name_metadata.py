"""Names and flags that a Keras configuration lacks, kept in the `.keras` file as a member of ours.

A class that creates its own layers gives them its own names and makes them all trainable, whatever was set later.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive as archives
from nameplate.formats.keras_file import NAMES, read_config
from nameplate.graph.copy_state import Names, held, set_names
from nameplate.graph.tree import walk
from nameplate.naming import names

Flags = tuple[bool | None, list[bool]]  # `trainable` of a layer, None for an operator; and of its own variables


@dataclass(frozen=True)
class NameMetadata:
    """What a file of ours says of each layer, the model first, in the order of the walk; empty for a file of Keras'."""

    names: tuple[Names, ...] = ()
    trainable: tuple[Flags, ...] = ()  # empty in older files


def add_names(model: keras.Model, path: Path) -> None:
    """Add to a `.keras` file the names, paths and flags of the model and its tree, for `names_and_config`."""
    layers = [model, *(entry.layer for entry in walk(model))]
    layer_names = [
        [str(layer.name), getattr(layer, "path", None), [variable.path for variable in held(layer)]] for layer in layers
    ]
    flags = [
        [getattr(layer, "trainable", None), [bool(variable.trainable) for variable in held(layer)]] for layer in layers
    ]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAMES, json.dumps({"version": 1, "names": layer_names, "trainable": flags}))


def names_and_config(path: Path) -> tuple[NameMetadata, Mapping[str, Any]]:
    """Return what a file of ours says of each layer, and the configuration of the model.

    Raises:
        FileFormatError: if it is not a `.keras` file, is refused, or has names that `add_names` does not write.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        if NAMES not in archive.namelist():
            return NameMetadata(), config
        stored = read_config(archive, path, NAMES)
    layer_names: Any = stored.get("names")
    flags: Any = stored.get("trainable", [])
    lists = isinstance(layer_names, list) and isinstance(flags, list)
    if not (lists and all(map(_are_names, layer_names)) and all(map(_are_flags, flags))):
        raise FileFormatError(f"{path}: {NAMES} is not what `save` writes")
    named = tuple((own, where, paths) for own, where, paths in layer_names)
    return NameMetadata(named, tuple((own, variables) for own, variables in flags)), config


def restore_names(model: keras.Model, wanted: NameMetadata, path: Path) -> None:
    """Give a loaded model the names, paths and flags that it had when it was saved.

    Raises:
        FileFormatError: if they are of another model.
    """
    layers = [model, *(entry.layer for entry in walk(model))]
    if not wanted.names:
        return
    if [len(paths) for _, _, paths in wanted.names] != [len(held(layer)) for layer in layers]:
        raise FileFormatError(f"{path} has names for {len(wanted.names) - 1} layers, which are not those built from it")
    if wanted.trainable and [len(flags) for _, flags in wanted.trainable] != [len(held(layer)) for layer in layers]:
        raise FileFormatError(f"{path} has flags for other layers than those built from it")
    set_names(layers, list(wanted.names))
    _restore_flags(layers, wanted.trainable)


def _restore_flags(layers: list[Any], wanted: tuple[Flags, ...]) -> None:
    """Set the flags that differ, containers first: Keras passes a container's flag down to all its contents."""
    for layer, (flag, _) in zip(layers, wanted, strict=False):
        if flag is not None and getattr(layer, "trainable", flag) != flag:
            layer.trainable = flag
    for layer, (_, flags) in zip(layers, wanted, strict=False):
        for variable, flag in zip(held(layer), flags, strict=True):
            if variable.trainable != flag:
                variable.trainable = flag


def _are_flags(item: Any) -> bool:
    if not (isinstance(item, list) and len(item) == 2 and isinstance(item[1], list)):
        return False
    return isinstance(item[0], bool | None) and all(isinstance(flag, bool) for flag in item[1])


def _are_names(item: Any) -> bool:
    if not (isinstance(item, list) and len(item) == 3 and isinstance(item[2], list)):
        return False
    own, where, paths = item
    parts = [part for text in [where or "x", *paths] if isinstance(text, str) for part in text.split("/")]
    texts = all(isinstance(text, str) for text in [own, *paths]) and isinstance(where, str | None)
    return texts and not names.fault(own) and not any(names.fault(part.lstrip("_")) for part in parts)
