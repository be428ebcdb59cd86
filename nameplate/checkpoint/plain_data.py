"""Plain data as JSON text and back, exactly, within size limits.

JSON has neither infinities nor NaN, but the best value so far starts as one: such a float becomes `{"$float": "inf"}`.
Reading refuses duplicate keys, text that is not ASCII, and, before it is built, anything that would take far more
memory than a manifest needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from nameplate.checkpoint.errors import DamagedError, StoreError

LARGEST_TEXT = 16 << 20  # bytes
MOST_OBJECTS = 160_000  # lists and dictionaries
MOST_VALUES = 800_000

_FLOAT = "$float"
_DEEPEST = 64


def encode(value: Any) -> str:
    """Return plain data as one line of ASCII JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def plain(value: Any, *, where: str, depth: int = 0) -> Any:
    """Return `value` as JSON can hold it. Raises `StoreError` for the first part that would not come back equal."""
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if depth == _DEEPEST:
        raise StoreError(f"{where} is nested deeper than {_DEEPEST} levels.")
    if isinstance(value, list | tuple):
        return [plain(item, where=f"{where}[{index}]", depth=depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str) or key.startswith("$")]:
            raise StoreError(f"{where} has the key {bad[0]!r:.80}; keys are strings that do not begin with '$'.")
        return {key: plain(item, where=f"{where}.{key}", depth=depth + 1) for key, item in value.items()}
    raise StoreError(
        f"{where} is of type {type(value).__name__}; a manifest holds str, int, float, bool, None, lists and "
        "dictionaries. Convert it, for example with float() or .tolist()."
    )


def decode(data: bytes) -> Any:
    """Return the plain data that `encode` wrote. Raises `DamagedError` for anything else."""
    if len(data) > LARGEST_TEXT:
        raise DamagedError(f"it has {len(data)} bytes; at most {LARGEST_TEXT} are read")
    if not data.isascii():
        raise DamagedError("it is not ASCII")
    if data.count(b"{") + data.count(b"[") > MOST_OBJECTS or data.count(b",") > MOST_VALUES:
        raise DamagedError(f"it has more than {MOST_OBJECTS} objects or {MOST_VALUES} values")
    try:
        return json.loads(data.decode("ascii"), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"it is not the JSON of a manifest ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> Any:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key appears twice")
    return _special_float(fields) if _FLOAT in fields else fields


def _special_float(fields: dict[str, Any]) -> float:
    text = fields[_FLOAT]
    if len(fields) != 1 or text not in ("inf", "-inf", "nan"):
        raise ValueError(f"{_FLOAT} must be inf, -inf or nan")
    return float(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
