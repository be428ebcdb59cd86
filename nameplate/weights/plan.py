"""The weight plan: which array of a source goes to which variable of a target, every name of both accounted for.

Whatever puts weights somewhere by name makes one first: `load_weights`, `nameplate.plan`, the initial weights of a run,
a resume, `ckpt plan`. `match` compares names, shapes and types; the functions below it turn what would be a problem
into a choice: a cast, an adapted shape, a part that is left alone. Arrays are read only when the plan is applied.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from nameplate import text_table
from nameplate.naming import names
from nameplate.naming.names import did_you_mean
from nameplate.naming.rules import Rule, apply_rules
from nameplate.weights.adaptation import CLASSES, Classes, refusal
from nameplate.weights.named import Weights, any_matches, matches, under

Verdict: TypeAlias = Literal[
    "taken",  # under its own name
    "renamed",  # by a rule, or by how a format spells names
    "adapted",  # to another shape, by a rule for channels or classes
    "kept",  # the target's own value stays
    "left",  # not chosen: both sides stay as they are
    "dropped",  # of the source, and not needed
    "missing",  # in the target only
    "unexpected",  # in the source only
    "shape",  # of another shape on the other side
    "dtype",  # of another type on the other side
]
TAKEN = ("taken", "renamed", "adapted")
PROBLEMS = ("missing", "unexpected", "shape", "dtype")
COLUMNS = ("verdict", "target", "source", "detail")  # of a plan's rows


@dataclass(frozen=True)
class Form:
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: str  # NumPy's name

    def __str__(self) -> str:
        return f"{self.dtype} {' x '.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class Line:
    """What becomes of one variable of the target, or of an array of the source that goes nowhere, and why."""

    target: str | None
    source: str | None
    verdict: Verdict
    rule: str = ""  # that renamed or dropped it, as it was written
    conversion: str = ""  # of its values on the way: type, channels, order of rows
    reason: str = ""  # why it is not taken
    new: str = ""  # the source's name after the rules
    have: Form | None = None  # in the source
    want: Form | None = None  # in the target

    @property
    def name(self) -> str:
        """The target's name, or the source's where there is no target."""
        return self.target or self.source or ""

    @property
    def address(self) -> str:
        """The name that patterns of the target's names are compared with: for the source, its name after the rules."""
        return self.target or self.new or self.source or ""

    @property
    def detail(self) -> str:
        """The rule, the conversion and the reason, as far as there are any."""
        return "; ".join(part for part in (self.rule, self.conversion, self.reason) if part)

    def document(self) -> dict[str, str | None]:
        """Return the line as plain data."""
        parts = {"rule": self.rule, "conversion": self.conversion}
        line = {"target": self.target, "source": self.source, "verdict": self.verdict, "detail": self.detail}
        return line | {key: text for key, text in parts.items() if text}


