"""Which name in a file becomes which name here: rules over full names, of variables and their slots. Strings only.

A rule is `OLD=NEW`. OLD is a variable, or a layer or container, whose whole components it renames at the front of a
name: `encoder/stem=backbone/stem` takes `encoder/stem/kernel` along, and `encoder/stem/kernel@momentum`, but not
`encoder/stem_2/kernel`. `OLD=` drops what OLD names. `re:PATTERN=REPLACEMENT` is a regular expression that must match
the whole name of a variable, with groups as in `re.sub`. All rules look at the names as they were, so that names may
be swapped; of several that match a name the first counts, once; a rule that does nothing is an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean

_REGULAR = "re:"
_SHOWN = 20


class MappingError(NameplateError):
    """Rules that cannot be read, do nothing, or make one name of two."""


@dataclass(frozen=True)
class NameRule:
    """One rule; `new` is empty where it drops."""

    text: str  # as it was written
    old: str
    new: str
    pattern: re.Pattern[str] | None = None

    def apply(self, variable: str) -> str | None:
        """Return the new name of `variable`, empty when it is dropped, or None when the rule says nothing about it."""
        if self.pattern is not None:
            match = self.pattern.fullmatch(variable)
            return match.expand(self.new) if match else None
        if not self.matches(variable):
            return None
        return self.new and self.new + variable.removeprefix(self.old)

    def matches(self, variable: str) -> bool:
        """Say whether the rule says something about `variable`."""
        if self.pattern is not None:
            return self.pattern.fullmatch(variable) is not None
        return variable == self.old or variable.startswith(f"{self.old}/")


@dataclass(frozen=True)
class Mapped:
    """The outcome of rules on a set of names."""

    names: Mapping[str, str]  # old -> new, of every name that stays
    rules: Mapping[str, str]  # old -> text of the rule that renamed or dropped it
    dropped: tuple[str, ...]


def parse(texts: Iterable[str]) -> list[NameRule]:
    """Return the rules written as `OLD=NEW`. Raises `MappingError` with all that cannot be read."""
    rules, problems = [], []
    for text in texts:
        # An expression may hold a `=` of its own; a name never does.
        split = str.rpartition if text.startswith(_REGULAR) else str.partition
        old, equals, new = split(text.removeprefix(_REGULAR), "=")
        if not equals or not old:
            problems.append(f"  {text!r}: a rule is OLD=NEW, OLD= to drop, or re:PATTERN=REPLACEMENT")
            continue
        try:
            pattern = re.compile(old) if text.startswith(_REGULAR) else None
        except re.error as error:
            problems.append(f"  {text!r}: {error}")
            continue
        rules.append(NameRule(text, old if pattern else old.strip("/"), new if pattern else new.strip("/"), pattern))
    _refuse("These rules cannot be read", problems)
    return rules


def apply(names: Sequence[str], rules: Sequence[NameRule]) -> Mapped:
    """Return what `rules` make of `names`; a slot (`stem/kernel@momentum`) goes with its variable.

    Raises `MappingError` with every rule that does nothing, and every name that two would get.
    """
    renamed: dict[str, str] = {}
    used: dict[str, str] = {}
    dropped: list[str] = []
    problems: list[str] = []
    for name in names:
        variable, at, slot = name.partition("@")
        rule, new = _first(variable, rules, problems)
        if rule is not None:
            used[name] = rule.text
        if new:
            renamed[name] = f"{new}{at}{slot}"
        else:
            dropped.append(name)
    problems += _idle(names, rules, set(used.values())) + _clashes(renamed, used)
    _refuse("These rules cannot be applied; nothing was renamed", list(dict.fromkeys(problems)))
    return Mapped(renamed, used, tuple(dropped))


def _first(variable: str, rules: Sequence[NameRule], problems: list[str]) -> tuple[NameRule | None, str]:
    """Return the first rule that says something about `variable`, and its new name, empty when it is dropped."""
    for rule in rules:
        try:
            new = rule.apply(variable)
        except (re.error, IndexError) as error:
            problems.append(f"  {rule.text!r}: {error}")
            continue
        if new is not None:
            return rule, new
    return None, variable


def _idle(names: Sequence[str], rules: Sequence[NameRule], used: set[str]) -> list[str]:
    variables = list(dict.fromkeys(name.partition("@")[0] for name in names))
    problems = []
    for rule in rules:
        if rule.text in used:
            continue
        if any(map(rule.matches, variables)):
            problems.append(f"  {rule.text!r} matches only what earlier rules take")
        else:
            parts = [name.split("/") for name in variables]
            known = ["/".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)]
            problems.append(f"  {rule.text!r} matches nothing.{did_you_mean(rule.old, known)}")
    return problems


def _clashes(renamed: Mapping[str, str], used: Mapping[str, str]) -> list[str]:
    origins: dict[str, list[str]] = defaultdict(list)
    for old, new in renamed.items():
        origins[new].append(old)
    return [
        f"  {new!r} would be the name of {' and of '.join(repr(old) for old in olds)}"
        for new, olds in origins.items()
        if len(olds) > 1 and any(old in used for old in olds)
    ]


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        more = [f"  ... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise MappingError("\n".join([f"{what}:", *problems[:_SHOWN], *more]))
