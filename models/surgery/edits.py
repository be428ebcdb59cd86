"""Edits as values: what is to be done to a model, before anything is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from models.errors import NameplateError

Given = Any  # a keras.Layer, a keras.Model, or what keras.Input returns; for several in a row, a sequence of them
Sites = int | Sequence[int] | None  # which calls of a shared layer, counted from 0 in the order of the graph; None: all


class SurgeryError(NameplateError):
    """An edit that cannot be done; nothing was built."""


@dataclass(frozen=True)
class Replace:
    """Put `layer` where `name` is: one or several in a row, for one layer or for the block from one to another."""

    name: str | tuple[str, str]  # qualified; a pair is a block: its first and its last layer
    layer: Given
    at: Sites = None


@dataclass(frozen=True)
class Insert:
    """Put `layer` behind `after`, in front of `before`, or between the two where both are given."""

    layer: Given
    after: str | None = None
    before: str | None = None
    at: Sites = None
    output: int | None = None  # which of several tensors that `after` gives


@dataclass(frozen=True)
class Remove:
    """Take `name` out; what used its output uses its input."""

    name: str
    at: Sites = None
    keep: str | None = None  # which layer's tensor stays, where `name` takes several


Edit = Replace | Insert | Remove


def layers_of(given: Given) -> list[Any]:
    """Return what an edit was given as layers.

    Raises:
        SurgeryError: for something else than layers.
    """
    several = list(given) if isinstance(given, list | tuple) else [given]
    found = [_input_layer(each) if isinstance(each, keras.KerasTensor) else each for each in several]
    strangers = [each for each in found if not isinstance(each, keras.Layer)]
    if strangers or not found:
        what = ", ".join(type(each).__name__ for each in strangers) or "an empty list"
        raise SurgeryError(
            f"cannot put {what} into a graph: give a keras.Layer, several in a list, or keras.Input(...)"
        )
    return found


def _input_layer(tensor: Any) -> Any:
    history = getattr(tensor, "_keras_history", None)
    return history.operation if history is not None else tensor
