"""The initial weights of a run, from a checkpoint or a file: all of them by name, or a part of another model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint import location, tensor_names
from nameplate.data.targets import TargetError, call, resolver
from nameplate.errors import NameplateError
from nameplate.graph import model_weights
from nameplate.io.file_names import seed_states
from nameplate.io.load_weights import converted_from_torch, forms_of_model, layout_of, with_torch_names
from nameplate.io.transfer import write_plan
from nameplate.naming.names import did_you_mean
from nameplate.naming.rules import Rule, apply_rules, parse_rules
from nameplate.training.config import CheckpointInitConfig, CustomInitConfig, NamedInitConfig, TransferInitConfig
from nameplate.training.weight_sources import WeightSource, open_source
from nameplate.weights.adaptation import Classes
from nameplate.weights.named import Weights, any_matches, matches, require_matches
from nameplate.weights.plan import (
    Form,
    Line,
    Verdict,
    WeightPlan,
    bridges,
    forms_of,
    listing,
    match,
    with_casts,
    with_left,
)

Show = Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]  # title, columns, rows
Account = Callable[[WeightPlan], None]  # prints a plan
Origins = dict[str, dict[str, Any]]  # variable -> file, name in it, rule that renamed it


class InitialWeightsError(NameplateError):
    """A source of initial weights that does not fit, and no setting allows for it."""


def take_weights(
    model: keras.Model, init: NamedInitConfig, *, show: Show, account: Account, made: Weights | None = None
) -> Origins:
    """Write the weights that `init` names into the model, proved equal bit for bit, and return where each came from.

    Those of a `CustomInitConfig` are `made` already, by `made_weights`.

    Raises:
        InitialWeightsError: with every name that is left over on either side, and every shape and type that differs,
            unless `init` allows it.
        NameplateError: there is no such source, or a rule, pattern or leniency matches nothing.
    """
    with _source(init, show, made) as source:
        if isinstance(init, TransferInitConfig):
            plan = _transfer_plan(source, model, init)
        else:
            plan = _whole_plan(source, model, init)
        account(plan)
        if not isinstance(init, TransferInitConfig):  # a transfer's refusal is `write_plan`'s
            _require_fit(plan, model, init)
        write_plan(plan, model)
    step = {"step": source.step} if source.checkpoint else {}
    return {target: origin | step for target, origin in plan.origins().items()}


def function_of(init: CustomInitConfig, trust: Sequence[str]) -> Callable[..., Any]:
    """Return the function that makes weights; raise TargetError if it does not exist or its package is not trusted."""
    try:
        found: Callable[..., Any] = resolver(trust, instead="files, by init=checkpoint")(init._target_)
    except TargetError as error:
        raise TargetError(f"init.{error}") from error
    return found


def made_weights(model: keras.Model, init: CustomInitConfig, *, trust: Sequence[str], seed: int) -> Weights:
    """Return the arrays that the function of `init` makes, by name; it is offered `model` and `seed`.

    Raises:
        TargetError: it is not trusted, raises an error, or returns something else.
    """
    function = function_of(init, trust)
    try:
        made = call(function, init._target_, offered={"model": model, "seed": seed}, given=init.arguments)
    except TargetError as error:
        raise TargetError(f"init: {error}") from error
    expected = "it must return {variable name: array}, or a model whose weights they are"
    if isinstance(made, keras.Model):
        drawn = seed_states(made)
        return {name: value for name, value in model_weights.read(made).items() if name not in drawn}
    if not isinstance(made, Mapping):
        raise TargetError(f"init: {init._target_} returned {type(made).__name__}; {expected}")
    arrays = {str(name): _array(value) for name, value in made.items()}
    if other := [name for name, array in arrays.items() if array is None]:
        raise TargetError(f"init: {init._target_} returned no array of numbers for {', '.join(other[:5])}; {expected}")
    return {name: array for name, array in arrays.items() if array is not None}


def _array(value: Any) -> np.ndarray | None:
    """Return an array, tensor or variable in host memory; None for what is none, or has no numbers."""
    try:
        array = keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)
    except (TypeError, ValueError):
        return None
    return None if array.dtype.kind in "OUSMm" else array


def take_slots(
    weights: Mapping[str, keras.Variable],
    slots: Mapping[str, keras.Variable],
    iteration: keras.Variable,
    init: CheckpointInitConfig,
    origins: Origins,
) -> None:
    """Write the optimizer's slots of the variables that were taken, and its count of steps, which belongs to them.

    Where the source has averages of its weights, training goes on with the weights that they are averages of.

    Raises:
        InitialWeightsError: with every slot that is left over on either side or of another shape.
    """
    with _opened(init.path) as source:
        raw, optimizer = tensor_names.as_trained(source.weights, source.optimizer)
        renamed = apply_rules([*source.weights, *optimizer], parse_rules(init.rename)).names
        given = {renamed[name]: name for name in optimizer if renamed.get(name, "").partition("@")[0] in origins}
        wanted = {name: variable for name, variable in slots.items() if name.partition("@")[0] in origins}
        arrays = {name: optimizer[old] for name, old in given.items()}
        plan = match(forms_of(arrays), forms_of(wanted), label=source.label)
        problems = [line for line in plan.problems if line.verdict != "dtype"]  # assigning casts
        if problems or "optimizer/iteration" not in source.state:
            head = f"the optimizer in {source.label} is not the one of this run; nothing was written:"
            way = "Choose the optimizer that it was trained with, or leave out init.optimizer=true."
            raise InitialWeightsError("\n".join([head, *(listing(problems) or ["  it has no optimizer state"]), way]))
        for name, variable in wanted.items():
            variable.assign(arrays[name])
        averages = {name: old.partition("@")[0] for name, old in given.items() if name.endswith("@average")}
        for name, old in averages.items():
            weights[name.removesuffix("@average")].assign(raw[old])
        iteration.assign(source.state["optimizer/iteration"])


def planned(
    source: Mapping[str, Form],
    target: Mapping[str, Form],
    init: NamedInitConfig,
    *,
    rules: Sequence[Rule] | None = None,
    label: str = "the source",
    arrays: Weights | None = None,
) -> WeightPlan:
    """Return the plan that `init` makes for two sets of names; reads no array.

    Args:
        source: what each array is.
        target: what each variable is.
        init: which names to take, and what may be left over.
        rules: the rename rules, by default those of `init`.
        label: what to call the source.
        arrays: the source's, by its names.

    Raises:
        NameplateError: rules, patterns and leniencies that match nothing.
    """
    rules = parse_rules(init.rename) if rules is None else rules
    plan = match(source, target, rules=rules, label=label, arrays=arrays)
    if init.only:
        require_matches(target, init.only)
        plan = with_left(plan, init.only, "init.only")
    allowed = _allowed(init)
    _refuse_unused(plan, allowed)
    plan = with_casts(plan, init.allow_dtype) if init.allow_dtype else plan
    return plan.with_lines(_judged(line, allowed) for line in plan.lines)


def _whole_plan(source: WeightSource, model: keras.Model, init: NamedInitConfig) -> WeightPlan:
    """Return the plan for all weights of a source; those of PyTorch are converted to Keras' layouts first."""
    target = forms_of_model(model)
    if layout_of(source.weights) != "torch":
        return planned(source.forms, target, init, label=source.label, arrays=source.weights)
    converted = converted_from_torch(model, source.weights, target, parse_rules(init.rename), forms=source.forms)
    forms = converted.weights.forms
    plan = planned(forms, target, init, rules=(), label=source.label, arrays=converted.weights)
    return with_torch_names(plan, converted)


