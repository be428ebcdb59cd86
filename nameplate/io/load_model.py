"""Any model file: the model in it, with its names, or its weights by name."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.errors import FileFormatError
from nameplate.formats.keras_file import write_copy
from nameplate.formats.registry import open_weights
from nameplate.graph import keras_private
from nameplate.graph import rename as renaming
from nameplate.graph.rename import To
from nameplate.graph.tree import walk
from nameplate.io import deserialize
from nameplate.io.load_weights import load_weights, name_rules
from nameplate.io.lora_files import take_adapters
from nameplate.io.name_metadata import names_and_config, take_names
from nameplate.naming import mapping, names
from nameplate.weights.named import matches, require_matches


def load(
    path: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    rename: To | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Any:
    """Return the uncompiled model in a file, with the names it was saved with; of a file of weights, these by name.

    A `.keras` file, an `.h5` file with a configuration, of Keras 2 too, and a checkpoint of ours give a model. Nothing
    that a configuration would run, import or open is built unless `trust`; even then Keras' safe mode keeps Python code
    out, until the caller ends it by `keras.config.enable_unsafe_deserialization()`. Names and weights need no trust.

    Proved: that each array of the file has a place in the model, and each variable a value. Not proved: that
    classes of the user's compute what they did when the file was saved.

    Args:
        path: a file or directory that `nameplate.formats.open_weights` knows.
        only: return `{name: array}` of these alone, without building anything: variables, layers, containers, shell
            patterns over whole names (`["*"]` is all).
        rename: for a model as `nameplate.rename`; for weights `{old: new}` or rules as `OLD=NEW`.
        custom_objects: `{name: class or function}` for what is not Keras' own.
        trust: whether a configuration may do what is listed when it is refused.

    Raises:
        FileFormatError: when the file cannot be read, or needs custom objects or trust that it did not get.
        WeightsError: for a pattern of `only` that matches nothing.
    """
    source = Path(path)
    with keras_private.undisturbed():
        model = None if only is not None else _model(source, custom_objects or {}, trust=trust)
    if model is None:
        return _weights(source, only, rename or ())
    _reserve(model)
    return model if rename is None else renaming.rename(model, rename)


def loaded(path: Path, source: Path, objects: Mapping[str, Any]) -> keras.Model:
    """Return the model in a `.keras` file that is ours to the last byte, in safe mode; messages call it `source`.

    Raises:
        FileFormatError: when Keras cannot load it.
    """
    try:
        with warnings.catch_warnings(), keras_private.scopes_kept():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(path, custom_objects=dict(objects), compile=False, safe_mode=True)
    except FileFormatError:
        raise
    except Exception as error:  # whatever Keras and the classes of a user raise
        raise deserialize.unbuildable(source, error) from None


def _model(source: Path, objects: Mapping[str, Any], *, trust: bool) -> keras.Model | None:
    """Return the model of a file that has one."""
    if source.name.endswith(".keras"):
        wanted, config = names_and_config(source)
        deserialize.vet(config, source, objects, trust=trust)
        with keras_private.deep_graphs(len(wanted.names)), tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
            write_copy(source, Path(folder) / "copy.keras")
            with deserialize.within_budget(source):
                model = loaded(Path(folder) / "copy.keras", source, objects)
        take_names(model, wanted, source)
        take_adapters(model, source)
        return model
    stored = deserialize.stored_config(source)
    if stored is None:
        return None
    deserialize.vet(stored, source, objects, trust=trust)
    model = deserialize.built(stored, source, objects)
    load_weights(model, source)
    return model


def _weights(source: Path, only: Sequence[str] | None, rename: Any) -> dict[str, np.ndarray]:
    with open_weights(source) as arrays:
        mapped = mapping.apply(list(arrays), name_rules(rename)).names
        origins = {new: old for old, new in mapped.items()}
        if only is not None:
            require_matches(origins, only)
        chosen = [name for name in origins if only is None or any(matches(name, pattern) for pattern in only)]
        return {name: arrays[origins[name]] for name in chosen}


def _reserve(model: keras.Model) -> None:
    """Count the automatic names of a loaded model as taken, so that new layers get others."""
    counts = keras_private.automatic_counts()
    for layer in [model, *(entry.layer for entry in walk(model))]:
        word = names.snake(type(layer).__name__)
        if names.is_automatic(str(layer.name), type(layer).__name__):
            number = str(layer.name).removeprefix(word).removeprefix("_")
            counts[word] = max(counts.get(word, 0), int(number) + 1 if number.isdigit() else 1)
