"""The names and flags that no configuration of Keras holds, beside it in a `.keras` file: written, read, restored."""

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
from nameplate.graph.copy_state import Told, held, take
from nameplate.graph.tree import walk
from nameplate.naming import names

Flags = tuple[bool | None, list[bool]]  # whether a layer trains, None for what has no such flag; and its variables


@dataclass(frozen=True)
class Stored:
    """What a file of ours says of each layer, the model first, in the order of the walk; empty in a file of Keras'."""

    names: tuple[Told, ...] = ()
    trainable: tuple[Flags, ...] = ()  # empty in older files


def add_names(model: keras.Model, path: Path) -> None:
    """Write what `names_and_config` reads: of the model and its tree the own name, path, variables' paths and flags.

    A class that makes its layers itself makes them trainable, whatever `trainable` they were given afterwards.
    """
    layers = [model, *(entry.layer for entry in walk(model))]
    told = [
        [str(each.name), getattr(each, "path", None), [variable.path for variable in held(each)]] for each in layers
    ]
    flags = [
        [getattr(each, "trainable", None), [bool(variable.trainable) for variable in held(each)]] for each in layers
    ]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAMES, json.dumps({"version": 1, "names": told, "trainable": flags}))


def names_and_config(path: Path) -> tuple[Stored, Mapping[str, Any]]:
    """Return what a file of ours says of each layer, and the configuration.

    Raises:
        FileFormatError: when it is no `.keras` file, is refused, or says what `add_names` does not write.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        if NAMES not in archive.namelist():
            return Stored(), config
        stored = read_config(archive, path, NAMES)
    found: Any = stored.get("names")
    flags: Any = stored.get("trainable", [])
    lists = isinstance(found, list) and isinstance(flags, list)
    if not (lists and all(map(_is_told, found)) and all(map(_are_flags, flags))):
        raise FileFormatError(f"{path}: {NAMES} is not what `save` writes")
    named = tuple((own, where, paths) for own, where, paths in found)
    return Stored(named, tuple((own, variables) for own, variables in flags)), config


def take_names(model: keras.Model, wanted: Stored, path: Path) -> None:
    """Give a loaded model the names, paths and flags that it had when it was saved.

    Raises:
        FileFormatError: when they are for another model.
    """
    layers = [model, *(entry.layer for entry in walk(model))]
    if not wanted.names:
        return
    if [len(paths) for _, _, paths in wanted.names] != [len(held(layer)) for layer in layers]:
        raise FileFormatError(f"{path} has names for {len(wanted.names) - 1} layers that are not those built from it")
    if wanted.trainable and [len(flags) for _, flags in wanted.trainable] != [len(held(layer)) for layer in layers]:
        raise FileFormatError(f"{path} has flags for other layers than those built from it")
    take(layers, list(wanted.names))
    _take_flags(layers, wanted.trainable)


def _take_flags(layers: list[Any], wanted: tuple[Flags, ...]) -> None:
    """Set what differs, containers first: Keras hands a container's flag down to all that it contains."""
    for layer, (flag, _) in zip(layers, wanted, strict=False):
        if flag is not None and getattr(layer, "trainable", flag) != flag:
            layer.trainable = flag
    for layer, (_, flags) in zip(layers, wanted, strict=False):
        for variable, flag in zip(held(layer), flags, strict=True):
            if variable.trainable != flag:
                variable.trainable = flag


def _are_flags(told: Any) -> bool:
    if not (isinstance(told, list) and len(told) == 2 and isinstance(told[1], list)):
        return False
    return isinstance(told[0], bool | None) and all(isinstance(flag, bool) for flag in told[1])


def _is_told(each: Any) -> bool:
    if not (isinstance(each, list) and len(each) == 3 and isinstance(each[2], list)):
        return False
    own, where, paths = each
    parts = [part for text in [where or "x", *paths] if isinstance(text, str) for part in text.split("/")]
    texts = all(isinstance(text, str) for text in [own, *paths]) and isinstance(where, str | None)
    return texts and not names.fault(own) and not any(names.fault(part.lstrip("_")) for part in parts)