def _transfer_plan(source: WeightSource, model: keras.Model, init: TransferInitConfig) -> WeightPlan:
    classes = Classes(tuple(init.source_classes), tuple(init.target_classes)) if init.source_classes else None
    return nameplate.plan(
        source.weights, model, init.rename, take=init.only, adapt=init.adapt, classes=classes, label=source.label
    )


# ---- leniencies -------------------------------------------------------------------------------------------------

_WHERE_ALLOWED: Mapping[str, Verdict] = {"missing": "kept", "unexpected": "left", "shape": "kept"}


def _allowed(init: NamedInitConfig) -> dict[str, list[str]]:
    """Return `{verdict: patterns of names for which it is allowed}`."""
    return {
        "missing": init.allow_missing,
        "unexpected": init.allow_unexpected,
        "shape": init.allow_shape,
        "dtype": init.allow_dtype,
    }


def _judged(line: Line, allowed: Mapping[str, list[str]]) -> Line:
    """Return a line whose verdict says what happens where a leniency covers it."""
    if line.verdict not in _WHERE_ALLOWED or not any_matches(line.name, allowed[line.verdict]):
        return line
    reason = f"init.allow_{line.verdict}: {line.reason}"
    return replace(line, verdict=_WHERE_ALLOWED[line.verdict], reason=reason)


