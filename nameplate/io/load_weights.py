"""Weights of any file into a model that is there, by name: planned, accounted for on both sides, then written."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.checkpoint import dtypes
from nameplate.errors import NameplateError
from nameplate.formats import pytorch_layouts
from nameplate.formats.arrays import Arrays
from nameplate.formats.pytorch_weights import ROWS_UNKNOWN, Converted, to_keras, torch_rules
from nameplate.formats.registry import open_weights
from nameplate.graph.tree import owned_variables, require_built, walk
from nameplate.io.channel_order import rows_by_layer
from nameplate.io.file_names import better_names, once_each, seed_states
from nameplate.io.lora_files import merged_adapters, reset_adapters
from nameplate.naming import names
from nameplate.naming.rules import Rule, Texts, parse_rules
from nameplate.weights.named import Weights, require_matches
from nameplate.weights.named import matches as named_by
from nameplate.weights.plan import Form, Line, Plan, match

_GOOD = ("taken", "renamed", "dropped", "left")
_LOADED = ("taken", "renamed")
_SHOWN = 20
_DRAWN = "seed_generator_state"  # how Keras calls the state of every random generator


class LoadingError(NameplateError):
    """Weights that do not fit a model; nothing was written."""


class OrderWarning(UserWarning):
    """An order that nobody can check: of classes in a file without names, or of the rows of a flattened picture."""


@dataclass(frozen=True)
class Report:
    """What became of every name, of the file and of the model; `print` it for a line a layer.

    Its plan has the verdicts of `nameplate.weights.plan` and `left`, for what `only` left out.
    """

    source: str
    plan: Plan

    @property
    def loaded(self) -> tuple[str, ...]:
        """The model's variables that have new values."""
        return tuple(line.target for line in self.plan.lines if line.target and line.verdict in _LOADED)

    def layers(self) -> dict[str, dict[str, int]]:
        """Return `{layer: {verdict: how many of its variables}}`; what only the file has stands under its own name."""
        found: dict[str, dict[str, int]] = {}
        for line in self.plan.lines:
            counts = found.setdefault(names.split(line.target or line.source or "")[0], {})
            counts[line.verdict] = counts.get(line.verdict, 0) + 1
        return found

    def __str__(self) -> str:
        total = ", ".join(f"{count} {verdict}" for verdict, count in self.plan.counts().items())
        rows = [
            f"  {layer or '(the model)'}   {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}"
            for layer, counts in self.layers().items()
        ]
        return "\n".join([f"{self.source}: {total}", *rows])


def load_weights(
    model: keras.Model,
    source: str | os.PathLike[str] | Weights,
    *,
    only: Sequence[str] | None = None,
    rename: Texts = (),
    partial: bool = False,
    cast: bool = False,
    by_order: bool = False,
    layout: str | None = None,
) -> Report:
    """Write the arrays of a file to the variables of their names, and say what became of each.

    Proved: that names, shapes and types agree, on both sides but for what was asked for. Not proved: that an array
    is what its name says, and what the model computes with it.

    Args:
        model: a built model; its variables change, on every replica, or none does.
        source: a file that `nameplate.formats.open_weights` knows, or weights by name.
        only: variables, layers, containers or shell patterns of the model's; the rest is left as it is.
        rename: `{old: new}` or rules (`OLD=NEW`, `OLD=` to drop, `re:PATTERN=REPLACEMENT`) from names of the file to
            names of the model; of PyTorch's names the dots are slashes.
        partial: load what fits; what is missing, unexpected or of another shape is only reported.
        cast: turn floating-point numbers into the model's types.
        by_order: for a `.weights.h5` without names: each class's layers in their order, with a warning.
        layout: "keras" or "torch", whose order of axes the arrays have; by default what the file or its names say.
            From PyTorch's, the rows of a Dense behind a flattened picture go into Keras' order where the graph shows
            the Flatten; where it cannot be seen, an `OrderWarning` names the variable.

    Raises:
        LoadingError: with everything that is missing, unexpected or of another shape, and when nothing fits at all.
        FileFormatError: when the file cannot be read or is refused.
        RuleError: for a rule that does nothing.
    """
    if layout not in (None, "keras", "torch"):
        raise LoadingError(f"layout={layout!r}: it is 'keras' or 'torch'")
    require_built(model)
    only = [only] if isinstance(only, str) else only
    wanted = _Wanted(only, parse_rules(rename), partial, cast, by_order)
    if isinstance(source, Mapping):
        require_arrays(source)
        return _load(model, source, "weights", layout or layout_of(source), wanted)
    if not isinstance(source, str | os.PathLike):
        raise LoadingError(f"a source is a path or weights by name, not a {type(source).__name__}")
    with open_weights(source) as arrays:
        return _load(model, arrays, str(source), layout or layout_of(arrays), wanted)


