"""Edits as values, and the log of what they change: new layers and their names, removed layers, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from nameplate.arguments import CheckedFields
from nameplate.errors import worded
from nameplate.formats.policy_file import AnyPolicy, policy_of
from nameplate.graph import explicit_names, keras_private
from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value
from nameplate.graph.tree import Entry, named
from nameplate.naming import names
from nameplate.naming import policy as policies
from nameplate.naming.policy import NameKind, NamingError, Policy, PolicyMode, Violation
from nameplate.surgery.addresses import Addresses, Sites, is_input

Given = Any  # a keras.Layer, a keras.Model, or what keras.Input returns; for several in a row, a sequence of them


@dataclass(frozen=True)
class Replace(CheckedFields):
    """Put `layer`, one or several in a chain, in the place of one layer or of the block from one layer to another."""

    name: str | tuple[str, str]  # qualified; a pair is the first and the last layer of a block
    layer: Given
    at: Sites = None


@dataclass(frozen=True)
class Insert(CheckedFields):
    """Put `layer` after `after`, before `before`, or on the edge between the two if both are given."""

    layer: Given
    after: str | None = None
    before: str | None = None
    at: Sites = None
    output: int | None = None  # which of several outputs of `after`


@dataclass(frozen=True)
class Remove(CheckedFields):
    """Remove `name`; its consumers use its input instead."""

    name: str
    at: Sites = None
    keep: str | None = None  # the layer whose output remains if `name` has several inputs


Edit = Replace | Insert | Remove


def layers_of(given: Given) -> list[Any]:
    """Return the layers that an edit was given, as a list.

    Raises:
        SurgeryError: for anything else.
    """
    several = list(given) if isinstance(given, list | tuple) else [given]
    layers = [_input_layer(item) if isinstance(item, keras.KerasTensor) else item for item in several]
    invalid = [item for item in layers if not isinstance(item, keras.Layer)]
    if invalid or not layers:
        what = ", ".join(type(item).__name__ for item in invalid) or "an empty list"
        raise SurgeryError(
            f"cannot put {what} into a graph: give a keras.Layer, several in a list, or keras.Input(...)"
        )
    return layers


def _input_layer(tensor: Any) -> Any:
    return keras_private.source(tensor) if keras_private.has_source(tensor) else tensor


@dataclass(eq=False)
class Newcomer:
    """A new layer, and the layer that it replaces, whose name it takes if it has none of its own."""

    layer: Any
    container: Any  # that will hold it
    replaces: Any = None  # the layer that was there
    alone: bool = True  # whether it is the only replacement, not one of a chain
    everywhere: bool = True  # whether no call of the replaced layer is left


@dataclass
class EditLog:
    """What the edits did, for the steps after them."""

    newcomers: dict[int, Newcomer] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)  # ids of layers that are no longer called
    containers: set[int] = field(default_factory=set)  # ids of the containers that change
    substitutes: dict[int, tuple[Graph, dict[int, Value]]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)  # (qualified name, what happened)
    warnings: list[tuple[str, str]] = field(default_factory=list)  # notes that are logged

    def add_newcomers(self, given: Sequence[Any], graph: Graph, **details: Any) -> None:
        """Record new layers of a graph, which form a chain."""
        for layer in given:
            if id(layer) in self.newcomers:
                raise SurgeryError(
                    f"{layer.name!r} was given twice: in two places it would share its weights; give two layers"
                )
            self.newcomers[id(layer)] = Newcomer(layer, graph.container, alone=len(given) == 1, **details)


def claim(call: Call | Head, name: str, touched: set[int]) -> None:
    """Record that an edit changes a call, and refuse a second edit of it."""
    if id(call) in touched:
        raise SurgeryError(f"{name!r} is replaced or removed twice in one pass")
    touched.add(id(call))


def output_indices(graph: Graph, layer: Any) -> dict[int, int]:
    """Return `{id(value): index}` for the outputs of a layer, as they were before anything was inserted after it."""
    calls = [call for call in graph.calls if call.layer is layer]
    indices = {id(value): index for call in calls for index, value in enumerate(call.given or call.outputs)}
    return indices | {id(head.given or head.value): 0 for head in graph.heads if head.layer is layer}


def sources(graph: Graph, values: Sequence[Value]) -> str:
    """Return a phrase that names the layers which produce these values."""
    makers = {id(value): call.layer.name for call in graph.calls for value in call.outputs}
    makers |= {id(head.value): head.layer.name for head in graph.heads if head.layer is not None}
    return "from " + ", ".join(str(makers.get(id(value), "?")) for value in values)


def class_names(layers: Sequence[Any]) -> str:
    """Return the classes of layers as text."""
    return ", ".join(type(layer).__name__ for layer in layers)


# ---- the names of new layers ------------------------------------------------------------------------------------


def newcomer_names(addresses: Addresses, done: EditLog, policy: AnyPolicy) -> dict[int, str]:
    """Return `{id(layer): own name}` for every new layer.

    A layer without a name of its own takes that of the layer it replaces, or a similar one with a warning if other
    calls of that layer remain. An inserted layer must have a name, unless the policy repairs.

    Raises:
        NamingError: for names that break the policy or clash with a sibling, each with a suggestion.
    """
    policy = policy_of(policy)
    chosen: dict[int, str] = {}
    violations: list[Violation] = []
    newcomers = list(done.newcomers.values())
    for container in {id(newcomer.container): newcomer.container for newcomer in newcomers}.values():
        own = [newcomer for newcomer in newcomers if newcomer.container is container]
        violations += _choose_names(addresses, addresses.graph(container), own, policy, chosen, done)
    if violations:
        model = f"the edited {addresses.model.name}"
        remedy = worded(keys="Or run with naming=repair to take these names.", arguments=_REMEDY)
        raise NamingError(policies.text(violations, model=model, policy=policy, remedy=remedy), violations)
    return chosen


def _choose_names(
    addresses: Addresses,
    graph: Graph,
    newcomers: Sequence[Newcomer],
    policy: Policy,
    chosen: dict[int, str],
    done: EditLog,
) -> list[Violation]:
    """Choose the names in one container; return what breaks the policy."""
    new = {id(newcomer.layer) for newcomer in newcomers}
    where = addresses.name(graph.container)
    parent = 0 if where else -1
    entries = [_entry(graph.container, where, NameKind.LAYER, -1)] if where else []
    staying = [layer for layer in graph.layers() if id(layer) not in new and not _hidden(graph, layer)]
    entries += [_entry(layer, addresses.name(layer), _kind(layer), parent) for layer in staying]
    inherited: set[int] = set()
    for newcomer in newcomers:
        name = _preferred_name(newcomer, {entry.own.casefold() for entry in entries}, addresses)
        if name != str(newcomer.layer.name):
            inherited.add(len(entries))
        chosen[id(newcomer.layer)] = name
        entries.append(_entry(newcomer.layer, names.join(where, name), _kind(newcomer.layer), parent))
    _warn_of_second_names(addresses, newcomers, chosen, done)
    return _violations(entries, newcomers, inherited, policy, chosen)


def _violations(
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
        kept = [reason for reason in reasons if reason[0] in _CLASHES or not lenient]
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
_CLASHES = ("grammar", "duplicate", "case")  # rules that hold under every policy


def _preferred_name(newcomer: Newcomer, taken: set[str], addresses: Addresses) -> str:
    """Return the name of a new layer, its own or one after the layer that it replaces."""
    layer, old = newcomer.layer, newcomer.replaces
    own = str(layer.name)
    automatic = names.is_automatic(own, type(layer).__name__) and not explicit_names.has_given_name(layer)
    if old is None or not automatic:
        return own
    base = names.split(addresses.name(old))[1]
    if newcomer.alone and newcomer.everywhere:
        return base
    if not newcomer.alone:
        base = f"{base}_{names.snake(type(layer).__name__)}"
        if base.casefold() not in taken:
            return base
    tries = (f"{base}_{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")
    return next((name for name in tries if name.casefold() not in taken), f"{base}_{len(taken)}")


def _warn_of_second_names(
    addresses: Addresses, newcomers: Sequence[Newcomer], chosen: dict[int, str], done: EditLog
) -> None:
    for newcomer in newcomers:
        if newcomer.replaces is not None and not newcomer.everywhere:
            where = addresses.name(newcomer.replaces)
            done.warnings.append((where, f"stays at its other calls; the new layer is {chosen[id(newcomer.layer)]!r}"))


def _entry(layer: Any, name: str, kind: NameKind, parent: int) -> Entry:
    own = names.split(name)[1]
    return Entry(name, own, layer, kind, parent, name, [name])


def _kind(layer: Any) -> NameKind:
    if not isinstance(layer, keras.Layer):
        return NameKind.OPERATOR
    return NameKind.INPUT if is_input(layer) else NameKind.LAYER


def _hidden(graph: Graph, layer: Any) -> bool:
    """Return whether a layer is the input that a Sequential created itself."""
    return graph.stack and is_input(layer) and names.is_automatic(str(layer.name), "InputLayer")
