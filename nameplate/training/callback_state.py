"""What Keras callbacks remember from epoch to epoch, as plain data and arrays, so that a resume finds it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nameplate.errors import NameplateError

_NOT_MEMORY = ("model", "params", "_model")
_OPERATION = "keras.ops"  # how a comparison is remembered that a callback chose at its first epoch
Plain = dict[str, list[str]]  # attribute -> [type, text]; text, because JSON has no infinity


class CallbackState:
    """The attributes of callbacks that have changed since they were made.

    What has not changed is a setting: after a resume it is what this process was configured with.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self._callbacks = {f"{place}_{type(each).__name__}": each for place, each in enumerate(callbacks)}
        self._first = {key: _plain(callback) for key, callback in self._callbacks.items()}

    def remember(self) -> tuple[dict[str, Plain], dict[str, np.ndarray]]:
        """Return numbers, words and arrays among the attributes of each callback, by its place and class."""
        plain: dict[str, Plain] = {}
        arrays: dict[str, np.ndarray] = {}
        for key, callback in self._callbacks.items():
            first = self._first[key]
            plain[key] = {name: each for name, each in _plain(callback).items() if first.get(name) != each}
            for name, value in vars(callback).items():
                if _is_arrays(value):
                    arrays |= {f"callbacks/{key}/{name}/{i}": np.asarray(each) for i, each in enumerate(value)}
        return plain, arrays

    def recall(self, plain: Mapping[str, Plain], arrays: Mapping[str, np.ndarray]) -> None:
        """Set the attributes as they were when remembered; a callback that is new keeps its own."""
        for key, callback in self._callbacks.items():
            if key not in plain:
                continue
            found = {name: _decode(encoded) for name, encoded in (self._first[key] | plain[key]).items()}
            for name, value in (found | _listed(arrays, f"callbacks/{key}/")).items():
                if _is_remembered(name):
                    setattr(callback, name, value)


def _plain(callback: keras.callbacks.Callback) -> Plain:
    encoded = {name: _encode(value) for name, value in vars(callback).items() if name not in _NOT_MEMORY}
    return {name: each for name, each in encoded.items() if each}


def _is_remembered(name: str) -> bool:
    """Say whether `remember` could have written an attribute of this name."""
    return name.isidentifier() and not name.startswith("__") and name not in _NOT_MEMORY


def _listed(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, list[np.ndarray]]:
    """Return lists of arrays by attribute, from arrays by attribute and place."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for path, array in arrays.items():
        if path.startswith(prefix):
            name, _, index = path.removeprefix(prefix).rpartition("/")
            found.setdefault(name, {})[int(index)] = np.asarray(array)
    return {name: [each[index] for index in sorted(each)] for name, each in found.items()}


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, np.ndarray) for each in value)


def _encode(value: Any) -> list[str]:
    """Return the type and text of a plain value, empty of any other."""
    if isinstance(value, np.number):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return [type(value).__name__, repr(value) if isinstance(value, float) else str(value)]
    name = getattr(value, "__name__", "")
    return [_OPERATION, name] if name and getattr(keras.ops, name, None) is value else []


def _decode(encoded: Sequence[str]) -> Any:
    kind, text = encoded
    match kind:
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "bool":
            return text == "True"
        case "NoneType":
            return None
        case "keras.ops":
            found = getattr(keras.ops, text, None)
            if _encode(found) != [kind, text]:  # an operation, and not what a module has beside them
                raise NameplateError(f"a callback's memory names {text!r:.80}, which is not an operation of Keras")
            return found
    return text
