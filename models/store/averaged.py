"""Averaged weights in a checkpoint: whoever reads a weight gets its average, and what trains on is a slot beside it.

A training that keeps moving averages of its weights has the raw weights in the model, `stem/kernel`, and the averages
in the optimizer, `stem/kernel@average`. The averages are what is validated: so a checkpoint has them as its weights,
and the raw ones in the optimizer's group, `stem/kernel@unaveraged`. Older checkpoints have both as training does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

_AVERAGE, _UNAVERAGED = "@average", "@unaveraged"

Value = TypeVar("Value")


def as_stored(
    weights: Mapping[str, Value], slots: Mapping[str, Value], *, averaged: Collection[str]
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return weights and slots of a training as a checkpoint has them; `averaged` are the names of such weights."""
    stored = dict(weights) | {name: slots[f"{name}{_AVERAGE}"] for name in averaged}
    beside = {key: slot for key, slot in slots.items() if key.removesuffix(_AVERAGE) not in averaged}
    return stored, beside | {f"{name}{_UNAVERAGED}": weights[name] for name in sorted(averaged)}


def as_trained(
    weights: Mapping[str, Value], slots: Mapping[str, Value]
) -> tuple[Mapping[str, Value], Mapping[str, Value]]:
    """Return a checkpoint's weights and slots as training has them: the reverse of `as_stored`."""
    raw = {key.removesuffix(_UNAVERAGED): slot for key, slot in slots.items() if key.endswith(_UNAVERAGED)}
    if not raw:
        return weights, slots
    beside = {key: slot for key, slot in slots.items() if not key.endswith(_UNAVERAGED)}
    return dict(weights) | raw, beside | {f"{name}{_AVERAGE}": weights[name] for name in raw}
