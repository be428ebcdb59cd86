"""Transfer by name: a plan that accounts for every array of both sides, then the model that it gives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from nameplate import checkpoint as store
from nameplate import text_table
from nameplate.errors import NameplateError
from nameplate.formats import open_weights
from nameplate.formats.pytorch_weights import Converted, to_keras, torch_rules
from nameplate.graph import model_weights
from nameplate.graph.clone import clone
from nameplate.graph.tree import require_built, seeds, variables
from nameplate.io.channel_order import rows_by_layer
from nameplate.io.load_weights import casting, classes_of, layout_of, numpy_dtype, require_arrays, with_origins
from nameplate.naming.rules import Rule, apply_rules, parse_rules
from nameplate.weights import plan as matching
from nameplate.weights.class_mapping import Classes, refusal, reshaped
from nameplate.weights.named import Weights, matches, require_matches
from nameplate.weights.plan import Form, Line, Plan

GOOD = ("taken", "renamed", "dropped", "kept", "adapted")
LOADED = ("taken", "renamed", "adapted")
Source: TypeAlias = Any  # a keras.Model, weights by name, or a path


class TransferError(NameplateError):
    """A transfer that does not account for everything, or does not fit its model."""


@dataclass(frozen=True)
class TransferPlan:
    """What becomes of every array of both sides: data, to print, to test, to write as JSON, and then to apply.

    Verdicts: `taken`, `renamed` (by the rule in `detail`), `adapted` (by the rule in `detail`), `kept` (as the target
    has it), `dropped`; and what stands in the way: `missing`, `unexpected`, `shape`, `dtype`.
    """

    source: str  # where the arrays come from
    lines: tuple[Line, ...]
    rules: Mapping[str, str] = field(default_factory=dict)  # target -> rule that adapts
    classes: Classes | None = None
    arrays: Weights = field(default_factory=dict, repr=False, compare=False)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)  # of the target
    converted: bool = False  # whether `arrays` are PyTorch's turned into Keras', under the target's names

    @property
    def fits(self) -> bool:
        """Whether nothing stands in the way, and anything is taken."""
        return bool(self.taken) and all(line.verdict in GOOD for line in self.lines)

    @property
    def taken(self) -> dict[str, str]:
        """Target name -> source name, of all that gets a value."""
        found = (line for line in self.lines if line.verdict in LOADED)
        return {line.target: line.source for line in found if line.target and line.source}

    def counts(self) -> dict[str, int]:
        """Return how many lines there are of each verdict."""
        found: dict[str, int] = {}
        for line in self.lines:
            found[line.verdict] = found.get(line.verdict, 0) + 1
        return found

    def origins(self) -> dict[str, dict[str, Any]]:
        """Return where each value comes from, for a manifest: file, name in it, and the rule."""
        told = {line.target: line for line in self.lines}
        return {
            target: {"file": self.source, "name": name}
            | ({"rule": told[target].detail} if told[target].verdict != "taken" else {})
            for target, name in self.taken.items()
        }

    def table(self) -> str:
        """Return a line a name in columns, and the counts."""
        rows = [(line.verdict, line.target or "", line.source or "", line.detail) for line in self.lines]
        lines = text_table.fitted(rows)
        total = ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items())
        return "\n".join([*(line.rstrip() for line in lines), f"from {self.source}: {total}"])

    def json(self) -> str:
        """Return the plan as JSON, without arrays."""
        lines = [vars(line) for line in self.lines]
        return json.dumps({"source": self.source, "fits": self.fits, "lines": lines}, indent=1)

    def __str__(self) -> str:
        return self.table()


def plan(
    source: Source,
    target: keras.Model,
    rules: Iterable[str] | Mapping[str, str] = (),
    *,
    take: Sequence[str] = (),
    keep: Sequence[str] = (),
    adapt: Mapping[str, str] | None = None,
    classes: Classes | None = None,
    label: str = "",
    layout: str | None = None,
    cast: bool = False,
) -> TransferPlan:
    """Return what a transfer would do; nothing is written.

    Proved: that every array of both sides is accounted for, by name, shape and type. Not proved: that an array is
    what its name says.

    Args:
        source: a model, weights by name, or the path of a checkpoint or of any file of weights.
        target: a built model; it is left as it is.
        rules: `{old: new}`, or `OLD=NEW`, `OLD=` to drop, `re:PATTERN=REPLACEMENT`, on the source's names.
        take: patterns of the target's names that are wanted, a backbone; without any, all are. The rest keeps its own
            values, and what else the source has is left there.
        keep: patterns of the target's names that keep their own values whatever the source has: a new head.
        adapt: `{pattern of target names: rule}` for shapes that differ: `repeat`, `slice`, `mean` over input channels,
            `classes` for the outputs that both sides name.
        classes: what `classes` needs to know.
        label: what to call a source that is no path.
        layout: "keras" or "torch", whose order of axes the arrays have; by default what the file or its names say.
            From PyTorch's they are transposed by the role of each layer, and the rows behind a flattened picture put
            into Keras' order; the details of the plan say so.
        cast: whether floating-point numbers are turned into the target's types.

    Raises:
        NameplateError: for rules and patterns that are for nothing, and a path at which there is no source.
    """
    require_built(target)
    take, keep = ([each] if isinstance(each, str) else list(each) for each in (take, keep))
    arrays, where = _opened(source)
    if layout not in (None, "keras", "torch"):
        raise TransferError(f"layout={layout!r}: it is 'keras' or 'torch'")
    layout = layout or layout_of(arrays)
    forms = _forms(arrays)
    wanted = {name: Form(tuple(each.shape), str(each.dtype)) for name, each in variables(target).items()}
    for name in seeds(target):
        wanted.pop(f"{name}/state", None)
    for patterns in (take, keep):
        require_matches(wanted, list(patterns))
    free = {name: form for name, form in wanted.items() if not _any(name, keep) and (not take or _any(name, take))}
    converted, given = None, parse_rules(rules)
    if layout == "torch":
        converted = _converted(arrays, forms, target, wanted, given)
        arrays, forms, given = converted.weights, dict(converted.weights.forms), []
    made = matching.match(forms, free, rules=given)
    new = apply_rules(list(forms), given).names
    lines = [_left_alone(line, new, take, keep) for line in made.lines]
    lines = list(casting(Plan(tuple(lines)), forms, wanted).lines) if cast else lines
    lines += [Line(name, None, "kept", "keeps its own values") for name in wanted if name not in free]
    lines, adapted = _adapted(lines, forms, wanted, adapt or {}, classes)
    lines = list(with_origins(Plan(tuple(lines)), converted).lines) if converted else lines
    shapes = {name: form.shape for name, form in wanted.items()}
    return TransferPlan(label or where, tuple(lines), adapted, classes, arrays, shapes, converted is not None)


def apply(plan: TransferPlan, model: keras.Model) -> keras.Model:
    """Return an uncompiled copy of the model with the values of the plan, proved equal bit for bit.

    Proved: the values that were taken, bit for bit, and the copy as `rename` proves it. Not proved: what the model
    computes with them.

    Args:
        plan: what `plan` returned for this model.
        model: a built model, which is not changed.

    Raises:
        TransferError: when the plan does not fit, or was made for another model.
    """
    _refuse(plan, model)
    copy = clone(model)
    write_plan(plan, copy)
    return copy


def write_plan(plan: TransferPlan, model: keras.Model) -> None:
    """Assign the values of the plan to the model's variables, on every replica, all or none.

    Raises:
        TransferError: when the plan does not fit, or was made for another model.
    """
    _refuse(plan, model)
    targets = variables(model)
    values = {}
    for target, name in plan.taken.items():
        value = np.asarray(plan.arrays[target if plan.converted else name])
        if target in plan.rules:
            own = np.asarray(targets[target].numpy())
            value = reshaped(plan.rules[target], value, own.shape, own=own, classes=plan.classes)
        values[target] = value
    for target, value in values.items():
        dtype = numpy_dtype(str(targets[target].dtype))  # another one only where the plan casts
        values[target] = value if value.dtype == dtype else value.astype(dtype)
        targets[target].assign(values[target])
    prove(values, model)


def prove(values: Weights, model: keras.Model) -> None:
    """Compare variables of a model with values, bit for bit.

    Raises:
        TransferError: with every name that the model does not have, or whose value is another.
    """
    here = model_weights.read(model)
    problems = [f"{name}: not there" for name in values if name not in here]
    problems += [
        f"{name}: other values" for name, value in values.items() if name in here and not _equal(value, here[name])
    ]
    if problems:
        raise TransferError("\n".join([f"{model.name!r} does not have what was taken:", *(f"  {p}" for p in problems)]))


def _refuse(plan: TransferPlan, model: Any) -> None:
    shapes = {name: tuple(each.shape) for name, each in variables(model).items()}
    strangers = [name for name, shape in plan.shapes.items() if shapes.get(name) != shape]
    if strangers:
        raise TransferError(
            f"the plan was made for another model than {model.name!r}, which has no such {', '.join(strangers[:5])}"
        )
    if plan.fits:
        return
    bad = [line for line in plan.lines if line.verdict not in GOOD]
    lines = [f"  {line.verdict:<11} {line.target or line.source}   {line.detail}" for line in bad]
    head = (
        f"{len(plan.taken)} of {len(plan.shapes)} arrays would be taken from {plan.source}, {len(bad)} are left over:"
    )
    ways = "Rename with rules OLD=NEW, drop with OLD=, keep=[...] what is new here, or adapt={NAME: rule} a shape."
    if any(line.verdict == "dtype" for line in bad):
        ways += " cast=True turns floating-point numbers into the model's types."
    raise TransferError("\n".join([head, *lines, ways]))


def _opened(source: Source) -> tuple[Weights, str]:
    if isinstance(source, keras.Model):
        drawn = {f"{name}/state" for name in seeds(source)}
        return {name: value for name, value in model_weights.read(source).items() if name not in drawn}, str(
            source.name
        )
    if isinstance(source, Mapping):
        require_arrays(source)
        return source, "weights"
    if not isinstance(source, str | os.PathLike):
        raise TransferError(f"a source is a model, weights by name or a path, not a {type(source).__name__}")
    path = Path(source)
    if (path / "manifest.json").is_file():
        return store.open(path).weights, str(path)
    return open_weights(path), str(path)


def _forms(arrays: Weights) -> dict[str, Form]:
    known: Mapping[str, Any] = getattr(arrays, "forms", None) or getattr(arrays, "records", None) or {}
    found = {}
    for name in arrays:
        each = known.get(name)
        each = arrays[name] if each is None else each
        dtype = each.dtype if isinstance(each.dtype, str) else each.dtype.name
        found[name] = Form(tuple(each.shape), dtype)
    return found


def _converted(
    arrays: Weights,
    forms: Mapping[str, Form],
    target: keras.Model,
    wanted: Mapping[str, Form],
    rules: Sequence[Rule],
) -> Converted:
    """Return PyTorch's arrays as the target's, under its names: the rules are done with."""
    rows = rows_by_layer(target)
    return to_keras(arrays, forms, classes=classes_of(target), targets=wanted, rules=torch_rules(rules), rows=rows)


def _left_alone(line: Line, new: Mapping[str, str], take: Sequence[str], keep: Sequence[str]) -> Line:
    """Return a line of the source that only meets what nobody wants as dropped: that it is not taken was said."""
    if line.verdict != "unexpected" or line.source is None:
        return line
    name = new.get(line.source, line.source)
    unwanted = _any(name, keep) or (bool(take) and not _any(name, take))
    return replace(line, verdict="dropped", detail="the target keeps its own") if unwanted else line


def _adapted(
    lines: Sequence[Line],
    forms: Mapping[str, Form],
    wanted: Mapping[str, Form],
    adapt: Mapping[str, str],
    classes: Classes | None,
) -> tuple[list[Line], dict[str, str]]:
    """Return the lines with what the rules bridge, and `{target: rule}`."""
    differing = {line.target: line for line in lines if line.verdict == "shape" and line.target}
    idle = [pattern for pattern in adapt if not any(matches(name, pattern) for name in differing)]
    if idle:
        there = ", ".join(differing) or "none"
        raise TransferError(f"adapt: {', '.join(map(repr, idle))} is for nothing; arrays whose shape differs: {there}")
    rules: dict[str, str] = {}
    made = []
    for line in lines:
        rule = next((rule for pattern, rule in adapt.items() if matches(line.target or "", pattern)), None)
        if line.verdict != "shape" or rule is None or line.target is None or line.source is None:
            made.append(line)
            continue
        before, after = forms[line.source].shape, wanted[line.target].shape
        problem = refusal(rule, before, after, classes)
        if problem:
            made.append(replace(line, detail=problem))
            continue
        rules[line.target] = rule
        kept = f", {len(classes.common())} classes in both" if rule == "classes" and classes else ""
        made.append(replace(line, verdict="adapted", detail=f"{rule}: {before} to {after}{kept}"))
    return made, rules


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
