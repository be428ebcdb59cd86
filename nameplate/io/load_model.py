"""A model from any file that has one, with its names; of a file of weights, these by name.

A configuration that someone else wrote is checked as data before Keras builds it in its safe mode.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate import checkpoint as store
from nameplate.checkpoint import dtypes
from nameplate.checkpoint.layout import MANIFEST
from nameplate.errors import FileFormatError, cause
from nameplate.formats import keras_config, limits
from nameplate.formats.keras_config import modernized
from nameplate.formats.keras_file import write_copy
from nameplate.formats.keras_weights import legacy_config
from nameplate.formats.limits import Budget
from nameplate.formats.registry import open_weights
from nameplate.graph import keras_private
from nameplate.graph import rename as renaming
from nameplate.graph.global_state import deep_graphs
from nameplate.graph.rename import To
from nameplate.graph.tree import walk
from nameplate.io.load_weights import load_weights
from nameplate.io.lora_files import take_adapters
from nameplate.io.name_metadata import names_and_config, take_names
from nameplate.naming import names
from nameplate.naming.rules import apply_rules, parse_rules
from nameplate.weights.named import matches, require_matches

_SHOWN = 10  # what a refusal lists
_ALL = 'Its names and weights need neither: nameplate.load(path, only=["*"]).'
# Where Keras 3 has the classes whose names alone stand in a file of Keras 2.
_MODULES = {"Functional": keras_private.Functional.__module__, "Sequential": "keras"}


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
        with warnings.catch_warnings(), keras_private.name_scopes_restored():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(path, custom_objects=dict(objects), compile=False, safe_mode=True)
    except FileFormatError:
        raise
    except Exception as error:  # whatever Keras and the classes of a user raise
        raise unbuildable(source, error) from None


def _model(source: Path, objects: Mapping[str, Any], *, trust: bool) -> keras.Model | None:
    """Return the model of a file that has one."""
    if source.name.endswith(".keras"):
        wanted, config = names_and_config(source)
        vet(config, source, objects, trust=trust)
        with deep_graphs(len(wanted.names)), tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
            write_copy(source, Path(folder) / "copy.keras")
            with within_budget(source):
                model = loaded(Path(folder) / "copy.keras", source, objects)
        take_names(model, wanted, source)
        take_adapters(model, source)
        return model
    stored = stored_config(source)
    if stored is None:
        return None
    vet(stored, source, objects, trust=trust)
    model = built(stored, source, objects)
    load_weights(model, source)
    return model


def _weights(source: Path, only: Sequence[str] | None, rename: Any) -> dict[str, np.ndarray]:
    with open_weights(source) as arrays:
        mapped = apply_rules(list(arrays), parse_rules(rename)).names
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


# ---- a configuration, checked and built -------------------------------------------------------------------------


def vet(config: Mapping[str, Any], path: Path, objects: Mapping[str, Any], *, trust: bool) -> None:
    """Raise `FileFormatError` for classes that nobody gave, and, without trust, for what would run, import or open.

    Args:
        config: the model's configuration, as data.
        path: where it is from, for the message.
        objects: the caller's own classes and functions by name.
        trust: whether the configuration may do such things.
    """

    def known(name: str) -> bool:
        return name in objects or keras.saving.get_registered_object(name) is not None

    missing = keras_config.unknown_classes(config, known=known)
    if missing:
        given = ", ".join(f"{name!r}: {name}" for name in missing)
        raise FileFormatError(
            f"{path} has {len(missing)} classes or functions that are not Keras' own: {', '.join(missing)}. "
            f"Pass custom_objects={{{given}}}. {_ALL}"
        )
    dangers = [] if trust else keras_config.dangers(config, known=known)
    if dangers:
        more = [f"  ... and {len(dangers) - _SHOWN} more"] if len(dangers) > _SHOWN else []
        lines = [
            f"{path} is not built, since its configuration could run code or open files:",
            *(f"  {each}" for each in dangers[:_SHOWN]),
            *more,
            f"Pass trust=True only when you would run its author's code. {_ALL}",
        ]
        raise FileFormatError("\n".join(lines))


def stored_config(path: Path) -> Mapping[str, Any] | None:
    """Return the configuration in an `.h5` file or in a checkpoint of ours, None where there is only weights.

    Raises:
        FileFormatError: when the file is refused, or its configuration is no JSON object.
    """
    if path.is_dir() and (path / MANIFEST).is_file():
        with store.open(path) as checkpoint:
            text = checkpoint.model
        found = limits.parsed(text, f"{path}: its model") if text else None
        return found if isinstance(found, Mapping) else None
    if path.is_file() and path.suffix in (".h5", ".hdf5") and not path.name.endswith(".weights.h5"):
        return legacy_config(path)
    return None


def within_budget(path: Path) -> AbstractContextManager[None]:
    """Return a context in which a model may be built whose weights are in proportion to the file or checkpoint `path`.

    A configuration of a few bytes can ask for a layer of any size. Inside, a weight beyond what may come out of the
    file raises `FileFormatError` before it is made.
    """
    files = [each for each in path.iterdir() if each.is_file()] if path.is_dir() else [path]
    stored = sum(file.stat().st_size for file in files)
    return _weights_within(Budget(f"the model of {path}", stored, seconds=math.inf).spend)  # building takes its time


def built(config: Mapping[str, Any], path: Path, objects: Mapping[str, Any]) -> keras.Model:
    """Return the model of a configuration of Keras 2 or 3, with new weights.

    Raises:
        FileFormatError: when Keras cannot build it, or its weights would be out of proportion to the file at `path`.
    """
    config = keras_config.uncompiled(config)
    if "module" not in config:  # as Keras 2 wrote it
        config = modernized(config)
        class_name = config.get("class_name")
        module = _MODULES.get(str(class_name))
        config |= {"module": module, "registered_name": None if module else class_name}
    try:
        with (
            warnings.catch_warnings(),
            keras_private.name_scopes_restored(),
            deep_graphs(_count(config)),
            within_budget(path),
            keras.saving.custom_object_scope(dict(objects)),
        ):
            warnings.simplefilter("ignore")
            return keras.saving.deserialize_keras_object(config, custom_objects=dict(objects), safe_mode=True)
    except FileFormatError:
        raise
    except Exception as error:  # whatever Keras and the classes of a user raise
        raise unbuildable(path, error) from None


class UnbuildableError(FileFormatError):
    """A model that Keras could not build; `cause` is what it said at the bottom, without what stands around it."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def unbuildable(path: Path, error: Exception) -> UnbuildableError:
    """Return the answer to what Keras raised while it built a model."""
    reason = cause(error)
    unknown = any(word in reason.lower() for word in ("could not locate", "could not deserialize class", "unknown"))
    advice = "Pass custom_objects={name: class} for classes of your own. " if unknown else ""
    if any(word in reason.lower() for word in ("lambda", "safe_mode", "safe mode", "unsafe")):
        advice = (
            "Pass trust=True only when you would run its author's code, of which Keras' safe mode still keeps Python "
            "lambdas out until you call keras.config.enable_unsafe_deserialization(). "
        )
    if "unexpected keyword argument" in reason:
        advice = "The class that is here takes other arguments than those in the file. "
    return UnbuildableError(f"{path} cannot be loaded: {reason} {advice}{_ALL}", reason)


def _count(config: Mapping[str, Any]) -> int:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, Mapping) else None
    return len(layers) if isinstance(layers, list) else 0


@contextmanager
def _weights_within(spend: Callable[[int], None]) -> Iterator[None]:
    """Tell `spend` how many bytes each weight of a layer will have, before it is made (`Layer.add_weight`).

    What it raises ends the building. For the time of one model's building: the class itself is changed.
    """
    own = keras.layers.Layer.add_weight

    @functools.wraps(own)
    def add_weight(self: Any, *arguments: Any, shape: Any = None, dtype: Any = None, **keywords: Any) -> Any:
        given = shape if shape is not None else next(iter(arguments), None)
        sizes = [given] if isinstance(given, int) else given or ()
        if all(isinstance(size, int) and size >= 0 for size in sizes):  # others Keras refuses itself
            numbers = dtypes.of_name(keras.backend.standardize_dtype(dtype or self.variable_dtype))
            spend(math.prod(sizes) * (numbers.itemsize if numbers is not None else 1))
        return own(self, *arguments, shape=shape, dtype=dtype, **keywords)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = own
