"""A model from any file that has one, with its names; from a file of weights, the weights by name.

A configuration from elsewhere is checked as data before Keras builds it in safe mode.
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
from nameplate.arguments import checked
from nameplate.checkpoint import dtypes
from nameplate.checkpoint.layout import MANIFEST
from nameplate.checkpoint.location import require_choice
from nameplate.errors import FileFormatError, as_names, as_path, cause
from nameplate.formats import keras_config, limits
from nameplate.formats.keras_config import modernized
from nameplate.formats.keras_file import write_copy
from nameplate.formats.keras_weights import legacy_config
from nameplate.formats.limits import Budget
from nameplate.formats.registry import checkpoint_of, open_weights
from nameplate.graph import keras_private
from nameplate.graph import rename as renaming
from nameplate.graph.global_state import deep_graphs
from nameplate.graph.rename import To
from nameplate.graph.tree import walk
from nameplate.io.load_weights import load_weights
from nameplate.io.lora_files import restore_adapters
from nameplate.io.name_metadata import names_and_config, restore_names
from nameplate.naming import names
from nameplate.naming.rules import apply_rules, parse_rules
from nameplate.weights.named import any_matches, require_matches

_SHOWN = 10  # what a refusal lists
_ALL = 'Its names and weights need neither: nameplate.load(path, only=["*"]).'
# Where Keras 3 has the classes whose names alone stand in a file of Keras 2.
_MODULES = {"Functional": keras_private.Functional.__module__, "Sequential": "keras"}


@checked
def load(
    path: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    rename: To | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
    which: str | int = "best",
) -> Any:
    """Return the uncompiled model in a file, with the names it was saved with; from a file of weights, a dictionary.

    A `.keras` file, an `.h5` file with a configuration (also of Keras 2), a run and a checkpoint of ours contain a
    model. A configuration that would run, import or open anything is refused unless `trust`. Even then Keras' safe mode
    rejects Python code until the caller calls `keras.config.enable_unsafe_deserialization()`. Reading names and weights
    needs no trust.

    Proved: that each array of the file has a place in the model, and each variable a value. Not proved: that
    classes of the user's compute what they did when the file was saved.

    Args:
        path: a file or directory in any format that `nameplate.formats.open_weights` reads.
        only: return `{name: array}` of these alone, and build nothing: variables, layers, containers, shell patterns
            over whole names (`["*"]` is all).
        rename: for a model as in `nameplate.rename`; for weights `{old: new}` or rules like `OLD=NEW`.
        custom_objects: `{name: class or function}` for everything that is not Keras' own.
        trust: whether to build a configuration that could do what the refusal lists.
        which: of a run: its `best` checkpoint (the newest where nothing was measured), its `latest`, or that of a step.

    Raises:
        FileFormatError: if the file cannot be read, or needs custom objects or trust.
        StoreError: if a run has no such checkpoint, or no good one; a damaged one that is skipped is a warning.
        WeightsError: if a pattern of `only` matches nothing.
    """
    only = None if only is None else as_names(only, "only")
    require_choice(which)
    source = checkpoint_of(as_path(path), which)
    with keras_private.undisturbed():
        model = None if only is not None else _model(source, custom_objects or {}, trust=trust)
    if model is None:
        return _weights(source, only, rename or ())
    _reserve(model)
    return model if rename is None else renaming.rename(model, rename)


def loaded(path: Path, source: Path, objects: Mapping[str, Any]) -> keras.Model:
    """Return the model in a `.keras` file that we wrote ourselves, loaded in safe mode; messages name `source`.

    Raises:
        FileFormatError: if Keras cannot load it.
    """
    try:
        with warnings.catch_warnings(), keras_private.name_scopes_restored():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(path, custom_objects=dict(objects), compile=False, safe_mode=True)
    except FileFormatError:
        raise
    except Exception as error:  # Keras and the user's classes may raise anything
        raise unbuildable(source, error) from None


def _model(source: Path, objects: Mapping[str, Any], *, trust: bool) -> keras.Model | None:
    """Return the model in a file; None if it has only weights."""
    if source.name.endswith(".keras"):
        wanted, config = names_and_config(source)
        vet(config, source, objects, trust=trust)
        with deep_graphs(len(wanted.names)), tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
            write_copy(source, Path(folder) / "copy.keras")
            with within_budget(source):
                model = loaded(Path(folder) / "copy.keras", source, objects)
        restore_names(model, wanted, source)
        restore_adapters(model, source)
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
        chosen = [name for name in origins if only is None or any_matches(name, only)]
        return {name: arrays[origins[name]] for name in chosen}


def _reserve(model: keras.Model) -> None:
    """Advance Keras' counters of automatic names past those of a loaded model, so that new layers get others."""
    counts = keras_private.automatic_counts()
    for layer in [model, *(entry.layer for entry in walk(model))]:
        word = names.snake(type(layer).__name__)
        if names.is_automatic(str(layer.name), type(layer).__name__):
            number = str(layer.name).removeprefix(word).removeprefix("_")
            counts[word] = max(counts.get(word, 0), int(number) + 1 if number.isdigit() else 1)


