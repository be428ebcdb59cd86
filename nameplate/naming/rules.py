"""Rename rules: strings only.

What a caller says (a list, a map, rules with regular expressions) becomes `{place in the tree: new own
name}`, all at once, so that swaps and cycles work. Whatever cannot be done is told in one error: nothing is
renamed by half.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nameplate.errors import NameplateError
from nameplate.naming import names

Changes = dict[int, str]  # place in the tree -> new own name; -1 is the model itself


class RuleError(NameplateError):
    """Rename rules that match nothing, match too much or contradict each other."""


@dataclass(frozen=True)
class Rule:
    """One regular expression and what takes its place, with groups as in `re.sub`: `\\1`, `\\g<name>`.

    Without a `/` the pattern must match the whole of an own name; with one, the whole of a qualified name.
    """

    pattern: str
    replacement: str


def from_list(new: Sequence[str], tree: Sequence[str], groups: Sequence[tuple[str, Sequence[int]]]) -> Changes:
    """Return the changes of a list of names in layer order.

    Args:
        new: own names, or qualified names that stay in their container.
        tree: the qualified names of the tree.
        groups: (what it is, places) for each set of layers that a list may be meant for.

    Raises:
        RuleError: when no group has as many layers; it has both lengths.
    """
    fitting = next((places for _, places in groups if len(places) == len(new)), None)
    if fitting is None:
        sizes: dict[int, str] = {}
        for what, places in groups:
            sizes.setdefault(len(places), what)
        known = ", ".join(f"{size} {what}" for size, what in sizes.items())
        raise RuleError(f"{len(new)} names for {known}: a list names every layer in order")
    return _own_names(dict(zip(fitting, new, strict=True)), tree)


def from_map(mapping: Mapping[str, str], tree: Sequence[str], *, model: str = "") -> Changes:
    """Return the changes of `{old: new}`: qualified old names, own or qualified new ones; `model` is the model's name.

    Raises:
        RuleError: with every old name that no layer or more than one has, and every new one in another
        container.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(tree):
        places[name].append(index)
    if model not in places:
        places[model] = [-1]
    problems = []
    chosen: dict[int, str] = {}
    for old, new in mapping.items():
        found = places.get(old, [])
        if not isinstance(old, str):
            problems.append(f"{old!r} is no name of a layer: names are texts, as {', '.join(map(repr, tree[:3]))}")
        elif not found:
            problems.append(f"{old!r} matches nothing.{_meant(old, tree)}")
        elif len(found) > 1:
            problems.append(f"{old!r} is the name of {len(found)} layers; rename them by a list or a callable")
        else:
            chosen[found[0]] = new
    _refuse(problems)
    return _own_names(chosen, tree)


def from_rules(rules: Sequence[Rule], tree: Sequence[str], places: Sequence[int]) -> Changes:
    """Return the changes of regular expressions; of several that match a name the first is taken, once.

    Raises:
        RuleError: with every rule that is no regular expression, renames nothing, or has a group too many.
    """
    problems = []
    chosen: dict[int, str] = {}
    for rule in rules:
        try:
            matches = _matches(rule, tree, places)
            fresh = {index: match.expand(rule.replacement) for index, match in matches.items() if index not in chosen}
        except re.error as error:
            problems.append(f"{rule.pattern!r} -> {rule.replacement!r}: {error}")
            continue
        if not matches:
            hint = _meant(rule.pattern, tree)
            problems.append(f"{rule.pattern!r} matches nothing; it must match a whole name.{hint}")
        elif not fresh:
            problems.append(f"{rule.pattern!r} matches only what earlier rules rename")
        chosen.update(fresh)
    _refuse(problems)
    return _own_names(chosen, tree)


def renamed(tree: Sequence[str], changes: Changes, parents: Sequence[int]) -> list[str]:
    """Return the qualified names after the changes; a container's new name is in front of all that lies in it."""
    after: list[str] = []
    for index, name in enumerate(tree):
        container = after[parents[index]] if parents[index] >= 0 else ""
        after.append(names.join(container, changes.get(index, names.split(name)[1])))
    return after


def compose(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the one renaming of qualified names that does `first` and then `second`."""
    chained = {old: second.get(new, new) for old, new in first.items()}
    reached = set(first.values())
    return {**chained, **{old: new for old, new in second.items() if old not in reached and old not in first}}


def inverse(mapping: Mapping[str, str]) -> dict[str, str]:
    """Return the renaming that undoes this one.

    Raises:
        RuleError: when two names became one, which nothing can undo.
    """
    back: dict[str, list[str]] = defaultdict(list)
    for old, new in mapping.items():
        back[new].append(old)
    _refuse([f"{' and '.join(map(repr, olds))} both become {new!r}" for new, olds in back.items() if len(olds) > 1])
    return {new: olds[0] for new, olds in back.items()}


def _matches(rule: Rule, tree: Sequence[str], places: Sequence[int]) -> dict[int, re.Match[str]]:
    pattern = re.compile(rule.pattern)
    whole = names.SEPARATOR in rule.pattern
    tried = {index: pattern.fullmatch(tree[index] if whole else names.split(tree[index])[1]) for index in places}
    return {index: match for index, match in tried.items() if match}


def _own_names(chosen: Mapping[int, str], tree: Sequence[str]) -> Changes:
    """Return own names for own or qualified ones; a name that would move a layer elsewhere is refused."""
    problems = []
    changes: Changes = {}
    for index, new in chosen.items():
        if not isinstance(new, str):
            problems.append(f"{tree[index] if index >= 0 else 'the model'!s}: {new!r} is not a string")
            continue
        changes[index] = names.split(new)[1]
    places = {name: index for index, name in reversed(list(enumerate(tree)))}
    for index in changes:
        container, _ = names.split(chosen[index])
        if container and index < 0:
            problems.append(f"the model itself cannot become {chosen[index]!r}: its name has no {names.SEPARATOR!r}")
            continue
        here = names.split(tree[index])[0] if index >= 0 else ""
        if container and container not in (here, _after(here, places, changes)):
            problems.append(
                f"{tree[index]!r} cannot become {chosen[index]!r}: a rename does not move a layer to {container!r}"
            )
    _refuse(problems)
    return changes


def _after(qualified: str, places: Mapping[str, int], changes: Changes) -> str:
    """Return the qualified name of a container after the changes."""
    if not qualified:
        return ""
    container, own = names.split(qualified)
    return names.join(_after(container, places, changes), changes.get(places.get(qualified, -2), own))


def _meant(word: str, tree: Sequence[str]) -> str:
    inside = [name for name in tree if names.split(name)[1] == word]
    return f" Did you mean {' or '.join(map(repr, inside[:3]))}?" if inside else names.did_you_mean(word, tree)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise RuleError("\n".join(["nothing was renamed:", *(f"  {problem}" for problem in problems)]))
