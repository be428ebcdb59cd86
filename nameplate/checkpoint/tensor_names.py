"""The names that a tensor may have on disk: strings only.

A file may come from anyone, so names are checked on reading as on writing: nothing that could leave a directory, hide
in a terminal or keep a reader from opening the file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from nameplate.checkpoint.errors import StoreError

LONGEST_COMPONENT = 200  # bytes
LONGEST_KEY = 2048  # bytes

_COMPONENT = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_KEY = re.compile(rf"{_COMPONENT}(?:[/@]{_COMPONENT})*\Z")
_RESERVED = "__metadata__"
_SHOWN = 20


def fault(key: str) -> str | None:
    """Return what is wrong with `key` as the name of a tensor in a checkpoint, or None."""
    if key == _RESERVED:
        return "is reserved by the safetensors format"
    if len(key) > LONGEST_KEY:
        return f"is {len(key)} bytes long; at most {LONGEST_KEY}"
    if not _KEY.match(key):
        return "has characters other than letters, digits, '_', '.', '-' between '/' and '@', or an empty part"
    longest = max(len(part) for part in re.split("[/@]", key))
    if longest > LONGEST_COMPONENT:
        return f"has a part of {longest} bytes; at most {LONGEST_COMPONENT}"
    return None


def foreign_fault(key: str) -> str | None:
    """Return what is wrong with `key` in a file from elsewhere, or None: more is allowed, as long as it is harmless."""
    if key == _RESERVED:
        return "is reserved by the safetensors format"
    if not key or len(key) > LONGEST_KEY:
        return f"is {len(key)} characters long; 1 to {LONGEST_KEY} are allowed"
    plain = key.isascii() and key.isprintable()  # nearly all are, and the check is fast
    if not plain and any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for letter in key):
        return "has control characters, direction marks or unpaired surrogates"
    if key.startswith("/") or "\\" in key or any(part in {"", ".", ".."} for part in key.split("/")):
        return "looks like a path that leaves its directory"
    return None


def require(keys: Iterable[str], *, where: str) -> None:
    """Raise `StoreError` with every key that may not be stored."""
    faults = [f"  {key!r:.120} {message}" for key in keys if (message := fault(key))]
    if faults:
        more = [f"  ... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        lines = "\n".join([*sorted(faults)[:_SHOWN], *more])
        raise StoreError(f"{len(faults)} names cannot be stored in {where}:\n{lines}\nRename them before saving.")


def role(key: str) -> str:
    """Return a tensor's role in its layer: `kernel` of `stem/kernel`, `m` of `stem/kernel@m`."""
    return re.split("[/@]", key)[-1]


def owner(key: str) -> str:
    """Return the variable that owns a slot: `stem/kernel` of `stem/kernel@momentum`."""
    return key.split("@", 1)[0]


_AVERAGE, _UNAVERAGED = "@average", "@unaveraged"

Value = TypeVar("Value")


def as_stored(
    weights: Mapping[str, Value], slots: Mapping[str, Value], *, averaged: Collection[str]
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return weights and slots as a checkpoint stores them, with the average in the place of each `averaged` weight."""
    stored = dict(weights) | {name: slots[f"{name}{_AVERAGE}"] for name in averaged}
    others = {key: slot for key, slot in slots.items() if key.removesuffix(_AVERAGE) not in averaged}
    return stored, others | {f"{name}{_UNAVERAGED}": weights[name] for name in sorted(averaged)}


def as_trained(
    weights: Mapping[str, Value], slots: Mapping[str, Value]
) -> tuple[Mapping[str, Value], Mapping[str, Value]]:
    """Return a checkpoint's weights and slots as training has them: the inverse of `as_stored`."""
    raw = {key.removesuffix(_UNAVERAGED): slot for key, slot in slots.items() if key.endswith(_UNAVERAGED)}
    if not raw:
        return weights, slots
    others = {key: slot for key, slot in slots.items() if not key.endswith(_UNAVERAGED)}
    return dict(weights) | raw, others | {f"{name}{_AVERAGE}": weights[name] for name in raw}
