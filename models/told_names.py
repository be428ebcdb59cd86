"""The names that no configuration of Keras holds, beside it in a `.keras` file: written, read, given back."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from models import names
from models.formats import archive as archives
from models.formats.errors import FileFormatError
from models.formats.keras_file import NAMES, read_config
from models.settling import Told, held, take
from models.tree import walk


def add_names(model: keras.Model, path: Path) -> None:
    """Write what `names_and_config` reads: for the model and its tree the own name, path and variables' paths."""
    told = [
        [str(layer.name), getattr(layer, "path", None), [variable.path for variable in held(layer)]]
        for layer in [model, *(entry.layer for entry in walk(model))]
    ]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAMES, json.dumps({"version": 1, "names": told}))


def names_and_config(path: Path) -> tuple[list[Told], Mapping[str, Any]]:
    """Return what a file of ours says of each layer, the model first, in the order of the walk; and the configuration.

    Raises:
        FileFormatError: when it is no `.keras` file, is refused, or says what `add_names` does not write.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        if NAMES not in archive.namelist():
            return [], config
        found = read_config(archive, path, NAMES).get("names")
    if not isinstance(found, list) or not all(_is_told(each) for each in found):
        raise FileFormatError(f"{path}: {NAMES} is not what `save` writes")
    return [(own, where, paths) for own, where, paths in found], config


def take_names(model: keras.Model, wanted: list[Told], path: Path) -> None:
    """Give a loaded model the names and paths that it had when it was saved.

    Raises:
        FileFormatError: when they are for another model.
    """
    layers = [model, *(entry.layer for entry in walk(model))]
    if not wanted:
        return
    if [len(paths) for _, _, paths in wanted] != [len(held(layer)) for layer in layers]:
        raise FileFormatError(f"{path} has names for {len(wanted) - 1} layers that are not those built from it")
    take(layers, wanted)


def _is_told(each: Any) -> bool:
    if not (isinstance(each, list) and len(each) == 3 and isinstance(each[2], list)):
        return False
    own, where, paths = each
    parts = [part for text in [where or "x", *paths] if isinstance(text, str) for part in text.split("/")]
    texts = all(isinstance(text, str) for text in [own, *paths]) and isinstance(where, str | None)
    return texts and not names.fault(own) and not any(names.fault(part.lstrip("_")) for part in parts)