def require_arrays(weights: Weights) -> None:
    """Raise `LoadingError` with each name of weights that stands for something else than an array; reads no file."""
    if not isinstance(weights, dict):
        return
    strangers = [f"{name}: a {type(each).__name__}" for name, each in weights.items() if not hasattr(each, "dtype")]
    if strangers:
        raise LoadingError("\n  ".join(["weights are NumPy arrays by name; these are not:", *strangers[:_SHOWN]]))


def plan_weights(model: keras.Model, source: Arrays) -> Plan:
    """Return the plan of loading a file in Keras' layout into a model, without reading an array."""
    forms = _forms(source)
    there = {name: _form(variable) for name, variable in _targets(model, forms).items()}
    better = better_names(model, list(forms), [], format_=source.format)
    aliases, _ = once_each(source, {name: better.get(name, name) for name in forms})
    plan = match({new: forms[name] for name, new in aliases.items()}, there)
    origins = {new: old for old, new in aliases.items()}
    return Plan(tuple(replace(line, source=origins.get(line.source or "", line.source)) for line in plan.lines))


@dataclass(frozen=True)
class _Wanted:
    """How weights are to be loaded: the arguments of `load_weights`."""

    only: Sequence[str] | None
    rules: list[Rule]
    partial: bool
    cast: bool
    by_order: bool


def _load(model: keras.Model, source: Weights, label: str, layout: str, wanted: _Wanted) -> Report:
    forms = _forms(source)
    targets = _targets(model, forms)
    merged = merged_adapters(targets, source)
    there = {name: _form(variable) for name, variable in targets.items() if name not in merged}
    drawn = [name for name in forms if name.endswith(_DRAWN) and name not in there]
    forms = {name: form for name, form in forms.items() if name not in drawn}
    converted = None
    offered: Weights
    new: dict[str, str] = {}  # name in the file -> a better one
    again: dict[str, str] = {}  # name in the file -> another that is of the same variable
    if layout == "torch":
        rules = torch_rules(wanted.rules)
        converted = to_keras(
            source, forms, classes=classes_of(model), targets=there, rules=rules, rows=rows_by_layer(model)
        )
        offered, here, plan = converted.weights, converted.weights.forms, match(converted.weights.forms, there)
    else:
        aliases = _in_order(model, source, label) if wanted.by_order else {}
        found = [aliases.get(name, name) for name in forms]
        aliases |= better_names(model, found, wanted.rules, format_=getattr(source, "format", ""))
        new = {name: aliases.get(step := aliases.get(name, name), step) for name in forms}
        new, again = once_each(source, new)
        offered, here = _Under(source, {new[name]: name for name in new}), {new[name]: forms[name] for name in new}
        plan = match(here, there, rules=wanted.rules)
    plan = _chosen(casting(plan, here, there) if wanted.cast else plan, wanted.only, there)
    told = with_origins(plan, converted) if converted else _with_names_of_the_file(plan, new)
    ignored = [Line(None, name, "dropped", "a random generator, named by a count") for name in drawn]
    ignored += [Line(None, name, "dropped", f"the same variable as {first}") for name, first in again.items()]
    report = Report(label, Plan((*told.lines, *ignored)))
    _require(report, model, source, partial=wanted.partial)
    if converted:
        _say_unknown_rows(label, converted)
    values = {target: offered[origin] for target, origin in plan.sources.items()}  # all read before one is written
    for target, value in values.items():
        dtype = numpy_dtype(there[target].dtype)
        targets[target].assign(value if value.dtype == dtype else value.astype(dtype))
    reset_adapters(merged, targets, report.loaded)
    return report


