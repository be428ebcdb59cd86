"""The user's own classes and functions in a model: found in the live model, never registered."""

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


_PROBE = "nameplate_probe"
_EVERY_LAYER = ("name", "trainable", "dtype")


def uncarried(entries: Sequence[Entry]) -> list[Violation]:
    """Return a violation for each layer whose class loses a name between `get_config` and `from_config`.

    One round trip a class, none for classes of Keras; a class that cannot be rebuilt at all is not judged
    here, since only an edit needs that (see `nameplate.graph.clone`).
    """
    faults: dict[type, str] = {}
    found = []
    for entry in entries:
        kind = type(entry.layer)
        if kind.__module__.partition(".")[0] == "keras" or not isinstance(entry.layer, keras.Layer):
            continue
        if isinstance(entry.layer, keras_private.Functional | keras.Sequential):  # a configuration of layers, not code
            continue
        if kind not in faults:
            faults[kind] = _fault(entry.layer)
        if faults[kind]:
            found.append(Violation(entry.name, "carried", faults[kind], ""))
    return found


def carries(layer: Any, name: str) -> Any:
    """Return a layer made from this one's configuration under another name; the caller compares its name.

    A configuration without `name` is taken as it is. A constructor that takes nothing of what every layer has
    (`name`, `trainable`, `dtype`) is called without it, which Keras does not do when it loads a file. Whatever the
    class raises passes through.
    """
    with warnings.catch_warnings():  # of a lambda, which is passed on as it is
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        config = layer.get_config()
    config |= {key: function for key, function in live_lambdas(layer).items() if key in config}
    if "name" in config:
        config["name"] = name
    taken = inspect.signature(type(layer).__init__).parameters.values()
    if not any(each.kind is each.VAR_KEYWORD for each in taken):
        known = {each.name for each in taken}
        config = {key: value for key, value in config.items() if key in known or key not in _EVERY_LAYER}
    return type(layer).from_config(config)


def live_lambdas(layer: Any) -> dict[str, Any]:
    """Return `{attribute: function}` for the Python lambdas of a layer: they need not go through their bytes."""
    return {
        key: value for key, value in vars(layer).items() if inspect.isfunction(value) and value.__name__ == "<lambda>"
    }


def advice(layer: Any, error: Exception | None = None) -> str:
    """Return the line that a class must have so that its layers carry a name and can be rebuilt."""
    kind = type(layer)
    if kind.__module__.partition(".")[0] == "keras":
        return "what was given to it has no configuration"
    if isinstance(error, NotImplementedError):  # Keras makes configurations of numbers and texts only
        return (
            f"add to {kind.__name__}: def get_config(self): return {{**super().get_config(), ...}} "
            "with its constructor's arguments"
        )
    parameters = inspect.signature(kind.__init__).parameters.values()
    # Keras looks for the very word `kwargs` where it makes the configuration itself (`Operation.get_config`); a class
    # with its own may call them anything.
    own_config = kind.get_config is not keras.layers.Layer.get_config
    words = [each.name for each in parameters if each.kind is each.VAR_KEYWORD]
    if words and words != ["kwargs"] and not own_config:
        return (
            f"call **{words[0]} of {kind.__name__}.__init__ **kwargs, the word that Keras looks for: "
            "def __init__(self, ..., **kwargs): super().__init__(**kwargs)"
        )
    takes_name = any(
        each.name == "name" or (each.kind is each.VAR_KEYWORD and (own_config or each.name == "kwargs"))
        for each in parameters
    )
    if not takes_name:
        return (
            f"add to {kind.__name__}: def __init__(self, ..., **kwargs): super().__init__(**kwargs), "
            "so that it takes a name"
        )
    if own_config:
        return f"add to {kind.__name__}.get_config: return {{**super().get_config(), ...}}, which has the name"
    return f"call super().__init__(**kwargs) in {kind.__name__}.__init__ with the name it was given"


def _fault(layer: Any) -> str:
    """Return what is wrong with the class of a layer, empty when it carries names or cannot be tried."""
    with keras_private.undisturbed(), keras_private.live_code():
        try:
            copy = carries(layer, _PROBE)
        except Exception:  # whatever a user's class raises: it cannot be tried
            return ""
    if copy.name != _PROBE:
        return f"its class drops the name; {advice(layer)}"
    refused = _refused_by_constructor(layer)
    if not refused:
        return ""
    kind = type(layer).__name__
    return (
        f"a file with it cannot be loaded: {kind}.__init__ does not take {', '.join(refused)}, which Keras gives it; "
        f"add **kwargs to {kind}.__init__ and hand them on: super().__init__(**kwargs)"
    )


def _refused_by_constructor(layer: Any) -> list[str]:
    """Return what Keras gives every layer that it loads, and this one's constructor does not take."""
    kind = type(layer)
    if (
        kind.from_config.__func__ is not keras.layers.Layer.from_config.__func__
    ):  # it makes of its configuration what it
        return []  # likes
    taken = inspect.signature(kind.__init__).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in taken):
        return []
    known = {each.name for each in taken}
    config = layer.get_config()
    return [key for key in _EVERY_LAYER if key in config and key not in known]
