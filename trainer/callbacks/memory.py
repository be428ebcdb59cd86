"""What Keras callbacks remember from epoch to epoch, as plain data and arrays, so that a resume finds it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

_NOT_MEMORY = ("model", "params", "_model")
Plain = dict[str, list[str]]  # attribute -> [type, text]; text, because JSON has no infinity


def remember(callbacks: Sequence[keras.callbacks.Callback]) -> tuple[dict[str, Plain], dict[str, np.ndarray]]:
    """Return the numbers, words and arrays among the attributes of each callback, by its place and class."""
    plain: dict[str, Plain] = {}
    arrays: dict[str, np.ndarray] = {}
    for key, callback in _keyed(callbacks).items():
        plain[key] = {}
        for name, value in _attributes(callback).items():
            if value is None or isinstance(value, bool | int | float | str | np.number):
                plain[key][name] = _encode(value)
            elif _is_arrays(value):
                arrays |= {f"callbacks/{key}/{name}/{i}": np.asarray(each) for i, each in enumerate(value)}
    return plain, arrays


def recall(
    callbacks: Sequence[keras.callbacks.Callback], plain: Mapping[str, Plain], arrays: Mapping[str, np.ndarray]
) -> None:
    """Set the attributes of each callback as they were when remembered; a callback that is new keeps its own."""
    for key, callback in _keyed(callbacks).items():
        for name, encoded in plain.get(key, {}).items():
            setattr(callback, name, _decode(encoded))
        listed: dict[str, dict[int, np.ndarray]] = {}
        for path, array in arrays.items():
            if path.startswith(f"callbacks/{key}/"):
                name, _, index = path.removeprefix(f"callbacks/{key}/").rpartition("/")
                listed.setdefault(name, {})[int(index)] = np.asarray(array)
        for name, found in listed.items():
            setattr(callback, name, [found[index] for index in sorted(found)])


def _keyed(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, keras.callbacks.Callback]:
    return {f"{place}_{type(callback).__name__}": callback for place, callback in enumerate(callbacks)}


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    return {name: value for name, value in vars(callback).items() if name not in _NOT_MEMORY}


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, np.ndarray) for each in value)


def _encode(value: Any) -> list[str]:
    if isinstance(value, np.number):
        value = value.item()
    return [type(value).__name__, repr(value) if isinstance(value, float) else str(value)]


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
    return text
