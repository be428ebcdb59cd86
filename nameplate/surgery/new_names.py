"""The names of what comes into a graph: taken over, its own, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from nameplate.graph import explicit_names
from nameplate.graph.functional import Graph
from nameplate.graph.tree import Entry, named
from nameplate.naming import names
from nameplate.naming import policy as policies
from nameplate.naming.policy import Kind, Mode, NamingError, Policy, Violation
from nameplate.surgery.addresses import Addresses, is_input
from nameplate.surgery.changes import Newcomer, Rewritten


def newcomers_names(addresses: Addresses, done: Rewritten, policy: Policy | str) -> dict[int, str]:
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
    done: Rewritten,
) -> list[Violation]:
    """Choose names in one container; return what breaks the policy."""
    fresh = {id(each.layer) for each in newcomers}
    where = addresses.name(graph.container)
    parent = 0 if where else -1
    entries = [_entry(graph.container, where, Kind.LAYER, -1)] if where else []
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
    if policy.mode is Mode.off:
        policy = Policy(mode=Mode.off, automatic=True)
    tree = named(entries)
    first = len(entries) - len(newcomers)
    broken: dict[int, list[tuple[str, str]]] = {}
    for index, reasons in policies.broken(policy, tree).items():
        lenient = index in inherited or policy.mode is Mode.report
        kept = [each for each in reasons if each[0] in _CLASHES or not lenient]
        if index >= first and kept:
            broken[index] = kept
    better = policies.suggestions(policy, tree, list(broken))
    if policy.mode is Mode.repair and all(better.values()):
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
    addresses: Addresses, newcomers: Sequence[Newcomer], chosen: dict[int, str], done: Rewritten
) -> None:
    for each in newcomers:
        if each.stands_for is not None and not each.everywhere:
            where = addresses.name(each.stands_for)
            done.aloud.append((where, f"stays at its other calls; the new layer is {chosen[id(each.layer)]!r}"))


def _entry(layer: Any, name: str, kind: Kind, parent: int) -> Entry:
    own = names.split(name)[1]
    return Entry(name, own, layer, kind, parent, name, [name])


def _kind(layer: Any) -> Kind:
    if not isinstance(layer, keras.Layer):
        return Kind.OPERATOR
    return Kind.INPUT if is_input(layer) else Kind.LAYER


def _hidden(graph: Graph, layer: Any) -> bool:
    """Tell whether a layer is the input that a Sequential made for itself."""
    return graph.stack and is_input(layer) and names.is_automatic(str(layer.name), "InputLayer")
