"""Constructor arguments that a configuration omits, recovered from what Keras recorded or from the layer itself.

A class whose `get_config` omits an argument, and every subclassed model without a `get_config` (Keras fills in the
defaults), would be recreated with default arguments. An argument is recovered from Keras' record of the constructor
call, or else from the attribute of the same name, if a layer created with that value has the same attribute.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from nameplate.graph import keras_private
from nameplate.graph.serializable import custom_objects

_EVERY_LAYER = ("name", "trainable", "dtype")  # arguments of every layer, which every configuration has
_GRAPH = ("inputs", "outputs")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
MISSING: Any = object()
_EMPTY = types.CellType()  # the cell of a name that is not bound yet


@contextlib.contextmanager
def completed(layers: Iterable[Any]) -> Iterator[None]:
    """Within the context, add to the configurations of these layers the arguments that their classes omit."""
    before: list[tuple[Any, Any]] = []
    try:
        for layer in layers:
            if is_custom(type(layer)) and (arguments := recovered(layer)):
                before.append((layer, vars(layer).get("get_config")))  # a frozen model has its own
                vars(layer)["get_config"] = _completed(layer.get_config, arguments)
        yield
    finally:
        for layer, get_config in reversed(before):
            if get_config is None:
                del vars(layer)["get_config"]
            else:
                vars(layer)["get_config"] = get_config


def recovered(layer: Any) -> dict[str, Any]:
    """Return the arguments that a layer was created with and that its configuration omits."""
    kind = type(layer)
    wanted = parameters(kind) if is_custom(kind) and isinstance(layer, keras.Layer) else {}
    if not wanted:
        return {}
    config = _config(layer)
    if config is None:
        return {}
    recorded = keras_private.recorded_arguments(layer)
    from_keras = keras_private.has_default_config(layer)  # the class has no `get_config` of its own
    certain, likely = {}, {}
    for key, parameter in wanted.items():
        if key in config and not from_keras:
            continue
        default, held = config.get(key, parameter.default), attribute(layer, key)
        if key not in config and key in recorded and not same(recorded[key], default):
            certain[key] = recorded[key]
        if key in vars(layer) and held is not MISSING and not same(held, certain.get(key, default)):
            likely[key] = plain(held)
    return certain | _confirmed(layer, config, certain, likely)


def graph_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments besides inputs and outputs that the class of a functional model was called with."""
    kind = type(model)
    wanted = parameters(kind) if is_custom(kind) else {}
    if not wanted:
        return {}
    config = _config(model) or {}
    held = {key: attribute(model, key) for key in wanted}
    likely = {
        key: plain(value)
        for key, value in held.items()
        if value is not MISSING and not same(value, wanted[key].default)
    }
    configured = {key: config[key] for key in wanted if key in config}
    return configured | _confirmed(model, {}, {}, likely)


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a constructor, without those of every layer and the tensors of a graph."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    _, *taken = inspect.signature(kind.__init__).parameters.items()  # type: ignore[misc]
    return {key: value for key, value in taken if value.kind in named and key not in (*_EVERY_LAYER, *_GRAPH)}


def attribute(layer: Any, key: str) -> Any:
    """Return the attribute of this name, or of it with an underscore; MISSING if it is not plain data or a function."""
    for name in (key, f"_{key}"):
        if name in vars(layer) and name not in keras_private.internal_attributes():
            return vars(layer)[name] if is_value(vars(layer)[name]) else MISSING
    return MISSING


def is_custom(kind: type) -> bool:
    """Return whether a class is not Keras' own."""
    return kind.__module__.partition(".")[0] != "keras"


def is_value(value: Any) -> bool:
    """Return whether a value is plain data or a function, so that a copy can have it without sharing mutable state."""
    if isinstance(value, (*_PLAIN, np.ndarray, np.generic)) or inspect.isfunction(value):
        return True
    if isinstance(value, Mapping):
        return all(is_value(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple | set | frozenset) and all(map(is_value, value))


def plain(value: Any) -> Any:
    """Return a deep copy of plain data, in which Keras' tracked lists and dictionaries become Python's own."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(plain, value))
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(plain, value))
    return value.copy() if isinstance(value, np.ndarray) else value


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same data or function; a list equals a tuple of the same values."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if inspect.isfunction(one) and inspect.isfunction(other):
        return one.__code__ == other.__code__ and all(map(_same_if_plain, _captured(one), _captured(other)))
    if isinstance(one, _PLAIN) and isinstance(other, _PLAIN):
        return bool(one == other) or (one != one and other != other)  # NaN
    return type(one) is type(other) and bool(one == other)


def _captured(function: Any) -> list[Any]:
    """Return what a function captured where it was defined, and its defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    return [*cells, *(function.__defaults__ or ()), function.__kwdefaults__]


def _same_if_plain(one: Any, other: Any) -> bool:
    return not is_value(one) or not is_value(other) or same(one, other)


def _config(layer: Any) -> dict[str, Any] | None:
    """Return what the class's own `get_config` returns; None if it fails, nothing for the configuration of a graph."""
    if type(layer).get_config is keras_private.Functional.get_config and keras_private.rebuilds_from_tensors(layer):
        return {}
    try:
        return dict(type(layer).get_config(layer))
    except Exception:  # a class may raise anything; whoever needs the configuration reports it
        return None


def _confirmed(
    layer: Any, config: Mapping[str, Any], certain: Mapping[str, Any], likely: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the likely arguments that a layer created with them keeps in the same attribute."""
    if not likely:
        return {}
    kind = type(layer)
    arguments = {**config, **certain, **likely}
    known = set(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]
    with (
        keras_private.undisturbed(),
        keras_private.probing(),
        keras_private.live_code(),
        keras.saving.custom_object_scope(custom_objects([layer])),
    ):
        try:
            if isinstance(layer, keras_private.Functional) and keras_private.rebuilds_from_tensors(layer):
                image = keras.Input((1,), name="image")
                fresh = kind(image, keras.layers.Identity(name="same")(image), **certain, **likely)
            elif "kwargs" not in known:
                fresh = kind.from_config({key: value for key, value in arguments.items() if key in known})
            else:
                fresh = kind.from_config(arguments)
        except Exception:  # a class may raise anything: then these are not its arguments
            return {}
    return {key: value for key, value in likely.items() if same(attribute(fresh, key), attribute(layer, key))}


def _completed(get_config: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a `get_config` that adds these arguments."""

    @functools.wraps(get_config)  # Keras reads an attribute of it
    def call() -> dict[str, Any]:
        return {**get_config(), **{key: plain(value) for key, value in arguments.items()}}

    return call
