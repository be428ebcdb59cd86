"""Transfer by name: a plan that accounts for every array of both sides, then the model that it gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.formats import open_weights
from nameplate.graph import model_weights
from nameplate.graph.clone import clone
from nameplate.graph.tree import require_built, variables
from nameplate.io.automatic_pairs import advice, pair_rules
from nameplate.io.file_names import seed_states
from nameplate.io.load_weights import (
    assign,
    converted_from_torch,
    forms_of_model,
    layout_of,
    require_arrays,
    with_torch_names,
)
from nameplate.naming.rules import Rule, Texts, parse_rules
from nameplate.weights.adaptation import Classes
from nameplate.weights.named import Weights, any_matches, matches, require_matches
from nameplate.weights.plan import Form, Line, WeightPlan, forms_of, listing, match, with_adapted, with_casts

Source: TypeAlias = Any  # a keras.Model, weights by name, or a path
TransferPlan = WeightPlan


class TransferError(NameplateError):
    """A transfer that does not account for everything, or does not fit its model."""


@checked
def plan(
    source: Source,
    target: keras.Model,
    rules: Texts = (),
    *,
    take: Sequence[str] = (),
    keep: Sequence[str] = (),
    adapt: Mapping[str, str] | None = None,
    classes: Classes | None = None,
    label: str = "",
    layout: str | None = None,
    cast: bool = False,
    automatic: Literal["pair"] | None = None,
) -> WeightPlan:
    """Return what a transfer would do; nothing is written.

    Proved: that every array of both sides is accounted for, by name, shape and type. Not proved: that an array is
    what its name says.

    Args:
        source: a model, weights by name, or a path: a run (its best checkpoint), a checkpoint, or a file of weights.
        target: a built model; it is left as it is.
        rules: `{old: new}`, or `OLD=NEW`, `OLD=` to drop, `re:PATTERN=REPLACEMENT`, on the source's names.
        take: patterns of the target's names that are wanted, such as a backbone; by default all are. The rest of the
            target keeps its own values, and the rest of the source is dropped.
        keep: patterns of the target's names that keep their own values whatever the source has, such as a new head.
        adapt: `{pattern of target names: rule}` for shapes that differ: `repeat`, `slice`, `mean` over input channels,
            `classes` for the outputs that both sides name.
        classes: the names of the outputs on both sides, for the rule `classes`.
        label: what to call a source that is not a path.
        layout: "keras" or "torch", the order of the arrays' axes; by default what the file or its names say. PyTorch's
            arrays are transposed by the role of each layer, and the rows behind a flattened picture put into Keras'
            order; the details of the plan say so.
        cast: whether floating-point numbers are turned into the target's types.
        automatic: "pair" takes names that Keras made up on both sides for each other, as in `load_weights`.

    Raises:
        NameplateError: for rules and patterns that match nothing, and a path without a source.
    """
    require_built(target)
    take, keep = ([patterns] if isinstance(patterns, str) else list(patterns) for patterns in (take, keep))
    arrays, where = _opened(source)
    if layout not in (None, "keras", "torch"):
        raise TransferError(f"layout={layout!r}: it is 'keras' or 'torch'")
    wanted = forms_of_model(target)
    for patterns in (take, keep):
        require_matches(wanted, patterns)
    choice = _Choice(wanted, take, keep, adapt or {}, classes, cast)
    torch = (layout or layout_of(arrays)) == "torch"
    chosen = parse_rules(rules)
    if automatic and torch:
        raise TransferError("automatic='pair' is for names that Keras made up, and these are PyTorch's; give rules")
    if automatic:
        chosen += pair_rules(target, forms_of(arrays), chosen, format_=getattr(arrays, "format", ""))
    return _planned(arrays, target, choice, chosen, label=label or where, torch=torch)


@checked
def apply(plan: WeightPlan, model: keras.Model) -> keras.Model:
    """Return an uncompiled copy of the model with the values of the plan, proved equal bit for bit.

    Proved: the values that were taken, bit for bit, and the copy as `rename` proves it. Not proved: what the model
    computes with them.

    Args:
        plan: what `plan` returned for this model.
        model: a built model, which is not changed.

    Raises:
        TransferError: when the plan does not fit, or was made for another model.
    """
    _require_fit(plan, model)
    copy = clone(model)
    write_plan(plan, copy)
    return copy


def write_plan(plan: WeightPlan, model: keras.Model) -> None:
    """Assign the values of the plan to the model's variables, on every replica, all or none.

    Raises:
        TransferError: when the plan does not fit, or was made for another model.
    """
    _require_fit(plan, model)
    prove(assign(plan, variables(model)), model)
    model_weights.refresh(model)


def prove(values: Weights, model: keras.Model) -> None:
    """Compare variables of a model with values, bit for bit.

    Raises:
        TransferError: with every name that the model does not have, or whose value differs.
    """
    held = model_weights.read(model)
    problems = [f"{name}: not there" for name in values if name not in held]
    problems += [
        f"{name}: other values" for name, value in values.items() if name in held and not _equal(value, held[name])
    ]
    if problems:
        raise TransferError("\n".join([f"{model.name!r} does not have what was taken:", *(f"  {p}" for p in problems)]))


@dataclass(frozen=True)
class _Choice:
    """What a transfer is to take, keep and convert: the arguments of `plan`."""

    wanted: Mapping[str, Form]  # of the target
    take: Sequence[str]
    keep: Sequence[str]
    adapt: Mapping[str, str]
    classes: Classes | None
    cast: bool

    def takes(self, name: str) -> bool:
        """Return whether a variable of the target is to get a value."""
        return not any_matches(name, self.keep) and (not self.take or any_matches(name, self.take))


def _planned(
    arrays: Weights, target: keras.Model, choice: _Choice, rules: Sequence[Rule], *, label: str, torch: bool
) -> WeightPlan:
    converted = converted_from_torch(target, arrays, choice.wanted, rules) if torch else None
    if converted is not None:
        arrays, rules = converted.weights, []
    free = {name: form for name, form in choice.wanted.items() if choice.takes(name)}
    plan = match(forms_of(arrays), free, rules=rules, label=label, arrays=arrays)
    if choice.cast:
        plan = with_casts(plan)
    kept = [
        Line(name, None, "kept", reason="keeps its own values", want=form)
        for name, form in choice.wanted.items()
        if name not in free
    ]
    plan = plan.with_lines([*(_unwanted(line, choice) for line in plan.lines), *kept])
    _refuse_unused(plan, choice.adapt)
    plan = with_adapted(plan, choice.adapt, choice.classes)
    return with_torch_names(plan, converted) if converted else plan


def _unwanted(line: Line, choice: _Choice) -> Line:
    """Return a line of the source as dropped where its place in the target keeps its own value."""
    if line.verdict != "unexpected" or choice.takes(line.address):
        return line
    return replace(line, verdict="dropped", rule="", reason="the target keeps its own")


def _refuse_unused(plan: WeightPlan, adapt: Mapping[str, str]) -> None:
    differing = [line.target for line in plan.lines if line.verdict == "shape" and line.target]
    unused = [pattern for pattern in adapt if not any(matches(name, pattern) for name in differing)]
    if unused:
        there = ", ".join(differing) or "none"
        raise TransferError(
            f"adapt: {', '.join(map(repr, unused))} matches nothing; arrays whose shape differs: {there}"
        )


def _require_fit(plan: WeightPlan, model: Any) -> None:
    shapes = {name: tuple(variable.shape) for name, variable in variables(model).items()}
    wanted = {line.target: line.want.shape for line in plan.lines if line.target and line.want}
    strangers = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if strangers:
        raise TransferError(
            f"the plan was made for another model than {model.name!r}, which has no such {', '.join(strangers[:5])}"
        )
    if plan.fits:
        return
    head = (
        f"{len(plan.taken)} of {len(wanted)} arrays would be taken from {plan.source}, "
        f"{len(plan.problems)} are left over:"
    )
    ways = "Rename with rules OLD=NEW, drop with OLD=, keep=[...] what is new here, or adapt={NAME: rule} a shape."
    if any(line.verdict == "dtype" for line in plan.problems):
        ways += " cast=True turns floating-point numbers into the model's types."
    forms = {line.source: line.have for line in plan.lines if line.source and line.have}
    pairs = [] if any(line.rule for line in plan.lines) else pair_rules(model, forms)
    hint = advice(pairs, plan, remedy="plan(..., automatic='pair') pairs them by class and order.")
    raise TransferError("\n".join([head, *listing(plan.problems), ways, *([hint] if hint else [])]))


def _opened(source: Source) -> tuple[Weights, str]:
    """Return the arrays of a source and what to call it."""
    if isinstance(source, keras.Model):
        drawn = seed_states(source)
        weights = {name: value for name, value in model_weights.read(source).items() if name not in drawn}
        return weights, str(source.name)
    if isinstance(source, Mapping):
        require_arrays(source)
        return source, "weights"
    if not isinstance(source, str | os.PathLike):
        raise TransferError(f"a source is a model, weights by name or a path, not a {type(source).__name__}")
    path = Path(source)
    return open_weights(path), str(path)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
