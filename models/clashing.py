"""A model from a file beside models that are there: names that clash are listed with both origins, then resolved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from models import opening
from models.errors import NameplateError
from models.joining import prefixed
from models.policy import Kind
from models.renaming import To, rename
from models.tree import walk


class ClashError(NameplateError):
    """Names that a file and a model here both have."""


@dataclass(frozen=True)
class Clash:
    """One name in two places; only case may differ."""

    name: str
    here: str  # the model here, and what has the name in it
    there: str  # the file, and what has the name in it


def load_beside(
    path: str | os.PathLike[str],
    others: Mapping[str, keras.Model],
    *,
    prefix: str | None = None,
    to: To | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> keras.Model:
    """Return the model of a file, whose names at the top, its own among them, clash with none of the models here.

    Args:
        path: as for `models.load`.
        others: `{what to call it in messages: model}`.
        prefix: goes before its names, as `prefixed` does.
        to: renames its layers, as `rename` does.
        custom_objects: as for `models.load`.
        trust: as for `models.load`.

    Raises:
        ClashError: with every clash that is left, where each of the two is, and what to do.
    """
    model = opening.load(path, custom_objects=custom_objects, trust=trust)
    if not isinstance(model, keras.Model):
        raise ClashError(f"{path} has weights and no model; load them into one that is here: models.load_weights")
    if to is not None:
        model = rename(model, to)
    if prefix is not None:
        model = prefixed(model, prefix)
    found = clashes(model, others, label=str(path))
    if found:
        lines = [f"  {each.name}   here: {each.here}; there: {each.there}" for each in found]
        ways = "Load it with prefix='NAME_', or with to={old: new} for these; nothing here is overwritten."
        raise ClashError("\n".join([f"{len(found)} names of {path} are taken:", *lines, ways]))
    return model


def clashes(model: keras.Model, others: Mapping[str, keras.Model], *, label: str = "") -> list[Clash]:
    """Return every name at the top of a model, or its own, that another has too; case does not tell names apart."""
    taken: dict[str, str] = {}
    for key, other in others.items():
        for name, what in _top(other):
            taken.setdefault(name.casefold(), f"{key}, {what}")
    where = label or str(model.name)
    return [
        Clash(name, taken[name.casefold()], f"{where}, {what}")
        for name, what in _top(model)
        if name.casefold() in taken
    ]


def _top(model: keras.Model) -> list[tuple[str, str]]:
    """Return (name, what it is) of a model and of what lies directly in it."""
    direct = [
        (entry.own, f"a {type(entry.layer).__name__}")
        for entry in walk(model)
        if entry.parent < 0 and entry.kind is not Kind.PART and isinstance(entry.layer, keras.Layer)
    ]
    return [(str(model.name), "the model itself"), *direct]
