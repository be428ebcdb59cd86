"""A model out of a configuration that someone else wrote: looked at as data first, then built in Keras' safe mode."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import keras

from nameplate import checkpoint as store
from nameplate.checkpoint import dtypes
from nameplate.checkpoint.layout import MANIFEST
from nameplate.errors import FileFormatError, cause
from nameplate.formats import keras_config, limits
from nameplate.formats.keras_config import modernized
from nameplate.formats.keras_weights import legacy_config
from nameplate.formats.limits import Budget
from nameplate.graph import keras_private

_SHOWN = 10
_ALL = 'Its names and weights need neither: nameplate.load(path, only=["*"]).'


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

    missing = keras_config.strangers(config, known=known)
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
            keras_private.scopes_kept(),
            keras_private.deep_graphs(_count(config)),
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


_MODULES = {"Functional": "keras.src.models.functional", "Sequential": "keras"}


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
