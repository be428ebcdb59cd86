"""The user's own classes and functions in a model: found in the live model, never registered."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import keras

_LIBRARIES = frozenset(["keras", "tensorflow", "numpy", "builtins", "functools", "collections"])


def custom_objects(layers: Iterable[Any]) -> dict[str, Any]:
    """Return `{name: class or function}` for all that is not Keras' own among these layers and their attributes.

    It is meant for `keras.saving.custom_object_scope`, so that a configuration made from a live model can
    be read in the same process, with nothing registered for others.
    """
    found: dict[str, Any] = {}
    for layer in layers:
        for value in [type(layer), *vars(layer).values()]:
            thing = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
            if thing.__module__.partition(".")[0] in _LIBRARIES:
                continue
            if inspect.isfunction(thing) or hasattr(thing, "get_config"):
                found.setdefault(thing.__name__, thing)
                found.setdefault(keras.saving.get_registered_name(thing), thing)
    return found


def shared_by_code(function: Any) -> list[str]:
    """Return the names of layers and variables that a Python function reaches outside its arguments."""
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    cells = getattr(function, "__closure__", None) or ()
    captured = dict(zip(code.co_freevars, (_content(cell) for cell in cells), strict=False))
    read = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    held = {**read, **captured}
    return sorted(name for name, value in held.items() if isinstance(value, keras.Layer | keras.Variable))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
