"""Edits as values, and the record of what they changed: new layers with their names, removed layers, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from nameplate.graph import explicit_names, keras_private
from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value
from nameplate.graph.tree import Entry, named
from nameplate.naming import names
from nameplate.naming import policy as policies
from nameplate.naming.policy import NameKind, NamingError, Policy, PolicyMode, Violation
from nameplate.surgery.addresses import Addresses, Sites, is_input

Given = Any  # a keras.Layer, a keras.Model, or what keras.Input returns; for several in a row, a sequence of them


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
    return keras_private.source(tensor) if keras_private.has_source(tensor) else tensor


@dataclass(eq=False)
class Newcomer:
    """A layer that an edit gave, and what its name is to be where it has none of its own."""

    layer: Any
    container: Any  # in which it comes to lie
    stands_for: Any = None  # the layer that was there
    alone: bool = True  # whether it stands there alone, not in a row of several
    everywhere: bool = True  # whether nothing is left of what it stands for


@dataclass
class EditLog:
    """What the edits leave to the steps after them."""

    newcomers: dict[int, Newcomer] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)  # ids of layers that no edit left a call of
    containers: set[int] = field(default_factory=set)  # ids of the containers that change
    substitutes: dict[int, tuple[Graph, dict[int, Value]]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)  # (qualified name, what happened)
    aloud: list[tuple[str, str]] = field(default_factory=list)  # what nobody may overlook

    def take_in(self, given: Sequence[Any], graph: Graph, **told: Any) -> None:
        """Take note of layers that go into a graph, in a row."""
        for layer in given:
            if id(layer) in self.newcomers:
                raise SurgeryError(
                    f"{layer.name!r} was given twice: one layer in two places would share its weights; give two layers"
                )
            self.newcomers[id(layer)] = Newcomer(layer, graph.container, alone=len(given) == 1, **told)


def claim(call: Call | Head, name: str, touched: set[int]) -> None:
    """Take note of what an edit changes; nothing is replaced or removed twice."""
    if id(call) in touched:
        raise SurgeryError(f"{name!r} is replaced or removed twice in one pass")
    touched.add(id(call))


def given_by(graph: Graph, layer: Any) -> dict[int, int]:
    """Return which output of its layer each value is, as it was before what is inserted behind it: `{id: place}`."""
    calls = [call for call in graph.calls if call.layer is layer]
    found = {id(value): place for call in calls for place, value in enumerate(call.given or call.outputs)}
    return found | {id(head.given or head.value): 0 for head in graph.heads if head.layer is layer}


def sources(graph: Graph, values: Sequence[Value]) -> str:
    """Say which layers give these values."""
    makers = {id(value): call.layer.name for call in graph.calls for value in call.outputs}
    makers |= {id(head.value): head.layer.name for head in graph.heads if head.layer is not None}
    return "it takes from " + ", ".join(str(makers.get(id(value), "?")) for value in values)


def told_kinds(given: Sequence[Any]) -> str:
    """Return the classes of layers, in words."""
    return ", ".join(type(each).__name__ for each in given)


# ---- the names of new layers ------------------------------------------------------------------------------------


def newcomers_names(addresses: Addresses, done: EditLog, policy: Policy | str) -> dict[int, str]:
    """Return `{id(layer): own name}` for every layer that the edits gave.

    One without a name of its own takes that of the layer for which it stands; where that one stays at other calls, it
    gets a second name, and the edits' notes say so. What is inserted has a name or is refused, unless the policy
    repairs.

    Raises:
        NamingError: for names that break the policy or clash with a sibling, each with one that would do.
    """
    policy = policies.named_policy(policy)
    chosen: dict[int, str] = {}
    found: list[Violation] = []
    for container in {id(each.container): each.container for each in done.newcomers.values()}.values():
        own = [each for each in done.newcomers.values() if each.container is container]
        found += _christen(addresses, addresses.graph(container), own, policy, chosen, done)
    if found:
        told = f"the edited {addresses.model.name}"
        raise NamingError(policies.text(found, model=told, policy=policy, remedy=_REMEDY), found)
    return chosen


def _christen(
    addresses: Addresses,
    graph: Graph,
    newcomers: Sequence[Newcomer],
    policy: Policy,
    chosen: dict[int, str],
    done: EditLog,
) -> list[Violation]:
    """Choose names in one container; return what breaks the policy."""
    fresh = {id(each.layer) for each in newcomers}
    where = addresses.name(graph.container)
    parent = 0 if where else -1
    entries = [_entry(graph.container, where, NameKind.LAYER, -1)] if where else []
    staying = [each for each in graph.layers() if id(each) not in fresh and not _hidden(graph, each)]
    entries += [_entry(each, addresses.name(each), _kind(each), parent) for each in staying]
    inherited: set[int] = set()
    for each in newcomers:
        wish = _wish(each, {entry.own.casefold() for entry in entries}, addresses)
        if wish != str(each.layer.name):
            inherited.add(len(entries))
        chosen[id(each.layer)] = wish
        entries.append(_entry(each.layer, names.join(where, wish), _kind(each.layer), parent))
    _say_second_names(addresses, newcomers, chosen, done)
    return _judged(entries, newcomers, inherited, policy, chosen)


def _judged(
    entries: Sequence[Entry],
    newcomers: Sequence[Newcomer],
    inherited: set[int],
    policy: Policy,
    chosen: dict[int, str],
) -> list[Violation]:
    if policy.mode is PolicyMode.off:
        policy = Policy(mode=PolicyMode.off, automatic=True)
    tree = named(entries)
    first = len(entries) - len(newcomers)
    broken: dict[int, list[tuple[str, str]]] = {}
    for index, reasons in policies.broken(policy, tree).items():
        lenient = index in inherited or policy.mode is PolicyMode.report
        kept = [each for each in reasons if each[0] in _CLASHES or not lenient]
        if index >= first and kept:
            broken[index] = kept
    better = policies.suggestions(policy, tree, list(broken))
    if policy.mode is PolicyMode.repair and all(better.values()):
        chosen.update({id(entries[index].layer): name for index, name in better.items()})
        return []
    return [
        Violation(entries[index].name, rule, message, better[index])
        for index, reasons in broken.items()
        for rule, message in reasons
    ]


_REMEDY = "Or take these names with policy='repair'."
_CLASHES = ("grammar", "duplicate", "case")  # what no model can be without


def _wish(newcomer: Newcomer, taken: set[str], addresses: Addresses) -> str:
    """Return the name that a newcomer would have."""
    layer, old = newcomer.layer, newcomer.stands_for
    given = str(layer.name)
    automatic = names.is_automatic(given, type(layer).__name__) and not explicit_names.has_given_name(layer)
    if old is None or not automatic:
        return given
    base = names.split(addresses.name(old))[1]
    if newcomer.alone and newcomer.everywhere:
        return base
    if not newcomer.alone:
        base = f"{base}_{names.snake(type(layer).__name__)}"
        if base.casefold() not in taken:
            return base
    tries = (f"{base}_{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")
    return next((each for each in tries if each.casefold() not in taken), f"{base}_{len(taken)}")


def _say_second_names(
    addresses: Addresses, newcomers: Sequence[Newcomer], chosen: dict[int, str], done: EditLog
) -> None:
    for each in newcomers:
        if each.stands_for is not None and not each.everywhere:
            where = addresses.name(each.stands_for)
            done.aloud.append((where, f"stays at its other calls; the new layer is {chosen[id(each.layer)]!r}"))


def _entry(layer: Any, name: str, kind: NameKind, parent: int) -> Entry:
    own = names.split(name)[1]
    return Entry(name, own, layer, kind, parent, name, [name])


def _kind(layer: Any) -> NameKind:
    if not isinstance(layer, keras.Layer):
        return NameKind.OPERATOR
    return NameKind.INPUT if is_input(layer) else NameKind.LAYER


def _hidden(graph: Graph, layer: Any) -> bool:
    """Tell whether a layer is the input that a Sequential made for itself."""
    return graph.stack and is_input(layer) and names.is_automatic(str(layer.name), "InputLayer")