def _refuse_unused(plan: WeightPlan, allowed: Mapping[str, list[str]]) -> None:
    problems = []
    for verdict, patterns in allowed.items():
        differing = [line.name for line in plan.lines if line.verdict == verdict]
        for pattern in patterns:
            if not any(matches(name, pattern) for name in differing):
                meant = did_you_mean(pattern, [*differing, *(name.rpartition("/")[0] for name in differing)])
                problems.append(f"  init.allow_{verdict}: {pattern!r} allows nothing, {_shown(differing)}.{meant}")
    if problems:
        raise InitialWeightsError("\n".join(["these leniencies are unused; nothing was loaded:", *problems]))


def _require_fit(plan: WeightPlan, model: keras.Model, init: NamedInitConfig) -> None:
    if plan.fits:
        return
    wanted = sum(line.target is not None and line.verdict != "left" for line in plan.lines)
    head = (
        f"the weights in {plan.source} are not those of {model.name!r}: {len(plan.taken)} of {wanted} would be "
        f"taken, and {len(plan.problems)} names are left over; nothing was loaded:"
    )
    here = {line.new: line.have for line in plan.lines if line.new and line.have}
    there = {line.target: line.want for line in plan.lines if line.target and line.want}
    rules = [] if init.rename else bridges(here, there)
    ways = [
        f'These rules would bridge it: "init.rename=[{",".join(map(repr, rules))}]".' if rules else "",
        "Otherwise rename with \"init.rename=['OLD=NEW']\", load a part with init.only=[NAME], or allow it with:",
        " ".join(_leniencies(plan)) or "(nothing was in common)",
    ]
    raise InitialWeightsError("\n".join([head, *listing(plan.problems), *(way for way in ways if way)]))


def _leniencies(plan: WeightPlan) -> Iterator[str]:
    """Yield the settings that would allow all that is left over, a layer each."""
    for verdict in dict.fromkeys(line.verdict for line in plan.problems):
        names = [line.name for line in plan.problems if line.verdict == verdict]
        layers = dict.fromkeys(name.rpartition("/")[0] or name for name in names)
        yield f"init.allow_{verdict}=[{','.join(layers)}]"


def _shown(names: list[str]) -> str:
    text = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"there are {text}" if names else "there is no such difference"


# ---- the source -------------------------------------------------------------------------------------------------


@contextmanager
def _source(init: NamedInitConfig, show: Show, made: Weights | None) -> Iterator[WeightSource]:
    """Open the source of the weights: the path of `init`, or what was made."""
    if isinstance(init, CheckpointInitConfig):
        with _opened(init.path, show) as source:
            yield source
    elif isinstance(init, CustomInitConfig):
        yield WeightSource(init._target_, made or {}, {}, {}, None)


@contextmanager
def _opened(text: str, show: Show = lambda *_: None) -> Iterator[WeightSource]:
    """Open a source: of a run the best good checkpoint, or else the newest. Damaged ones are skipped and shown."""
    damaged: list[tuple[str, ...]] = []
    best = _best(Path(text), damaged)
    if damaged:
        show(f"damaged in {text}, and skipped", ("checkpoint", "reason"), damaged)
    with open_source(best or text) as source:
        yield source


def _best(path: Path, damaged: list[tuple[str, ...]]) -> str | None:
    for directory in (path / location.CHECKPOINTS, path):
        if (directory / "best").is_file() or store.checkpoints(directory):
            best = store.best(directory, lambda checkpoint, error: damaged.append((checkpoint.name, str(error))))
            return None if best is None else str(best)
    return None
