"""Constructor arguments that a configuration leaves out: recovered from what Keras keeps, or from the layer itself.

A class whose `get_config` forgets an argument, and every subclassed model without one (Keras fills in the defaults),
would be made again with default arguments. Recovered is what can be known: what Keras keeps of the call, and else what
the layer keeps under the argument's own name, where making it again shows that it is the same.
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

_EVERY_LAYER = ("name", "trainable", "dtype")  # what every layer takes, and its configuration has
_GRAPH = ("inputs", "outputs")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
MISSING: Any = object()
_EMPTY = types.CellType()  # of a name that was not bound yet


@contextlib.contextmanager
def completed(layers: Iterable[Any]) -> Iterator[None]:
    """Let the configuration of each of these layers have the arguments that its class leaves out, inside the scope."""
    before: list[tuple[Any, Any]] = []
    try:
        for layer in layers:
            if is_custom(type(layer)) and (found := recovered(layer)):
                before.append((layer, vars(layer).get("get_config")))  # a frozen model has a guarded one
                vars(layer)["get_config"] = _completed(layer.get_config, found)
        yield
    finally:
        for layer, get_config in reversed(before):
            if get_config is None:
                del vars(layer)["get_config"]
            else:
                vars(layer)["get_config"] = get_config


def recovered(layer: Any) -> dict[str, Any]:
    """Return the constructor's arguments that a layer was made with and its configuration does not give."""
    kind = type(layer)
    wanted = parameters(kind) if is_custom(kind) and isinstance(layer, keras.Layer) else {}
    if not wanted:
        return {}
    config = _config(layer)
    if config is None:
        return {}
    kept = keras_private.recorded_arguments(layer)
    from_keras = keras_private.has_default_config(layer)  # of a class without one of its own
    certain, likely = {}, {}
    for key, parameter in wanted.items():
        if key in config and not from_keras:
            continue
        usual, held = config.get(key, parameter.default), attribute(layer, key)
        if key not in config and key in kept and not same(kept[key], usual):
            certain[key] = kept[key]
        if key in vars(layer) and held is not MISSING and not same(held, certain.get(key, usual)):
            likely[key] = plain(held)
    return certain | _confirmed(layer, config, certain, likely)


def graph_arguments(model: Any) -> dict[str, Any]:
    """Return what the class of a functional model takes beside its inputs and outputs, as this one was made."""
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
    given = {key: config[key] for key in wanted if key in config}
    return given | _confirmed(model, {}, {}, likely)


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a constructor, without what every layer has and a graph is made of."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = list(inspect.signature(kind.__init__).parameters.items())[1:]  # type: ignore[misc]
    return {key: each for key, each in found if each.kind in named and key not in (*_EVERY_LAYER, *_GRAPH)}


def attribute(layer: Any, key: str) -> Any:
    """Return what a layer keeps under a name, or under it with an underscore; MISSING for no value and no function."""
    for name in (key, f"_{key}"):
        if name in vars(layer) and name not in keras_private.internal_attributes():
            return vars(layer)[name] if is_value(vars(layer)[name]) else MISSING
    return MISSING


def is_custom(kind: type) -> bool:
    """Tell whether a class is not Keras' own."""
    return kind.__module__.partition(".")[0] != "keras"


def is_value(value: Any) -> bool:
    """Tell whether a value is plain data or a function, which a copy may have without sharing anything that changes."""
    if isinstance(value, (*_PLAIN, np.ndarray, np.generic)) or inspect.isfunction(value):
        return True
    if isinstance(value, Mapping):
        return all(is_value(each) for pair in value.items() for each in pair)
    return isinstance(value, list | tuple | set | frozenset) and all(map(is_value, value))


def plain(value: Any) -> Any:
    """Return a value that shares nothing with it; Keras' tracked lists and dictionaries become Python's own."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(plain, value))
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(plain, value))
    return value.copy() if isinstance(value, np.ndarray) else value


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same data or function; a list is what a tuple of its values is."""
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
    """Return what a function has from where it was made, and its defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    return [*cells, *(function.__defaults__ or ()), function.__kwdefaults__]


def _same_if_plain(one: Any, other: Any) -> bool:
    return not is_value(one) or not is_value(other) or same(one, other)


def _config(layer: Any) -> dict[str, Any] | None:
    """Return the configuration that the class of a layer gives, None where it gives none; a graph's own is left out."""
    if type(layer).get_config is keras_private.Functional.get_config and keras_private.rebuilds_from_tensors(layer):
        return {}
    try:
        return dict(type(layer).get_config(layer))
    except Exception:  # whatever a class raises; who needs the configuration hears of it
        return None


def _confirmed(
    layer: Any, config: Mapping[str, Any], certain: Mapping[str, Any], likely: Mapping[str, Any]
) -> dict[str, Any]:
    """Return those of the likely arguments that a layer made with them keeps as this one does."""
    if not likely:
        return {}
    kind = type(layer)
    arguments = {**config, **certain, **likely}
    known = {each.name for each in inspect.signature(kind.__init__).parameters.values()}  # type: ignore[misc]
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
                fresh = kind.from_config({key: each for key, each in arguments.items() if key in known})
            else:
                fresh = kind.from_config(arguments)
        except Exception:  # whatever a class raises: it takes them otherwise
            return {}
    return {key: value for key, value in likely.items() if same(attribute(fresh, key), attribute(layer, key))}


def _completed(get_config: Any, found: Mapping[str, Any]) -> Any:
    """Return a layer's `get_config` that gives these arguments too."""

    @functools.wraps(get_config)  # Keras looks at a mark on it
    def call() -> dict[str, Any]:
        return {**get_config(), **{key: plain(value) for key, value in found.items()}}

    return call
