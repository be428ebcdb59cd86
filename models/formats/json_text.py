"""JSON that someone else wrote, within bounds: what would take far more memory or stack than a model is not built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.formats.errors import FileFormatError

LARGEST = 64 << 20  # characters; a layer takes some 1500
_MOST_OBJECTS = 250_000  # lists and dictionaries; a layer has some 20
_MOST_VALUES = 1_000_000
_DEEPEST = 200  # levels; a model in a model takes three


def parsed(text: str | bytes, label: str, *, largest: int = LARGEST) -> Any:
    """Return the data of a JSON text; `label` is how messages call it.

    Raises:
        FileFormatError: it is no JSON, has a key twice, or is larger or deeper than the description of any model.
    """
    size = len(text)
    if size > largest:
        raise FileFormatError(f"{label} has {size} bytes; at most {largest} are read")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _measure(decoded)
        found = json.loads(decoded, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{label} cannot be read as JSON ({error})") from None
    if _depth(found) > _DEEPEST:
        raise FileFormatError(f"{label} is nested deeper than {_DEEPEST} levels; no model is")
    return found


def read(path: Path) -> Any:
    """Return the data of a JSON file.

    Raises:
        FileFormatError: as `parsed`.
        OSError: when it cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise FileFormatError(f"{path} has {size} bytes; at most {LARGEST} are read")
    return parsed(path.read_bytes(), str(path))


def _measure(text: str) -> None:
    if text.count("{") + text.count("[") > _MOST_OBJECTS or text.count(",") > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_OBJECTS} objects or {_MOST_VALUES} values")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _depth(found: Any) -> int:
    """Return how many levels of lists and dictionaries there are, counted up to one more than is read."""
    level, depth = [found], 0
    while level and depth <= _DEEPEST:
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [child for children in inner for child in children]
        depth += bool(inner)
    return depth