def _say_unknown_rows(label: str, converted: Converted) -> None:
    unknown = {name: why for name, why in converted.notes.items() if why.startswith(ROWS_UNKNOWN)}
    if unknown:
        lines = "".join(f"\n  {name}: {why}" for name, why in unknown.items())
        advice = "If PyTorch flattens a picture there, channels come first; compare the outputs of both."
        warnings.warn(f"{label}: loaded without knowing the order of some rows:{lines}\n{advice}", OrderWarning, 4)


# ---- the plan ---------------------------------------------------------------------------------------------------


def casting(plan: Plan, here: Mapping[str, Form], there: Mapping[str, Form]) -> Plan:
    """Return the plan with numbers turned into the model's types where both are floating-point."""

    def cast(line: Line) -> Line:
        if line.verdict != "dtype" or not line.target or not line.source:
            return line
        old, new = here[line.source].dtype, there[line.target].dtype
        if "float" not in old or "float" not in new:
            return line
        return replace(line, verdict="renamed" if line.source != line.target else "taken", detail=f"{old} to {new}")

    return Plan(tuple(map(cast, plan.lines)))


def _chosen(plan: Plan, only: Sequence[str] | None, there: Mapping[str, Form]) -> Plan:
    """Return the plan for the model's variables that `only` names; all else is left."""
    if only is None:
        return plan
    require_matches(there, only)

    def chosen(line: Line) -> Line:
        if line.target and any(named_by(line.target, pattern) for pattern in only):
            return line
        return replace(line, verdict="left", detail="not named by `only`")

    return Plan(tuple(map(chosen, plan.lines)))


def with_origins(plan: Plan, converted: Converted) -> Plan:
    """Return the plan with PyTorch's names for where arrays come from, and what PyTorch has in excess.

    What was done to rows, or could not be, stands in the detail of what is taken.
    """

    def told(line: Line) -> Line:
        origin = converted.origins.get(line.source or "")
        if origin is None:
            return line
        renamed = line.verdict == "taken" and origin != line.target
        notes = [line.detail, converted.notes.get(line.target or "", "")] if line.verdict in _LOADED else [line.detail]
        detail = "; ".join(note for note in notes if note)
        return replace(line, source=origin, verdict="renamed" if renamed else line.verdict, detail=detail)

    dropped = [Line(None, name, "dropped", why) for name, why in converted.dropped.items()]
    return Plan((*map(told, plan.lines), *dropped))


def _with_names_of_the_file(plan: Plan, new: Mapping[str, str]) -> Plan:
    """Return the plan with the names that a file has where they were bettered before it was made."""
    old = {better: name for name, better in new.items() if better != name}

    def told(line: Line) -> Line:
        name = old.get(line.source or "")
        if name is None:
            return line
        numbered = names.split(name)[1].isdigit()
        moved = line.verdict == "taken" and not numbered
        return replace(line, source=name, verdict="renamed" if moved else line.verdict)

    return Plan(tuple(map(told, plan.lines)))


