"""Names that Keras made up, paired by class and order: it numbers layers by process, so the same code gives others.

The first model of a process has `dense` and `dense_1`, the second, of the same code, `dense_2` and `dense_3`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from nameplate.naming import names
from nameplate.naming.rules import Rule
from nameplate.weights.plan import Form

_NUMBERED = re.compile(r"(.+?)(?:_([0-9]+))?\Z")


@dataclass(frozen=True)
class Owners:
    """What is known of the layers of the target, by qualified name."""

    classes: Mapping[str, str] = field(default_factory=dict)
    given: Collection[str] = ()  # those that a caller named, whatever the name looks like

    def is_automatic(self, name: str) -> bool:
        """Return whether Keras made up the own name of a layer."""
        own = names.split(name)[1]
        return name not in self.given and names.is_automatic(own, self.classes.get(name, names.UNKNOWN_CLASS))


def paired(
    source: Mapping[str, Form], target: Mapping[str, Form], owners: Owners | None = None, *, outer: str = ""
) -> list[Rule]:
    """Return the rules that pair the automatic names of a source with those of a target, in the order of their numbers.

    In each container, the layers of a class are paired where both sides have as many, with variables of the same names
    and shapes. All others keep their names.

    Args:
        source: what each array is.
        target: what each variable is.
        owners: of the target; without it the form of a name decides whether it is automatic.
        outer: a prefix of every name of the source.
    """
    here, there = _tree({name.removeprefix(outer): form for name, form in source.items()}), _tree(target)
    pairs = _pairs(here, there, "", "", owners or Owners())
    deepest_first = sorted(pairs.items(), key=lambda pair: -pair[0].count(names.SEPARATOR))
    return [
        Rule(f"{outer}{old}", new, text=f"{outer}{old}={new}, paired by class and order")
        for old, new in deepest_first
        if old != new
    ]


@dataclass
class _Node:
    """A layer: what its own variables are, and the layers in it."""

    variables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    layers: dict[str, _Node] = field(default_factory=dict)

    def shapes(self) -> dict[str, tuple[int, ...]] | list[tuple[int, ...]]:
        """Return the shapes of its own variables by name; in order, where a file has numbers for names."""
        if all(name.isdigit() for name in self.variables):
            return [self.variables[number] for number in sorted(self.variables, key=int)]
        return self.variables


def _tree(forms: Mapping[str, Form]) -> _Node:
    top = _Node()
    for name, form in forms.items():
        *containers, leaf = name.split(names.SEPARATOR)
        node = top
        for own in containers:
            node = node.layers.setdefault(own, _Node())
        node.variables[leaf] = form.shape
    return top


def _pairs(here: _Node, there: _Node, old: str, new: str, owners: Owners) -> dict[str, str]:
    """Return `{layer of the source: layer of the target}` of those in two containers that hold variables themselves."""
    pairs: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for own, node in there.layers.items():
        name = names.join(new, own)
        if owners.is_automatic(name):
            groups.setdefault(_word(own), []).append(own)
        elif own in here.layers:
            pairs |= _pairs(here.layers[own], node, names.join(old, own), name, owners)
            pairs |= {names.join(old, own): name} if node.variables else {}
    named = {own for own in there.layers if not owners.is_automatic(names.join(new, own))}
    for word, theirs in groups.items():
        ours = [own for own in here.layers if _word(own) == word and own not in named]
        pairs |= _group(here, there, sorted(ours, key=_number), sorted(theirs, key=_number), (old, new), owners)
    return pairs


def _group(
    here: _Node, there: _Node, ours: list[str], theirs: list[str], places: tuple[str, str], owners: Owners
) -> dict[str, str]:
    """Return the pairs of the layers of one class in a container, with all that is in them; none if any differ."""
    if len(ours) != len(theirs):
        return {}
    pairs: dict[str, str] = {}
    for own, other in zip(ours, theirs, strict=True):
        old, new = names.join(places[0], own), names.join(places[1], other)
        node, counterpart = here.layers[own], there.layers[other]
        inside = _pairs(node, counterpart, old, new, owners)
        if not _alike(node, counterpart) or len(inside) != _owning(node) or len(inside) != _owning(counterpart):
            return {}
        pairs |= inside | ({old: new} if node.variables else {})
    return pairs


def _alike(node: _Node, other: _Node) -> bool:
    mine, its = node.shapes(), other.shapes()
    return mine == its or (isinstance(mine, list) and mine == list(other.variables.values()))


def _owning(node: _Node) -> int:
    """Return how many layers within a layer hold variables themselves."""
    return sum(bool(inner.variables) + _owning(inner) for inner in node.layers.values())


def _word(own: str) -> str:
    match = _NUMBERED.match(own)
    return match[1] if match else own


def _number(own: str) -> int:
    match = _NUMBERED.match(own)
    return int(match[2] or 0) if match else 0
