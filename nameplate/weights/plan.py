"""A plan: which array of a source goes to which name of a target, all accounted for on both sides, before anything is
loaded.

Knows names, shapes and dtypes; reads no array.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nameplate.naming.names import did_you_mean
from nameplate.naming.rules import Rule, apply_rules


@dataclass(frozen=True)
class Form:
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: str  # NumPy's name

    def __str__(self) -> str:
        return f"{self.dtype} {' x '.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class Line:
    """One name of the target, or of the source where it has none: what becomes of it, and why."""

    target: str | None
    source: str | None
    verdict: str  # taken renamed dropped missing unexpected shape dtype
    detail: str  # the rule, both forms, or the nearest name


@dataclass(frozen=True)
class Plan:
    """The whole account; `fits` when every name of both sides is taken, renamed, or dropped by a rule."""

    lines: tuple[Line, ...]

    @property
    def fits(self) -> bool:
        """Whether everything can be loaded and nothing is left over."""
        return all(line.verdict in ("taken", "renamed", "dropped") for line in self.lines)

    @property
    def sources(self) -> dict[str, str]:
        """Target name -> source name, of all that can be loaded."""
        fitting = (line for line in self.lines if line.verdict in ("taken", "renamed"))
        return {line.target: line.source for line in fitting if line.target and line.source}

    def counts(self) -> dict[str, int]:
        """Return how many lines there are of each verdict, in the order of `verdict`'s list."""
        found: dict[str, int] = defaultdict(int)
        for line in self.lines:
            found[line.verdict] += 1
        return dict(found)


def match(source: Mapping[str, Form], target: Mapping[str, Form], *, rules: Sequence[Rule] = ()) -> Plan:
    """Return the plan of loading `source` into `target` by name, the source's names changed by `rules` first.

    Raises `RuleError` for rules that do nothing or make one name of two.
    """
    mapped = apply_rules(list(source), rules)
    origins = {new: old for old, new in mapped.names.items()}
    unexpected = [name for name in origins if name not in target]
    lines = [_line(name, origins.get(name), source, target, mapped.rules, unexpected) for name in target]
    missing = [name for name in target if name not in origins]
    lines += [
        Line(None, origins[name], "unexpected", f"{source[origins[name]]}.{did_you_mean(name, missing)}")
        for name in unexpected
    ]
    lines += [Line(None, name, "dropped", mapped.rules[name]) for name in mapped.dropped]
    return Plan(tuple(lines))


def bridges(source: Mapping[str, Form], target: Mapping[str, Form]) -> list[str]:
    """Return the rules that would bridge two sets of names where it is obvious: `OLD=NEW`, one a layer.

    Obvious is a layer that only the source has, with the same variables, shapes and dtypes as exactly one that only
    the target has, and the other way round.
    """
    here, there = _layers(source, target), _layers(target, source)
    rules = []
    for form, olds in here.items():
        news = there.get(form, [])
        if len(olds) == len(news) == 1:
            rules.append(f"{olds[0]}={news[0]}")
    return rules


def _line(
    name: str,
    old: str | None,
    source: Mapping[str, Form],
    target: Mapping[str, Form],
    rules: Mapping[str, str],
    unexpected: Sequence[str],
) -> Line:
    if old is None:
        return Line(name, None, "missing", f"{target[name]}.{did_you_mean(name, unexpected)}")
    here, there = source[old], target[name]
    if here.shape != there.shape:
        return Line(name, old, "shape", f"{here} in the source, {there} in the target")
    if here.dtype != there.dtype:
        return Line(name, old, "dtype", f"{here} in the source, {there} in the target")
    return Line(name, old, "renamed", rules[old]) if old != name else Line(name, old, "taken", "")


def _layers(names: Mapping[str, Form], others: Mapping[str, Form]) -> dict[frozenset[tuple[str, Form]], list[str]]:
    """Return the layers of which no variable is in `others`, by what their variables are."""
    contents: dict[str, set[tuple[str, Form]]] = defaultdict(set)
    for name, form in names.items():
        layer, _, leaf = name.rpartition("/")
        contents[layer].add((leaf, form))
    found: dict[frozenset[tuple[str, Form]], list[str]] = defaultdict(list)
    for layer, leaves in contents.items():
        if layer and not any(f"{layer}/{leaf}" in others for leaf, _ in leaves):
            found[frozenset(leaves)].append(layer)
    return found
