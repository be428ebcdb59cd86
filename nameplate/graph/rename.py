"""Rename: a copy of a model in which every layer, variable, input, output and path has the new names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import keras

from nameplate.arguments import BY_VERB, checked
from nameplate.formats.policy_file import AnyPolicy, policy_of
from nameplate.graph.clone import clone
from nameplate.graph.explicit_names import has_given_name
from nameplate.graph.keras_private import stacked
from nameplate.graph.tree import Entry, named, require_model, walk
from nameplate.naming import names, rules
from nameplate.naming import policy as policies
from nameplate.naming.policy import Named, NameKind, NamingError, Policy, Violation
from nameplate.naming.rules import Changes, Rule, RuleError

To = Annotated[
    Sequence[str] | Mapping[str, str] | Callable[[Any], str | None] | Sequence[Rule] | Sequence[tuple[str, str]],
    BY_VERB,
]


@checked
def rename(model: keras.Model, to: To, *, policy: AnyPolicy | None = None, uncompiled: bool = False) -> keras.Model:
    r"""Return a copy of the model with other names and the same weights, made in the caller's strategy scope.

    Proved: names, variables and which layers share them, each layer's configuration and constructor arguments;
    also the outputs, if a class of the user's computes them and inputs can be made. Not proved: that the copy can be
    saved.

    Args:
        model: of any kind, built or not; it is not changed.
        to: one of: own names in layer order, for `model.layers` or for the whole tree; `{qualified old name: new own
            name}`, in which the model's own name stands for the model itself; a callable that takes each layer and
            returns its name; rules, as pairs of a regular expression that matches a whole name and its replacement:
            `[(r"conv(\d+)", r"block\1_conv")]`.
        policy: what the new names must satisfy; by default only the grammar and uniqueness.
        uncompiled: whether to accept a compiled model, of which the copy is not compiled.

    Raises:
        NamingError: if the model is compiled, or new names break the policy or clash, with each of them.
        RuleError: if something in `to` matches nothing or does not fit, with each.
        RebuildError: if a layer cannot be rebuilt or cannot take its new name, with the line to add to its class.
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


def model_name_violations(model: keras.Model, policy: Policy) -> list[Violation]:
    """Return the violations of a policy by a model's own name."""
    accepted = policy.automatic or has_given_name(model)
    return policies.model_name_violations(model.name, made_up_for="" if accepted else type(model).__name__)


def repaired(model: keras.Model, policy: Policy) -> keras.Model:
    """Return a copy of the model that satisfies the policy, with names that depend on the model alone.

    Raises:
        NamingError: if the model is compiled.
        RebuildError: as `rename`.
    """
    _refuse_compiled(model)
    entries = walk(model)
    tree = named(entries)
    broken = policies.broken(policy, tree)
    better = policies.suggestions(policy, tree, sorted(broken))
    renamed = {id(entries[index].layer): own for index, own in better.items() if own}
    for entry in entries:  # a part that is named by its position keeps that name
        if entry.kind in (NameKind.OPERATOR, NameKind.PART) and entry.own != entry.layer.name:
            renamed.setdefault(id(entry.layer), entry.own)
    for container in [model, *(entry.layer for entry in entries)]:
        for layer in stacked(container) if isinstance(container, keras.Sequential) else []:
            if isinstance(layer, keras.layers.InputLayer) and names.is_automatic(layer.name, "InputLayer"):
                renamed.setdefault(id(layer), "input_layer")
    for violation in model_name_violations(model, policy):
        renamed[id(model)] = violation.suggestion
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
        new_names = {index: name for index, name in answers.items() if name is not None}
        return rules.from_list(list(new_names.values()), tree, [("layers", list(new_names))])
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
    """Return the rules in a sequence of rules or pairs; None for a sequence of names."""
    if isinstance(to, str | bytes) or not isinstance(to, Sequence):
        raise RuleError(
            f"cannot rename to a {type(to).__name__}: give a list of names, {{old: new}}, a callable, "
            "or (pattern, replacement) pairs"
        )
    kinds = {"name" if isinstance(item, str) else "pair" for item in to}
    invalid = [item for item in to if not isinstance(item, str | Rule) and not _is_pair(item)]
    if invalid or len(kinds) > 1:
        shown = ", ".join(f"{item!r:.80}" for item in (invalid or list(to))[:5])
        raise RuleError(
            f"cannot rename to this list, which has {shown}: give only names or only (pattern, replacement) pairs, "
            "all of them strings; to compute names, pass the callable itself"
        )
    if kinds <= {"name"}:
        return None
    return [item if isinstance(item, Rule) else Rule(_source(item[0]), item[1], regular=True) for item in to]


def _is_pair(item: Any) -> bool:
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    return isinstance(item[0], str | re.Pattern) and isinstance(item[1], str)


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
    """Return the own name as it is before the change."""
    return entries[index].own if index >= 0 else str(model.name)


def _refuse_parts(entries: Sequence[Entry], changes: Changes) -> None:
    parts = [index for index in changes if index >= 0 and entries[index].kind is NameKind.PART]
    if parts:
        rows = [
            f"  {entries[index].name}   created and named by its {type(entries[entries[index].parent].layer).__name__}"
            for index in parts
        ]
        raise NamingError("\n".join(["nothing was renamed: Keras chooses these names itself:", *rows]))


def _refuse_broken(model: Any, entries: Sequence[Entry], changes: Changes, policy: AnyPolicy | None) -> None:
    """Refuse names that break the policy and did not break it before."""
    policy = Policy(automatic=True) if policy is None else policy_of(policy)
    before = named(entries)
    after = _renamed(before, changes)
    known = {index: {rule for rule, _ in reasons} for index, reasons in policies.broken(policy, before).items()}
    violations = [
        Violation(after[index].name, rule, message, "")
        for index, reasons in policies.broken(policy, after).items()
        for rule, message in reasons
        if index in changes or rule == "duplicate" or rule not in known.get(index, ())
    ]
    fault = names.fault(changes.get(-1, "x"))  # of the model's own name
    violations += [Violation(changes[-1], "grammar", fault, "")] if fault else []
    if violations:
        raise NamingError(policies.text(violations, model=f"the renamed {model.name}", policy=policy), violations)


def _renamed(tree: Sequence[Named], changes: Changes) -> list[Named]:
    after = rules.renamed([item.name for item in tree], changes, [item.parent for item in tree])
    return [replace(item, name=name, own=names.split(name)[1]) for item, name in zip(tree, after, strict=True)]
