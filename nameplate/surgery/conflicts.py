"""A model from a file beside models that are there: names that clash are listed with both origins, then resolved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from nameplate.errors import NameplateError
from nameplate.graph.rename import To, rename
from nameplate.graph.tree import walk
from nameplate.io import load_model
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import NameKind
from nameplate.surgery.join import prefixed


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

    Proved: as `load`, and that no name is another model's; where it is renamed, as `rename`. Not proved: what the
    models compute together.

    Args:
        path: as for `nameplate.load`.
        others: `{what to call it in messages: model}`.
        prefix: goes before its names, as `prefixed` does.
        to: renames its layers, as `rename` does.
        custom_objects: as for `nameplate.load`.
        trust: as for `nameplate.load`.

    Raises:
        ClashError: with every clash that is left, where each of the two is, and what to do.
    """
    model = _opened(path, custom_objects, trust=trust)
    if to is not None:
        model = rename(model, to)
    if prefix is not None:
        model = prefixed(model, prefix)
    found = clashes(model, others, label=str(path))
    if found:
        lines = [f"  {each.name}   here: {each.here}; there: {each.there}" for each in found]
        ways = (
            "Load it with prefix='NAME_', or with to={old: new} for these, or say with nameplate.load_choosing who "
            "keeps which; nothing here is overwritten."
        )
        raise ClashError("\n".join([_taken(found, path), *lines, ways]))
    return model


def load_choosing(
    path: str | os.PathLike[str],
    others: Mapping[str, keras.Model],
    choose: Mapping[str, str],
    *,
    key: str = "theirs",
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> dict[str, keras.Model]:
    """Return the model of a file and the models here; of each name that both have, one side keeps it as chosen.

    The other side's gets the next free name, `stem_n2`. A model here that yields a name is an uncompiled copy in what
    is returned, every other is itself; nothing that was given is changed.

    Proved: as `load`, and that each name is one model's; where one is renamed, as `rename`. Not proved: what the
    models compute together.

    Args:
        path: as for `nameplate.load`.
        others: `{what to call it: model}`.
        choose: `{name: "mine" or "theirs"}` for each clash, theirs being the file's; `*` is for all that are not named.
        key: under which the file's model is returned, beside the others under their own.
        custom_objects: as for `nameplate.load`.
        trust: as for `nameplate.load`.

    Raises:
        ClashError: with every clash that nothing is chosen for, and every choice that is for nothing.
    """
    if key in others:
        raise ClashError(f"key={key!r} is one of the models here; choose another for the file's")
    model = _opened(path, custom_objects, trust=trust)
    found = clashes(model, others, label=str(path))
    yields = _chosen(found, choose, path)
    sides = {key: model, **others}
    used = {name.casefold() for side in sides.values() for name, _ in _top(side)}
    made: dict[str, keras.Model] = {}
    for label, side in sides.items():
        own = [name for name, _ in _top(side) if name.casefold() in yields["mine" if label == key else "theirs"]]
        made[label] = rename(side, {name: _free(name, used) for name in own}, uncompiled=True) if own else side
    return made


def _opened(path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None, *, trust: bool) -> keras.Model:
    model = load_model.load(path, custom_objects=custom_objects, trust=trust)
    if not isinstance(model, keras.Model):
        raise ClashError(f"{path} has weights and no model; load them into one that is here: nameplate.load_weights")
    return model


def _chosen(found: list[Clash], choose: Mapping[str, str], path: object) -> dict[str, set[str]]:
    """Return which names, case folded, one side keeps and the other yields, by the side that keeps them."""
    clashing = [each.name for each in found]
    problems = [
        f"{name}: {side!r} is neither 'mine' nor 'theirs'"
        for name, side in choose.items()
        if side not in ("mine", "theirs")
    ]
    problems += [
        f"{name}: no clash{did_you_mean(name, clashing)}" for name in choose if name != "*" and name not in clashing
    ]
    left = [each for each in found if each.name not in choose and "*" not in choose]
    problems += [f"{each.name}   here: {each.here}; there: {each.there}; choose 'mine' or 'theirs'" for each in left]
    if problems:
        head = _taken(found, path) if found else f"no name of {path} is taken; load it with nameplate.load:"
        raise ClashError("\n".join([head, *(f"  {each}" for each in problems)]))
    kept: dict[str, set[str]] = {"mine": set(), "theirs": set()}
    for each in found:
        kept[choose.get(each.name, choose.get("*", ""))].add(each.name.casefold())
    return kept


def _free(name: str, used: set[str]) -> str:
    """Return the next name after this one that nobody has, and take it."""
    number = 2
    while f"{name}_n{number}".casefold() in used:
        number += 1
    used.add(f"{name}_n{number}".casefold())
    return f"{name}_n{number}"


def _taken(found: list[Clash], path: object) -> str:
    return f"{len(found)} name{'s' if len(found) != 1 else ''} of {path} {'are' if len(found) != 1 else 'is'} taken:"


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
        (entry.own, f"{'an' if type(entry.layer).__name__[0] in 'AEIOU' else 'a'} {type(entry.layer).__name__}")
        for entry in walk(model)
        if entry.parent < 0 and entry.kind is not NameKind.PART and isinstance(entry.layer, keras.Layer)
    ]
    return [(str(model.name), "the model itself"), *direct]
