"""Rename: a new model in which every layer, variable, input, output and path agrees on the new names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from nameplate.graph.clone import clone
from nameplate.graph.keras_private import stacked
from nameplate.graph.tree import Entry, named, require_model, walk
from nameplate.naming import names, rules
from nameplate.naming import policy as policies
from nameplate.naming.policy import Named, NameKind, NamingError, Policy, Violation
from nameplate.naming.rules import Changes, Rule, RuleError

To = Sequence[str] | Mapping[str, str] | Callable[[Any], str | None] | Sequence[Rule] | Sequence[tuple[str, str]]


def rename(model: keras.Model, to: To, *, policy: Policy | str | None = None, uncompiled: bool = False) -> keras.Model:
    r"""Return a copy of the model with other names and the same weights, made in the caller's strategy scope.

    Proved: names, variables and which layers share them, each layer's configuration and constructor arguments;
    where code of the user's computes and inputs can be made, the outputs. Not proved: that the copy can be saved.

    Args:
        model: of any kind, built or not; it is left as it is. to: own names in layer order (for
        `model.layers`, or for the whole tree); `{qualified old: new}`, in which the
            model itself is its name; a callable that gets each layer and returns its name; or rules, as
            pairs of a regular expression for a whole name and its replacement: `[(r"conv(\d+)",
            r"block\1_conv")]`.
        policy: what the new names must keep; without one, the grammar and uniqueness.
        uncompiled: whether a compiled model may give an uncompiled copy.

    Raises:
        NamingError: when the model is compiled, or new names break the policy or clash, with each of them.
        RuleError: when something in `to` matches nothing or does not fit, with each.
        RebuildError: when a layer cannot be rebuilt or cannot carry its new name, with the line to add.
    """
    require_model(model)
    if not uncompiled:
        _refuse_compiled(model)
    entries = walk(model)
    changes = {
        index: own for index, own in _changes(model, entries, to).items() if own != _current(model, entries, index)
    }
    _refuse_parts(entries, changes)
    _refuse_broken(model, entries, changes, policy)
    return clone(model, renamed={id(_at(model, entries, index)): own for index, own in changes.items()})


def repaired(model: keras.Model, policy: Policy) -> keras.Model:
    """Return a copy of the model that keeps the policy, with names that depend on the model alone.

    Raises:
        NamingError: when the model is compiled.
        RebuildError: as `rename`.
    """
    _refuse_compiled(model)
    entries = walk(model)
    tree = named(entries)
    broken = policies.broken(policy, tree)
    better = policies.suggestions(policy, tree, sorted(broken))
    renamed = {id(entries[index].layer): own for index, own in better.items() if own}
    for entry in entries:  # what is named by its place gets that name for good
        if entry.kind in (NameKind.OPERATOR, NameKind.PART) and entry.own != entry.layer.name:
            renamed.setdefault(id(entry.layer), entry.own)
    for container in [model, *(entry.layer for entry in entries)]:
        for layer in stacked(container) if isinstance(container, keras.Sequential) else []:
            if isinstance(layer, keras.layers.InputLayer) and names.is_automatic(layer.name, "InputLayer"):
                renamed.setdefault(id(layer), "input_layer")
    for violation in policies.model_name_violations(model.name):
        renamed[id(model)] = violation.suggestion
    if names.is_automatic(str(model.name), type(model).__name__):
        renamed[id(model)] = names.snake(type(model).__name__)
    return clone(model, renamed=renamed)


def _refuse_compiled(model: keras.Model) -> None:
    if getattr(model, "compiled", False):
        raise NamingError(
            f"{model.name!r} is compiled: its optimizer, losses and metrics hold the old names. Rename before compile, "
            "or ask for a renamed, uncompiled copy with rename(model, to, uncompiled=True)."
        )


def _changes(model: Any, entries: Sequence[Entry], to: To) -> Changes:
    tree = [entry.name for entry in entries]
    nameable = [index for index, entry in enumerate(entries) if _has_given_name(entry)]
    if isinstance(to, Mapping):
        return rules.from_map(to, tree, model=str(model.name))
    if callable(to):
        answers = {index: _answer(to, entries[index]) for index in nameable}
        given = {index: name for index, name in answers.items() if name is not None}
        return rules.from_list(list(given.values()), tree, [("layers", list(given))])
    pairs = _pairs(to)
    if pairs is not None:
        return rules.from_rules(pairs, tree, nameable)
    top = {id(layer) for layer in model.layers}
    groups = [
        ("layers", [index for index, entry in enumerate(entries) if entry.parent < 0 and id(entry.layer) in top]),
        ("layers with those inside", nameable),
        ("layers with those inside and Keras' own", list(range(len(entries)))),
    ]
    return rules.from_list([str(name) for name in to], tree, groups)


def _pairs(to: Any) -> list[Rule] | None:
    """Return rules for a sequence of rules or pairs, None for a sequence of names."""
    if isinstance(to, str | bytes) or not isinstance(to, Sequence):
        raise RuleError(
            f"cannot rename to a {type(to).__name__}: give a list of names, {{old: new}}, a callable, "
            "or (pattern, replacement) pairs"
        )
    kinds = {"name" if isinstance(each, str) else "pair" for each in to}
    wrong = [each for each in to if not isinstance(each, str | Rule) and not _is_pair(each)]
    if wrong or len(kinds) > 1:
        shown = ", ".join(f"{each!r:.80}" for each in (wrong or list(to))[:5])
        raise RuleError(
            f"cannot rename to this list, which has {shown}: give names alone, or (pattern, replacement) pairs alone, "
            "each a text; what a callable decides is given as the callable itself"
        )
    if kinds <= {"name"}:
        return None
    return [each if isinstance(each, Rule) else Rule(_source(each[0]), each[1], regular=True) for each in to]


def _is_pair(each: Any) -> bool:
    if not isinstance(each, tuple) or len(each) != 2:
        return False
    return isinstance(each[0], str | re.Pattern) and isinstance(each[1], str)


def _answer(to: Callable[[Any], str | None], entry: Entry) -> str | None:
    try:
        return to(entry.layer)
    except Exception as error:
        raise RuleError(
            f"nothing was renamed: the callable failed for {entry.name!r} ({type(entry.layer).__name__}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _source(pattern: str | re.Pattern[str]) -> str:
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern


def _has_given_name(entry: Entry) -> bool:
    automatic = names.is_automatic(entry.own, type(entry.layer).__name__)
    return entry.kind is not NameKind.PART and not (entry.kind is NameKind.OPERATOR and automatic)


def _at(model: Any, entries: Sequence[Entry], index: int) -> Any:
    return entries[index].layer if index >= 0 else model


def _current(model: Any, entries: Sequence[Entry], index: int) -> str:
    """Return the own name that a change to it would leave as it is."""
    return entries[index].own if index >= 0 else str(model.name)


def _refuse_parts(entries: Sequence[Entry], changes: Changes) -> None:
    parts = [index for index in changes if index >= 0 and entries[index].kind is NameKind.PART]
    if parts:
        rows = [
            f"  {entries[index].name}   made and named by its {type(entries[entries[index].parent].layer).__name__}"
            for index in parts
        ]
        raise NamingError("\n".join(["nothing was renamed: these names are Keras' own:", *rows]))


def _refuse_broken(model: Any, entries: Sequence[Entry], changes: Changes, policy: Policy | str | None) -> None:
    """Refuse names that break the policy and did not before."""
    policy = Policy(automatic=True) if policy is None else policies.named_policy(policy)
    before = named(entries)
    after = _renamed(before, changes)
    known = {index: {rule for rule, _ in reasons} for index, reasons in policies.broken(policy, before).items()}
    found = [
        Violation(after[index].name, rule, message, "")
        for index, reasons in policies.broken(policy, after).items()
        for rule, message in reasons
        if index in changes or rule == "duplicate" or rule not in known.get(index, ())
    ]
    found += [Violation(changes[-1], "grammar", reason, "") for reason in [names.fault(changes.get(-1, "x"))] if reason]
    if found:
        raise NamingError(policies.text(found, model=f"the renamed {model.name}", policy=policy), found)


def _renamed(tree: Sequence[Named], changes: Changes) -> list[Named]:
    after = rules.renamed([item.name for item in tree], changes, [item.parent for item in tree])
    return [replace(item, name=name, own=names.split(name)[1]) for item, name in zip(tree, after, strict=True)]