def _require(report: Report, model: keras.Model, source: Weights, *, partial: bool) -> None:
    """Raise `LoadingError` unless all is accounted for, or something at least is loaded where a part is enough."""
    bad = [line for line in report.plan.lines if line.verdict not in _GOOD]
    if report.loaded and (partial or not bad):
        return
    total = ", ".join(f"{count} {verdict}" for verdict, count in report.plan.counts().items())
    lines = [f"{report.source} does not fit {model.name!r} ({total}); nothing was written:"]
    lines += [f"  {line.verdict:11}{line.target or line.source}: {line.detail}" for line in bad[:_SHOWN]]
    lines += [f"  ... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    if getattr(source, "unnamed", False):
        lines.append("The file has no names: by_order=True takes each class's layers in the order in which they come.")
    elif not any(line.target and line.source for line in report.plan.lines):
        lines.append("Not one name is in both; rename={old: new} says which is which.")
    else:
        lines.append("rename={old: new} says which is which, partial=True loads what fits.")
    if any(line.verdict == "dtype" for line in bad):
        lines.append("cast=True turns floating-point numbers into the model's types.")
    raise LoadingError("\n".join(lines))


# ---- by order ---------------------------------------------------------------------------------------------------


def _in_order(model: keras.Model, source: Weights, label: str) -> dict[str, str]:
    """Return `{name in the file: name in the model}` by where each lies, as Keras would load it."""
    if not isinstance(source, Arrays) or not source.unnamed:
        raise LoadingError(f"{label} has names; by_order=True is for a .weights.h5 file without")
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        model.save_weights(Path(folder) / "order.weights.h5")
        with open_weights(Path(folder) / "order.weights.h5") as mine:
            named = {place: name for name, place in mine.places.items()}
    warnings.warn(
        f"{label} has no names; its arrays go by the order of each class's layers, which nobody can check",
        OrderWarning,
        stacklevel=4,
    )
    return {name: named[place] for name, place in source.places.items() if place in named}


# ---- both sides as names and forms ------------------------------------------------------------------------------


class _Under(Mapping[str, np.ndarray]):
    """Weights under other names; reads through to them."""

    def __init__(self, weights: Weights, origins: Mapping[str, str]) -> None:
        self._weights = weights
        self._origins = origins

    def __getitem__(self, name: str) -> np.ndarray:
        return self._weights[self._origins[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)


def _forms(source: Weights) -> dict[str, Form]:
    known = getattr(source, "forms", None)
    if known is not None:
        return dict(known)
    return {name: Form(tuple(value.shape), value.dtype.name) for name, value in source.items()}


def _form(variable: Any) -> Form:
    return Form(tuple(variable.shape), str(variable.dtype))


def _targets(model: keras.Model, forms: Mapping[str, Form]) -> dict[str, Any]:
    """Return the model's variables; states of seed generators only where the source has them."""
    drawn = seed_states(model)
    return {name: each for name, each, _ in owned_variables(model) if name not in drawn or name in forms}


def classes_of(model: keras.Model) -> dict[str, str]:
    """Return `{layer: class}`; of a class of the user's, the base of Keras' whose layout it has."""
    return {entry.name: _class_with_layout(type(entry.layer)) for entry in walk(model)}


def _class_with_layout(kind: type) -> str:
    bases = (base.__name__ for base in kind.__mro__ if base.__module__.startswith("keras."))
    return next((name for name in bases if pytorch_layouts.role(name)), kind.__name__)


def numpy_dtype(name: str) -> np.dtype:
    """Return NumPy's type of a variable's. Raises `LoadingError` for one that no file holds."""
    found = dtypes.of_name(name)
    if found is None:
        raise LoadingError(f"the model has a variable of {name}, which no file holds")
    return found


def layout_of(weights: Weights) -> str:
    """Return whose order of axes arrays have: "torch" where the file or its names are PyTorch's, else "keras".

    PyTorch's names have dots and no slash, and most end in leaves that Keras does not have; a parameter of the whole
    module, `cls_token`, has neither dot nor slash.
    """
    if getattr(weights, "format", "") == "PyTorch":
        return "torch"
    plain = not any(names.SEPARATOR in name for name in weights)
    return "torch" if plain and any(name.endswith((".weight", ".bias")) for name in weights) else "keras"