# ---- a configuration, checked and built -------------------------------------------------------------------------


def vet(config: Mapping[str, Any], path: Path, objects: Mapping[str, Any], *, trust: bool) -> None:
    """Refuse a configuration with unknown classes or, without trust, with anything that runs code or opens files.

    Args:
        config: the model's configuration, as data.
        path: the file it is from, for the message.
        objects: the caller's own classes and functions by name.
        trust: whether the configuration may do such things.

    Raises:
        FileFormatError: with all of them, and what to pass.
    """

    def known(name: str) -> bool:
        return name in objects or keras.saving.get_registered_object(name) is not None

    missing = keras_config.unknown_classes(config, known=known)
    if missing:
        items = ", ".join(f"{name!r}: {name}" for name in missing)
        raise FileFormatError(
            f"{path} has {len(missing)} classes or functions that are not Keras' own: {', '.join(missing)}. "
            f"Pass custom_objects={{{items}}}. {_ALL}"
        )
    dangers = [] if trust else keras_config.dangers(config, known=known)
    if dangers:
        more = [f"  ... and {len(dangers) - _SHOWN} more"] if len(dangers) > _SHOWN else []
        lines = [
            f"{path} is not built, since its configuration could run code or open files:",
            *(f"  {danger}" for danger in dangers[:_SHOWN]),
            *more,
            f"Pass trust=True only if you would run its author's code. {_ALL}",
        ]
        raise FileFormatError("\n".join(lines))


def stored_config(path: Path) -> Mapping[str, Any] | None:
    """Return the configuration in an `.h5` file or in a checkpoint of ours; None if there are only weights.

    Raises:
        FileFormatError: if the file is refused, or its configuration is not a JSON object.
    """
    if path.is_dir() and (path / MANIFEST).is_file():
        with store.open(path) as checkpoint:
            text = checkpoint.model
        config = limits.parsed(text, f"{path}: its model") if text else None
        return config if isinstance(config, Mapping) else None
    if path.is_file() and path.suffix in (".h5", ".hdf5") and not path.name.endswith(".weights.h5"):
        return legacy_config(path)
    return None


def within_budget(path: Path) -> AbstractContextManager[None]:
    """Return a context in which building a model fails if its weights are out of proportion to the file `path`.

    A configuration of a few bytes can ask for a layer of any size. Inside the context a weight that exceeds what the
    file or checkpoint could hold raises `FileFormatError` before it is allocated.
    """
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    stored = sum(file.stat().st_size for file in files)
    return _weights_within(Budget(f"the model of {path}", stored, seconds=math.inf).spend)  # building may be slow


def built(config: Mapping[str, Any], path: Path, objects: Mapping[str, Any]) -> keras.Model:
    """Return the model of a configuration of Keras 2 or 3, with newly initialized weights.

    Raises:
        FileFormatError: if Keras cannot build it, or its weights would be out of proportion to the file at `path`.
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
    except Exception as error:  # Keras and the user's classes may raise anything
        raise unbuildable(path, error) from None


class UnbuildableError(FileFormatError):
    """A model that Keras could not build; `cause` is the innermost reason, without Keras' text around it."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def unbuildable(path: Path, error: Exception) -> UnbuildableError:
    """Return the error for what Keras raised while it built a model."""
    reason = cause(error)
    unknown = any(word in reason.lower() for word in ("could not locate", "could not deserialize class", "unknown"))
    advice = "Pass custom_objects={name: class} for classes of your own. " if unknown else ""
    if any(word in reason.lower() for word in ("lambda", "safe_mode", "safe mode", "unsafe")):
        advice = (
            "Pass trust=True only if you would run its author's code; Keras' safe mode still rejects Python lambdas "
            "until you call keras.config.enable_unsafe_deserialization(). "
        )
    if "unexpected keyword argument" in reason:
        advice = "The class takes other arguments than those in the file. "
    return UnbuildableError(f"{path} cannot be loaded: {reason} {advice}{_ALL}", reason)


def _count(config: Mapping[str, Any]) -> int:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, Mapping) else None
    return len(layers) if isinstance(layers, list) else 0


@contextmanager
def _weights_within(spend: Callable[[int], None]) -> Iterator[None]:
    """Call `spend` with the size in bytes of each weight before it is created (`Layer.add_weight`).

    An exception of `spend` ends the building. `keras.layers.Layer` itself is patched inside the context.
    """
    own = keras.layers.Layer.add_weight

    @functools.wraps(own)
    def add_weight(self: Any, *arguments: Any, shape: Any = None, dtype: Any = None, **keywords: Any) -> Any:
        wanted = shape if shape is not None else next(iter(arguments), None)
        sizes = [wanted] if isinstance(wanted, int) else wanted or ()
        if all(isinstance(size, int) and size >= 0 for size in sizes):  # Keras refuses any others itself
            numbers = dtypes.of_name(keras.backend.standardize_dtype(dtype or self.variable_dtype))
            spend(math.prod(sizes) * (numbers.itemsize if numbers is not None else 1))
        return own(self, *arguments, shape=shape, dtype=dtype, **keywords)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = own