@dataclass(frozen=True)
class WeightPlan:
    """What becomes of every array of both sides: data, to print, to test, to write as JSON, and then to apply."""

    source: str  # where the arrays come from
    lines: tuple[Line, ...]
    arrays: Weights = field(default_factory=dict, repr=False, compare=False)  # under the target's names
    adapted: Mapping[str, str] = field(default_factory=dict)  # target -> the rule that adapts its shape
    classes: Classes | None = None

    @property
    def fits(self) -> bool:
        """Whether something is taken, and no problem is left."""
        return bool(self.taken) and not self.problems

    @property
    def problems(self) -> tuple[Line, ...]:
        """What is missing, unexpected, or of another shape or type."""
        return tuple(line for line in self.lines if line.verdict in PROBLEMS)

    @property
    def taken(self) -> dict[str, str]:
        """Target name -> source name, of all that gets a value."""
        return {line.target: line.source for line in self.lines if _is_taken(line) and line.target and line.source}

    @property
    def loaded(self) -> tuple[str, ...]:
        """The target's variables that get a value."""
        return tuple(self.taken)

    @property
    def plan(self) -> WeightPlan:
        """The plan itself: `nameplate.load_weights(...).plan` is what was loaded."""
        return self

    def counts(self) -> dict[str, int]:
        """Return how many lines there are of each verdict."""
        return dict(Counter(line.verdict for line in self.lines))

    def layers(self) -> dict[str, dict[str, int]]:
        """Return `{layer: {verdict: number of variables}}`; what only the source has is under its own layer."""
        layers: dict[str, dict[str, int]] = {}
        for line in self.lines:
            counts = layers.setdefault(names.split(line.name)[0], {})
            counts[line.verdict] = counts.get(line.verdict, 0) + 1
        return layers

    def origins(self) -> dict[str, dict[str, Any]]:
        """Return where each value comes from, for a manifest: file, name in it, and the rule."""
        return {
            line.target: {"file": self.source, "name": line.source}
            | ({"rule": line.detail} if line.verdict != "taken" else {})
            for line in self.lines
            if _is_taken(line) and line.target
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the lines as rows under `COLUMNS`."""
        return [(line.verdict, line.target or "", line.source or "", line.detail) for line in self.lines]

    def total(self) -> str:
        """Return the counts as text: `8 taken, 2 missing`."""
        return ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items())

    def table(self) -> str:
        """Return the counts, then a line for each name, in columns."""
        return "\n".join([f"from {self.source}: {self.total()}", *text_table.fitted(self.rows())])

    def document(self) -> dict[str, Any]:
        """Return the plan as plain data, without arrays."""
        lines = [line.document() for line in self.lines]
        return {"source": self.source, "fits": self.fits, "counts": self.counts(), "lines": lines}

    def json(self) -> str:
        """Return `document` as JSON."""
        return json.dumps(self.document(), indent=1)

    def with_lines(self, lines: Iterable[Line]) -> WeightPlan:
        """Return the plan with other lines."""
        return replace(self, lines=tuple(lines))

    def __str__(self) -> str:
        return self.table()


def listing(lines: Sequence[Line], limit: int | None = None) -> list[str]:
    """Return lines of a plan for an error message, at most `limit` of them."""
    shown = [f"  {line.verdict:<11} {line.name}   {line.detail}" for line in lines[:limit]]
    return shown + ([f"  ... and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else [])


def forms_of(arrays: Mapping[str, Any]) -> dict[str, Form]:
    """Return the form of each array or variable, from its file's table where there is one, so that none is read."""
    tables = (getattr(arrays, table, None) for table in ("forms", "records", "entries"))
    known = next((table for table in tables if table), arrays)
    return {name: _form(known[name] if name in known else arrays[name]) for name in arrays}


# ---- matching ---------------------------------------------------------------------------------------------------


def match(
    source: Mapping[str, Form],
    target: Mapping[str, Form],
    *,
    rules: Sequence[Rule] = (),
    label: str = "the source",
    arrays: Weights | None = None,
) -> WeightPlan:
    """Return the plan of loading `source` into `target` by name, the source's names changed by `rules` first.

    Args:
        source: what each array is.
        target: what each variable is.
        rules: from names of the source to names of the target.
        label: what to call the source.
        arrays: the source's, by its names; without them the plan cannot be applied.

    Raises:
        RuleError: for rules that do nothing or make one name of two.
    """
    renamed = apply_rules(list(source), rules)
    origins = {new: old for old, new in renamed.names.items()}
    missing = [name for name in target if name not in origins]
    unexpected = [name for name in origins if name not in target]

    def line(name: str) -> Line:
        want, old = target[name], origins.get(name)
        if old is None:
            return Line(name, None, "missing", reason=f"{want}.{did_you_mean(name, unexpected)}", want=want)
        rule = renamed.rules.get(old, "")
        return _compared(Line(name, old, "taken", rule, new=name, have=source[old], want=want))

    lines = [line(name) for name in target]
    for name in unexpected:
        have, old = source[origins[name]], origins[name]
        reason = f"{have}.{did_you_mean(name, missing)}"
        lines.append(Line(None, old, "unexpected", renamed.rules.get(old, ""), reason=reason, new=name, have=have))
    lines += [Line(None, name, "dropped", renamed.rules[name], have=source[name]) for name in renamed.dropped]
    pairs = {line.target: line.source for line in lines if line.target and line.source}
    return WeightPlan(label, tuple(lines), under(arrays or {}, pairs))


def bridges(source: Mapping[str, Form], target: Mapping[str, Form]) -> list[str]:
    """Return the rules that would bridge two sets of names where it is obvious: `OLD=NEW`, one a layer.

    Obvious is a layer that only the source has, with the same variables, shapes and dtypes as exactly one that only
    the target has, and the other way round.
    """
    only_here, only_there = _layers(source, target), _layers(target, source)
    rules = []
    for content, olds in only_here.items():
        news = only_there.get(content, [])
        if len(olds) == len(news) == 1:
            rules.append(f"{olds[0]}={news[0]}")
    return rules


# ---- choices ----------------------------------------------------------------------------------------------------


def with_casts(plan: WeightPlan, patterns: Sequence[str] | None = None) -> WeightPlan:
    """Return the plan with numbers turned into the target's types: of `patterns`, by default where both are floats."""

    def converted(line: Line) -> Line:
        if line.verdict != "dtype" or line.have is None or line.want is None:
            return line
        old, new = line.have.dtype, line.want.dtype
        if not ("float" in old and "float" in new if patterns is None else any_matches(line.name, patterns)):
            return line
        verdict: Verdict = "renamed" if line.source != line.target else "taken"
        return replace(line, verdict=verdict, conversion=f"{old} to {new}", reason="")

    return plan.with_lines(map(converted, plan.lines))


def with_left(plan: WeightPlan, patterns: Sequence[str], option: str) -> WeightPlan:
    """Return the plan with all that no pattern of the option names left as it is, on both sides."""

    def chosen(line: Line) -> Line:
        if any_matches(line.address, patterns):
            return line
        return replace(line, verdict="left", rule="", reason=f"not named by `{option}`")

    return plan.with_lines(map(chosen, plan.lines))


def with_adapted(plan: WeightPlan, rules: Mapping[str, str], classes: Classes | None) -> WeightPlan:
    """Return the plan with shapes that differ adapted by `{pattern of target names: rule}`, where that is possible."""
    adapted: dict[str, str] = {}

    def changed(line: Line) -> Line:
        rule = next((rule for pattern, rule in rules.items() if matches(line.target or "", pattern)), None)
        if line.verdict != "shape" or rule is None or not line.target or line.have is None or line.want is None:
            return line
        problem = refusal(rule, line.have.shape, line.want.shape, classes)
        if problem:
            return replace(line, reason=problem)
        adapted[line.target] = rule
        common = f", {len(classes.common())} classes in both" if rule == CLASSES and classes else ""
        conversion = f"{rule}: {line.have.shape} to {line.want.shape}{common}"
        return replace(line, verdict="adapted", conversion=conversion, reason="")

    lines = tuple(map(changed, plan.lines))
    return replace(plan, lines=lines, adapted=adapted, classes=classes)


def with_file_names(
    plan: WeightPlan,
    origins: Mapping[str, str],
    *,
    rules: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    dropped: Mapping[str, str] | None = None,
) -> WeightPlan:
    """Return the plan with the names that a file has, where the plan was made with others for them.

    Args:
        plan: made with the names of the model's kind.
        origins: `{name in the plan: name in the file}`.
        rules: `{name in the file: the rule that renamed it}`, where rules were applied before the plan was made.
        notes: `{target: what is done to its values}`.
        dropped: `{name in the file: why it is not needed}`, of what is not in the plan.
    """

    def named(line: Line) -> Line:
        if line.source is None or line.source not in origins:
            return line
        origin = origins[line.source]
        is_numbered = names.split(origin)[1].isdigit()  # a number for a name is the format's, not another name
        is_renamed = line.verdict == "taken" and origin != line.target and not is_numbered
        note = (notes or {}).get(line.target or "", "") if _is_taken(line) else ""
        return replace(
            line,
            source=origin,
            verdict="renamed" if is_renamed else line.verdict,
            rule=line.rule or (rules or {}).get(origin, ""),
            conversion="; ".join(part for part in (line.conversion, note) if part),
        )

    extra = [Line(None, name, "dropped", reason=why) for name, why in (dropped or {}).items()]
    return plan.with_lines([*map(named, plan.lines), *extra])


def _is_taken(line: Line) -> bool:
    return line.verdict in TAKEN


def _compared(line: Line) -> Line:
    """Return a line of a name that both sides have, with what its forms say."""
    assert line.have is not None
    assert line.want is not None
    if line.have != line.want:
        verdict: Verdict = "shape" if line.have.shape != line.want.shape else "dtype"
        return replace(line, verdict=verdict, reason=f"{line.have} in the source, {line.want} in the target")
    return replace(line, verdict="renamed") if line.source != line.target else replace(line, rule="")


def _form(array: Any) -> Form:
    return Form(tuple(array.shape), array.dtype if isinstance(array.dtype, str) else array.dtype.name)


def _layers(forms: Mapping[str, Form], others: Collection[str]) -> dict[frozenset[tuple[str, Form]], list[str]]:
    """Return the layers of which no variable is in `others`, by what their variables are."""
    contents: dict[str, set[tuple[str, Form]]] = defaultdict(set)
    for name, form in forms.items():
        layer, leaf = names.split(name)
        contents[layer].add((leaf, form))
    layers: dict[frozenset[tuple[str, Form]], list[str]] = defaultdict(list)
    for layer, leaves in contents.items():
        if layer and not any(f"{layer}/{leaf}" in others for leaf, _ in leaves):
            layers[frozenset(leaves)].append(layer)
    return layers
