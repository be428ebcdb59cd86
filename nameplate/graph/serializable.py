"""The user's own classes in a model: what Keras needs to recreate them, and whether they keep their names.

They are collected from the live model; nothing is registered for the whole process.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from nameplate.graph import keras_private
from nameplate.graph.tree import Entry
from nameplate.naming.policy import Violation

_LIBRARIES = frozenset(["keras", "tensorflow", "numpy", "builtins", "functools", "collections"])
_PROBE = "nameplate_probe"
_EVERY_LAYER = ("name", "trainable", "dtype")


def custom_objects(layers: Iterable[Any]) -> dict[str, Any]:
    """Return `{name: class or function}` for everything custom among these layers and their attributes.

    In `keras.saving.custom_object_scope` it lets Keras read a configuration of the live model in the same process.
    """
    objects: dict[str, Any] = {}
    for layer in layers:
        for value in [type(layer), *vars(layer).values()]:
            thing = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
            if thing.__module__.partition(".")[0] in _LIBRARIES:
                continue
            if inspect.isfunction(thing) or hasattr(thing, "get_config"):
                objects.setdefault(thing.__name__, thing)
                objects.setdefault(keras.saving.get_registered_name(thing), thing)
    return objects


def shared_by_code(function: Any) -> list[str]:
    """Return the names of layers and variables that a Python function uses besides its arguments."""
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
    except ValueError:  # an empty cell
        return None


def lost_names(entries: Sequence[Entry]) -> list[Violation]:
    """Return a violation for each layer whose class loses its name between `get_config` and `from_config`.

    Makes one round trip a class, none for Keras' own. A class that cannot be rebuilt at all is not reported: only
    edits require that (see `nameplate.graph.clone`).
    """
    faults: dict[type, str] = {}
    violations = []
    for entry in entries:
        kind = type(entry.layer)
        if kind.__module__.partition(".")[0] == "keras" or not isinstance(entry.layer, keras.Layer):
            continue
        if isinstance(entry.layer, keras_private.Functional | keras.Sequential):  # their configuration is made by Keras
            continue
        if kind not in faults:
            faults[kind] = _fault(entry.layer)
        if faults[kind]:
            violations.append(Violation(entry.name, "carried", faults[kind], ""))
    return violations


def recreated(layer: Any, name: str) -> Any:
    """Return a layer made from this one's configuration under another name; the caller compares its name.

    A configuration without `name` is used as it is. A constructor that does not take the arguments of every layer
    (`name`, `trainable`, `dtype`) is called without them, which Keras would not do when it loads a file. Exceptions of
    the class are not caught.
    """
    with warnings.catch_warnings():  # about a lambda, which is passed on as a function
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        config = layer.get_config()
    config |= {key: function for key, function in live_lambdas(layer).items() if key in config}
    if "name" in config:
        config["name"] = name
    parameters = inspect.signature(type(layer).__init__).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known = set(parameters)
        config = {key: value for key, value in config.items() if key in known or key not in _EVERY_LAYER}
    return type(layer).from_config(config)


def live_lambdas(layer: Any) -> dict[str, Any]:
    """Return `{attribute: function}` for the Python lambdas of a layer, which need not be serialized."""
    return {
        key: value for key, value in vars(layer).items() if inspect.isfunction(value) and value.__name__ == "<lambda>"
    }


def advice(layer: Any, error: Exception | None = None) -> str:
    """Return the line to add to a class so that its layers keep their names and can be rebuilt."""
    kind = type(layer)
    if kind.__module__.partition(".")[0] == "keras":
        return "one of its arguments has no configuration"
    if isinstance(error, NotImplementedError):  # Keras derives configurations of plain data only
        return (
            f"add to {kind.__name__}: def get_config(self): return {{**super().get_config(), ...}} "
            "with the constructor's arguments"
        )
    parameters = inspect.signature(kind.__init__).parameters.values()
    # Where Keras derives the configuration it looks for a parameter called `kwargs` (`Operation.get_config`); a class
    # with its own `get_config` may call it anything.
    own_config = kind.get_config is not keras.layers.Layer.get_config
    words = [parameter.name for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD]
    if words and words != ["kwargs"] and not own_config:
        return (
            f"rename **{words[0]} of {kind.__name__}.__init__ to **kwargs, which Keras looks for: "
            "def __init__(self, ..., **kwargs): super().__init__(**kwargs)"
        )
    takes_name = any(
        parameter.name == "name"
        or (parameter.kind is parameter.VAR_KEYWORD and (own_config or parameter.name == "kwargs"))
        for parameter in parameters
    )
    if not takes_name:
        return (
            f"add to {kind.__name__}: def __init__(self, ..., **kwargs): super().__init__(**kwargs), "
            "so that it takes a name"
        )
    if own_config:
        return f"add to {kind.__name__}.get_config: return {{**super().get_config(), ...}}, which includes the name"
    return f"call super().__init__(**kwargs) in {kind.__name__}.__init__ with the name that it receives"


def _fault(layer: Any) -> str:
    """Return what is wrong with the class of a layer; empty if it keeps names or cannot be rebuilt."""
    with keras_private.undisturbed(), keras_private.live_code():
        try:
            copy = recreated(layer, _PROBE)
        except Exception:  # a class of the user's may raise anything: it cannot be rebuilt
            return ""
    if copy.name != _PROBE:
        return f"its class drops the name; {advice(layer)}"
    refused = _refused_by_constructor(layer)
    if not refused:
        return ""
    kind = type(layer).__name__
    return (
        f"a file with it cannot be loaded: {kind}.__init__ does not take {', '.join(refused)}, which Keras passes; "
        f"add **kwargs to {kind}.__init__ and pass them on: super().__init__(**kwargs)"
    )


def _refused_by_constructor(layer: Any) -> list[str]:
    """Return the arguments that Keras passes to every layer it loads and that this constructor does not take."""
    kind = type(layer)
    if kind.from_config.__func__ is not keras.layers.Layer.from_config.__func__:
        return []  # it may drop them itself
    parameters = inspect.signature(kind.__init__).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    config = layer.get_config()
    return [key for key in _EVERY_LAYER if key in config and key not in parameters]
