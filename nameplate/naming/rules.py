"""Rename rules: one grammar for the layers of a model and for the variables of a file. Strings only.

A rule is a name and its new name, or a regular expression for whole names and its replacement, with groups as in
`re.sub`. As text it is `OLD=NEW`, `OLD=` to drop what OLD names, or `re:PATTERN=REPLACEMENT`.

Of a file, OLD is a variable, or a layer or container whose components are replaced at the front of a name:
`encoder/stem=backbone/stem` takes `encoder/stem/kernel` along, and its slot `encoder/stem/kernel@momentum`, but not
`encoder/stem_2/kernel`. Of a model, rules give own names, and what lies in a container follows it.

All rules look at the names as they were, so swaps and cycles work. Of several rules that match a name the first
counts. A rule that does nothing is an error, and errors come all at once: nothing is renamed by half.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from nameplate.errors import NameplateError
from nameplate.naming import names

Changes = dict[int, str]  # place in the tree -> new own name; -1 is the model itself
Texts: TypeAlias = Mapping[str, str] | Iterable[str]  # {old: new}, or rules as text

_REGULAR = "re:"
_SHOWN = 20
_WHOLE = " It must match a whole name."
_Place = TypeVar("_Place", int, str)


class RuleError(NameplateError):
    """Rename rules that cannot be read, match nothing, match too much or contradict each other."""


@dataclass(frozen=True)
class Rule:
    """One rule; an empty `new` drops what `old` names."""

    old: str  # a name, or a regular expression that must match the whole of one
    new: str  # with groups as in `re.sub`, `\1` and `\g<name>`, where `old` is an expression
    regular: bool = False
    text: str = ""  # as it was written, for messages and for the record

    def __str__(self) -> str:
        return self.text or (f"{self.old} -> {self.new}" if self.regular else f"{self.old}={self.new}")

    def matches(self, name: str) -> bool:
        """Return whether the rule applies to a name. Raises `re.error` for an invalid expression."""
        if self.regular:
            return re.fullmatch(self.old, name) is not None
        return name == self.old or name.startswith(f"{self.old}{names.SEPARATOR}")

    def apply(self, name: str) -> str:
        """Return the new name of a name that matches, empty where it is dropped.

        Raises `re.error` or `IndexError` for a group that does not exist.
        """
        if self.regular:
            match = re.fullmatch(self.old, name)
            return match.expand(self.new) if match else name
        return self.new and self.new + name.removeprefix(self.old)


# ---- the variables of a file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Renamed:
    """What rules make of a set of names."""

    names: Mapping[str, str]  # old -> new, of every name that stays
    rules: Mapping[str, str]  # old -> text of the rule that renamed or dropped it
    dropped: tuple[str, ...]


def parse_rules(texts: Texts) -> list[Rule]:
    """Return the rules of `{old: new}`, of one text or of several.

    Raises:
        RuleError: with every text that cannot be read.
    """
    if isinstance(texts, Mapping):
        wrong = [f"{old!r}: {new!r}: names are strings" for old, new in texts.items() if not _are_strings(old, new)]
        _refuse(wrong, "these rules cannot be read")
        return [Rule(old.strip("/"), new.strip("/"), text=f"{old}={new}") for old, new in texts.items()]
    if not isinstance(texts, Iterable):
        raise RuleError(f"rules are {{old: new}} or a list of OLD=NEW, not {texts!r}")
    rules: list[Rule] = []
    problems: list[str] = []
    for text in [texts] if isinstance(texts, str) else texts:
        try:
            rules.append(_read(text))
        except (ValueError, re.error) as error:
            problems.append(f"{text!r}: {error}")
    _refuse(problems, "these rules cannot be read")
    return rules


def apply_rules(known: Sequence[str], rules: Sequence[Rule]) -> Renamed:
    """Return what rules make of the names of variables and of their slots; a slot follows its variable.

    Raises:
        RuleError: with every rule that does nothing, and every name that two variables would get.
    """
    rules = list(dict.fromkeys(rules))
    variables = {name: name.partition("@")[0] for name in known}
    subjects = {variable: variable for variable in variables.values()}
    found, problems = _first_matches(rules, lambda _: subjects, lambda rule: _near(rule.old, subjects))
    renamed: dict[str, str] = {}
    used: dict[str, str] = {}
    dropped: list[str] = []
    for name, variable in variables.items():
        if variable not in found:
            renamed[name] = name
            continue
        rule, new = found[variable]
        used[name] = str(rule)
        if new:
            renamed[name] = new + name.removeprefix(variable)
        else:
            dropped.append(name)
    _refuse([*problems, *_clashes(renamed, used)])
    return Renamed(renamed, used, tuple(dropped))


def _read(text: str) -> Rule:
    if not _are_strings(text):
        raise ValueError(f"a rule is a string, not a {type(text).__name__}")
    if text.startswith(_REGULAR):
        old, equals, new = text.removeprefix(_REGULAR).rpartition("=")  # an expression may contain a `=`
        re.compile(old)
    else:
        old, equals, new = (part.strip("/") for part in text.partition("="))
    if not equals or not old:
        raise ValueError("a rule is OLD=NEW, OLD= to drop, or re:PATTERN=REPLACEMENT")
    return Rule(old, new, regular=text.startswith(_REGULAR), text=text)


def _are_strings(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _near(word: str, variables: Iterable[str]) -> str:
    """Return the variables, layers and containers that a word may have meant, as a sentence."""
    parts = [name.split(names.SEPARATOR) for name in variables]
    known = [names.join(*part[:depth]) for part in parts for depth in range(1, len(part) + 1)]
    return names.did_you_mean(word, known)


def _clashes(renamed: Mapping[str, str], used: Mapping[str, str]) -> list[str]:
    origins: dict[str, list[str]] = defaultdict(list)
    for old, new in renamed.items():
        origins[new].append(old)
    return [
        f"{new!r} would be the name of {' and of '.join(map(repr, olds))}"
        for new, olds in origins.items()
        if len(olds) > 1 and any(old in used for old in olds)
    ]


# ---- the layers of a model --------------------------------------------------------------------------------------


def from_list(new: Sequence[str], tree: Sequence[str], groups: Sequence[tuple[str, Sequence[int]]]) -> Changes:
    """Return the changes of a list of names in layer order.

    Args:
        new: own names, or qualified names that stay in their container.
        tree: the qualified names of the tree.
        groups: (description, places) for each set of layers that a list may be meant for.

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
        RuleError: with every old name of no layer or of several, and every new one in another container.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(tree):
        places[name].append(index)
    if model not in places:
        places[model] = [-1]
    problems = []
    chosen: dict[int, str] = {}
    for old, new in mapping.items():
        of_name = places.get(old, [])
        if not isinstance(old, str):
            problems.append(f"{old!r} is not the name of a layer: names are strings, as {_first_of(tree)}")
        elif not of_name:
            problems.append(f"{old!r} matches nothing.{_meant(old, tree)}")
        elif len(of_name) > 1:
            problems.append(f"{old!r} is the name of {len(of_name)} layers; rename them by a list or a callable")
        else:
            chosen[of_name[0]] = new
    _refuse(problems)
    return _own_names(chosen, tree)


