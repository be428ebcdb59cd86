"""Name conflicts between a model in a file and models in memory: listed with both origins, then resolved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.graph.rename import To, rename
from nameplate.graph.tree import walk
from nameplate.io import load_model
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import NameKind
from nameplate.surgery.join import prefixed


class ClashError(NameplateError):
    """Names that both a file and a model in memory have."""


@dataclass(frozen=True)
class Clash:
    """A name in two places, which may differ in case."""

    name: str
    here: str  # the model in memory, and what has the name in it
    there: str  # the file, and what has the name in it


@checked
def load_beside(
    path: str | os.PathLike[str],
    others: Mapping[str, keras.Model],
    *,
    prefix: str | None = None,
    to: To | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> keras.Model:
    """Load a model whose top-level names, its own included, must not clash with those of other models.

    Proved: as `load`, and that no other model has one of its names; if it is renamed, as `rename`. Not proved: what the
    models compute together.

    Args:
        path: as for `nameplate.load`.
        others: the other models, `{what to call it in messages: model}`.
        prefix: as for `nameplate.prefixed`.
        to: as for `nameplate.rename`; it comes before the prefix.
        custom_objects: as for `nameplate.load`.
        trust: as for `nameplate.load`.

    Raises:
        ClashError: with every remaining clash, both places, and what to do.
    """
    model = _opened(path, custom_objects, trust=trust)
    if to is not None:
        model = rename(model, to)
    if prefix is not None:
        model = prefixed(model, prefix)
    remaining = clashes(model, others, label=str(path))
    if remaining:
        lines = [f"  {clash.name}   here: {clash.here}; there: {clash.there}" for clash in remaining]
        advice = (
            "Load it with prefix='NAME_', or with to={old: new} for these names, or choose with "
            "nameplate.load_choosing which side keeps which; no model here is changed."
        )
        raise ClashError("\n".join([_headline(remaining, path), *lines, advice]))
    return model


@checked
def load_choosing(
    path: str | os.PathLike[str],
    others: Mapping[str, keras.Model],
    choose: Mapping[str, str],
    *,
    key: str = "theirs",
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> dict[str, keras.Model]:
    """Load a model beside others, and resolve each name clash in favour of the side that `choose` selects.

    The other side gets the next free name, `stem_n2`. A model that has to give up a name is returned as an uncompiled
    copy, every other model as it is. The originals are not changed.

    Proved: as `load`, and that no two models share a name; of a renamed one all that `rename` proves. Not proved: what
    the models compute together.

    Args:
        path: as for `nameplate.load`.
        others: the other models, `{key: model}`.
        choose: `{name: "mine" or "theirs"}` for each clash; "theirs" is the file. `*` applies to all other names.
        key: the key of the file's model in the result, beside those of the others.
        custom_objects: as for `nameplate.load`.
        trust: as for `nameplate.load`.

    Raises:
        ClashError: with every clash without a choice, and every unused choice.
    """
    if key in others:
        raise ClashError(f"key={key!r} is the key of another model; choose another one for the file's")
    model = _opened(path, custom_objects, trust=trust)
    kept = _kept_names(clashes(model, others, label=str(path)), choose, path)
    sides = {key: model, **others}
    used = {name.casefold() for side in sides.values() for name, _ in _top(side)}
    resolved: dict[str, keras.Model] = {}
    for label, side in sides.items():
        lost = [name for name, _ in _top(side) if name.casefold() in kept["mine" if label == key else "theirs"]]
        resolved[label] = rename(side, {name: _free(name, used) for name in lost}, uncompiled=True) if lost else side
    return resolved


def _opened(path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None, *, trust: bool) -> keras.Model:
    model = load_model.load(path, custom_objects=custom_objects, trust=trust)
    if not isinstance(model, keras.Model):
        raise ClashError(f"{path} has only weights, no model; load them into a model with nameplate.load_weights")
    return model


def _kept_names(found: list[Clash], choose: Mapping[str, str], path: object) -> dict[str, set[str]]:
    """Return `{side: names that it keeps, in lower case}`; the other side gives them up."""
    clashing = [clash.name for clash in found]
    problems = [
        f"{name}: {side!r} is neither 'mine' nor 'theirs'"
        for name, side in choose.items()
        if side not in ("mine", "theirs")
    ]
    problems += [
        f"{name}: no clash{did_you_mean(name, clashing)}" for name in choose if name != "*" and name not in clashing
    ]
    left = [clash for clash in found if clash.name not in choose and "*" not in choose]
    problems += [
        f"{clash.name}   here: {clash.here}; there: {clash.there}; choose 'mine' or 'theirs'" for clash in left
    ]
    if problems:
        head = _headline(found, path) if found else f"no name of {path} is taken; load it with nameplate.load:"
        raise ClashError("\n".join([head, *(f"  {problem}" for problem in problems)]))
    kept: dict[str, set[str]] = {"mine": set(), "theirs": set()}
    for clash in found:
        kept[choose.get(clash.name, choose.get("*", ""))].add(clash.name.casefold())
    return kept


def _free(name: str, used: set[str]) -> str:
    """Return the next unused name after this one, and mark it as used."""
    number = 2
    while f"{name}_n{number}".casefold() in used:
        number += 1
    used.add(f"{name}_n{number}".casefold())
    return f"{name}_n{number}"


def _headline(found: list[Clash], path: object) -> str:
    return f"{len(found)} name{'s' if len(found) != 1 else ''} of {path} {'are' if len(found) != 1 else 'is'} taken:"


def clashes(model: keras.Model, others: Mapping[str, keras.Model], *, label: str = "") -> list[Clash]:
    """Return every top-level name of a model, or its own, that another model has too; case is ignored."""
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
    """Return (name, what it is) for a model and its direct children."""
    direct = [
        (entry.own, f"{'an' if type(entry.layer).__name__[0] in 'AEIOU' else 'a'} {type(entry.layer).__name__}")
        for entry in walk(model)
        if entry.parent < 0 and entry.kind is not NameKind.PART and isinstance(entry.layer, keras.Layer)
    ]
    return [(str(model.name), "the model itself"), *direct]