def from_rules(rules: Sequence[Rule], tree: Sequence[str], places: Sequence[int]) -> Changes:
    """Return the changes of rules for layers.

    A regular expression matches whole names: qualified ones where it has a `/`, else own ones. Any other rule is for
    the one layer of that qualified name.

    Raises:
        RuleError: with every rule that is not a regular expression, renames nothing, or refers to a missing group.
    """
    qualified = {index: tree[index] for index in places}
    own = {index: names.split(name)[1] for index, name in qualified.items()}

    def subjects(rule: Rule) -> dict[int, str]:
        if not rule.regular:
            return {index: name for index, name in qualified.items() if name == rule.old}
        return qualified if names.SEPARATOR in rule.old else own

    found, problems = _first_matches(rules, subjects, lambda rule: _meant(rule.old, tree) or _WHOLE * rule.regular)
    _refuse(problems)
    return _own_names({index: new for index, (_, new) in found.items()}, tree)


def renamed(tree: Sequence[str], changes: Changes, parents: Sequence[int]) -> list[str]:
    """Return the qualified names after the changes; all that lies in a container follows its new name."""
    after: list[str] = []
    for index, name in enumerate(tree):
        container = after[parents[index]] if parents[index] >= 0 else ""
        after.append(names.join(container, changes.get(index, names.split(name)[1])))
    return after


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
            problems.append(
                f"the model itself cannot become {chosen[index]!r}: its name cannot have a {names.SEPARATOR!r}"
            )
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
    return f" Did you mean {_first_of(inside, ' or ')}?" if inside else names.did_you_mean(word, tree)


def _first_of(tree: Sequence[str], between: str = ", ") -> str:
    return between.join(map(repr, tree[:3]))


# ---- both -------------------------------------------------------------------------------------------------------


def _first_matches(
    rules: Iterable[Rule], subjects: Callable[[Rule], Mapping[_Place, str]], hint: Callable[[Rule], str]
) -> tuple[dict[_Place, tuple[Rule, str]], list[str]]:
    """Return the first rule that matches each place's name with the new name, and a problem for each useless rule."""
    found: dict[_Place, tuple[Rule, str]] = {}
    problems: list[str] = []
    for rule in rules:
        try:
            matched = {place: name for place, name in subjects(rule).items() if rule.matches(name)}
            fresh = {place: (rule, rule.apply(name)) for place, name in matched.items() if place not in found}
        except (re.error, IndexError) as error:
            problems.append(f"{str(rule)!r}: {error}")
            continue
        if not matched:
            problems.append(f"{str(rule)!r} matches nothing.{hint(rule)}")
        elif not fresh:
            problems.append(f"{str(rule)!r} matches only what earlier rules take")
        found |= fresh
    return found, problems


def _refuse(problems: Sequence[str], head: str = "nothing was renamed") -> None:
    if problems:
        more = [f"  ... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise RuleError("\n".join([f"{head}:", *(f"  {problem}" for problem in problems[:_SHOWN]), *more]))
