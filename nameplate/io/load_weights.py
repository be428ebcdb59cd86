"""Loading the weights of any file into a model by name: planned, accounted for on both sides, then written."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.checkpoint import dtypes
from nameplate.errors import NameplateError, as_names
from nameplate.formats import pytorch_layouts
from nameplate.formats.arrays import Arrays
from nameplate.formats.pytorch_weights import ROWS_UNKNOWN, Converted, to_keras, torch_rules
from nameplate.formats.registry import open_weights
from nameplate.graph.model_weights import refresh
from nameplate.graph.tree import owned_variables, require_built, variables, walk
from nameplate.io.automatic_pairs import advice, pair_rules
from nameplate.io.channel_order import rows_by_layer
from nameplate.io.file_names import better_names, once_each, seed_states
from nameplate.io.lora_files import merged_adapters, reset_adapters
from nameplate.naming import names
from nameplate.naming.rules import Rule, Texts, parse_rules
from nameplate.weights.adaptation import reshaped
from nameplate.weights.named import Weights, require_matches, under
from nameplate.weights.plan import (
    Form,
    Line,
    WeightPlan,
    forms_of,
    listing,
    match,
    with_casts,
    with_file_names,
    with_left,
)

_SHOWN = 20
_DRAWN = "seed_generator_state"  # Keras' name for the state of a random generator


class LoadingError(NameplateError):
    """Weights that do not fit a model; nothing was written."""


class OrderWarning(UserWarning):
    """An order that cannot be checked: of layers in a file without names, or of the rows of a flattened picture."""


@checked
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
    automatic: Literal["pair"] | None = None,
) -> WeightPlan:
    """Write each array of a file to the variable of its name, and return the plan with what became of every name.

    Proved: that names, shapes and types agree on both sides, except where the arguments allow otherwise. Not proved:
    that an array is what its name says, and what the model computes with it.

    Args:
        model: a built model; all its variables change, on every replica, or none does.
        source: a file that `nameplate.formats.open_weights` knows, a run or checkpoint, or weights by name.
        only: variables, layers, containers or shell patterns of the model; the rest is left as it is.
        rename: `{old: new}` or rules (`OLD=NEW`, `OLD=` to drop, `re:PATTERN=REPLACEMENT`) from names of the file to
            names of the model; the dots in PyTorch's names count as slashes.
        partial: load what fits; what is missing, unexpected or of another shape is only reported.
        cast: turn floating-point numbers into the model's types.
        by_order: for a `.weights.h5` without names: take the layers of each class in order, with a warning.
        layout: "keras" or "torch", the order of the arrays' axes; by default what the file or its names say. With
            PyTorch's, the rows of a Dense behind a flattened picture go into Keras' order where the graph shows the
            Flatten; where it does not, an `OrderWarning` names the variable.
        automatic: "pair" takes names that Keras made up on both sides (`dense_3`) for each other, in each container by
            class and in the order of their numbers, where both have as many with the same shapes; `rename` goes first.

    Raises:
        LoadingError: with everything that is missing, unexpected or of another shape, or when nothing fits.
        FileFormatError: when the file cannot be read or is refused.
        RuleError: for a rule that does nothing.
    """
    if layout not in (None, "keras", "torch"):
        raise LoadingError(f"layout={layout!r}: it is 'keras' or 'torch'")
    require_built(model)
    only = None if only is None else as_names(only, "only")
    options = _Options(only, parse_rules(rename), partial, cast, by_order, automatic is not None)
    if isinstance(source, Mapping):
        require_arrays(source)
        return _load(model, source, "weights", layout or layout_of(source), options)
    if not isinstance(source, str | os.PathLike):
        raise LoadingError(f"a source is a path or weights by name, not a {type(source).__name__}")
    with open_weights(source) as arrays:
        return _load(model, arrays, str(source), layout or layout_of(arrays), options)


def require_arrays(weights: Weights) -> None:
    """Raise `LoadingError` with every value of a dictionary that is not an array."""
    if not isinstance(weights, dict):
        return
    if unnamed := [name for name in weights if not isinstance(name, str)]:
        raise LoadingError(f"weights are NumPy arrays by name; {unnamed[0]!r} is not a name")
    strangers = [f"{name}: a {type(value).__name__}" for name, value in weights.items() if not hasattr(value, "dtype")]
    if strangers:
        raise LoadingError("\n  ".join(["weights are NumPy arrays by name; these are not:", *strangers[:_SHOWN]]))


def plan_weights(model: keras.Model, source: Arrays) -> WeightPlan:
    """Return the plan of loading a file in Keras' layout into a model, without reading an array."""
    forms = forms_of(source)
    better = better_names(model, list(forms), [], format_=source.format)
    aliases, _ = once_each(source, {name: better.get(name, name) for name in forms})
    plan = match({new: forms[name] for name, new in aliases.items()}, forms_of(_targets(model, forms)))
    origins = {new: old for old, new in aliases.items()}
    return plan.with_lines(replace(line, source=origins.get(line.source or "", line.source)) for line in plan.lines)


@dataclass(frozen=True)
class _Options:
    """The arguments of `load_weights` that say how."""

    only: Sequence[str] | None
    rules: list[Rule]
    partial: bool
    cast: bool
    by_order: bool
    paired: bool = False  # whether automatic names are paired by class and order
    pairs: Sequence[Rule] = ()  # these

    @property
    def every_rule(self) -> list[Rule]:
        """The caller's rules, then the pairs."""
        return [*self.rules, *self.pairs]


def _load(model: keras.Model, source: Weights, label: str, layout: str, options: _Options) -> WeightPlan:
    forms = forms_of(source)
    if options.paired:
        options = replace(options, pairs=_pairs(model, source, layout, options))
    paired = {rule.apply(name) for rule in options.pairs for name in forms if rule.matches(name)}
    targets = _targets(model, {*forms, *paired})
    merged = merged_adapters(targets, source)
    there = {name: form for name, form in forms_of(targets).items() if name not in merged}
    drawn = [name for name in forms if name.endswith(_DRAWN) and name not in there]
    offered = {name: form for name, form in forms.items() if name not in drawn}
    converted = None
    if layout == "torch":
        converted = converted_from_torch(model, source, there, options.rules, forms=offered)
        plan = match(converted.weights.forms, there, label=label, arrays=converted.weights)
        plan = with_torch_names(_chosen(plan, options, there), converted)
    else:
        plan = _planned_by_name(model, source, label, offered, there, options)
    ignored = [Line(None, name, "dropped", reason="a random generator, named by a count") for name in drawn]
    plan = plan.with_lines([*plan.lines, *ignored])
    try:
        _require_fit(plan, model, source, partial=options.partial)
    except LoadingError as error:
        hint = _pairing_would(model, source, plan, layout, options)
        raise (LoadingError(f"{error}\n{hint}") if hint else error) from None
    if converted:
        _warn_of_unknown_rows(label, converted)
    assign(plan, targets)
    refresh(model)
    reset_adapters(merged, targets, plan.loaded)
    return replace(plan, arrays={})  # what a caller keeps does not hold the source in memory


def _pairs(model: keras.Model, source: Weights, layout: str, options: _Options) -> list[Rule]:
    if layout == "torch":
        raise LoadingError("automatic='pair' is for names that Keras made up, and these are PyTorch's; give rename=")
    if options.by_order:
        raise LoadingError("by_order=True takes every layer in order already; leave automatic= out")
    return pair_rules(model, forms_of(source), options.rules, format_=getattr(source, "format", ""))


def _pairing_would(model: keras.Model, source: Weights, plan: WeightPlan, layout: str, options: _Options) -> str | None:
    """Return the advice to pair automatic names, if that would solve something."""
    if options.paired or options.by_order or layout == "torch":
        return None
    rules = _pairs(model, source, layout, options)
    return advice(rules, plan, remedy="load_weights(..., automatic='pair') pairs them by class and order.")


def _planned_by_name(
    model: keras.Model,
    source: Weights,
    label: str,
    forms: Mapping[str, Form],
    there: Mapping[str, Form],
    options: _Options,
) -> WeightPlan:
    """Return the plan of arrays in Keras' layout, in whose file names may be numbers or lack containers."""
    aliases = _by_order(model, source, label) if options.by_order else {}
    aliased = [aliases.get(name, name) for name in forms]
    aliases |= better_names(model, aliased, options.every_rule, format_=getattr(source, "format", ""))
    better = {name: aliases.get(step := aliases.get(name, name), step) for name in forms}
    better, again = once_each(source, better)
    places = {new: name for name, new in better.items()}
    here = {new: forms[name] for new, name in places.items()}
    plan = match(here, there, rules=options.every_rule, label=label, arrays=under(source, places))
    changed = {new: name for new, name in places.items() if new != name}
    repeated = {name: f"the same variable as {first}" for name, first in again.items()}
    return with_file_names(_chosen(plan, options, there), changed, dropped=repeated)


def _chosen(plan: WeightPlan, options: _Options, there: Mapping[str, Form]) -> WeightPlan:
    """Return the plan with types cast if asked for, and all that `only` does not name left as it is."""
    if options.cast:
        plan = with_casts(plan)
    if options.only is None:
        return plan
    require_matches(there, options.only)
    return with_left(plan, options.only, "only")


def _require_fit(plan: WeightPlan, model: keras.Model, source: Weights, *, partial: bool) -> None:
    """Raise `LoadingError` unless everything is accounted for, or something is loaded and a part is enough."""
    if plan.loaded and (partial or not plan.problems):
        return
    lines = [f"{plan.source} does not fit {model.name!r} ({plan.total()}); nothing was written:"]
    lines += listing(plan.problems, _SHOWN)
    if getattr(source, "unnamed", False):
        lines.append("The file has no names: by_order=True takes each class's layers in the order in which they come.")
    elif not any(line.target and line.source for line in plan.lines):
        lines.append("Not one name is in both; rename={old: new} says which is which.")
    else:
        lines.append("rename={old: new} says which is which, partial=True loads what fits.")
    if any(line.verdict == "dtype" for line in plan.problems):
        lines.append("cast=True turns floating-point numbers into the model's types.")
    raise LoadingError("\n".join(lines))


def _warn_of_unknown_rows(label: str, converted: Converted) -> None:
    unknown = {name: why for name, why in converted.notes.items() if why.startswith(ROWS_UNKNOWN)}
    if unknown:
        lines = "".join(f"\n  {name}: {why}" for name, why in unknown.items())
        advice = "If PyTorch flattens a picture there, channels come first; compare the outputs of both."
        warnings.warn(f"{label}: loaded without knowing the order of some rows:{lines}\n{advice}", OrderWarning, 5)


# ---- what every plan for a model needs --------------------------------------------------------------------------


def assign(plan: WeightPlan, targets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Assign the values of a plan to variables by name, and return them; all are read before one is written."""
    values = {}
    for target in plan.taken:
        value = np.asarray(plan.arrays[target])
        if target in plan.adapted:
            own = np.asarray(targets[target].numpy())
            value = reshaped(plan.adapted[target], value, own.shape, own=own, classes=plan.classes)
        dtype = numpy_dtype(str(targets[target].dtype))  # differs only where the plan casts
        values[target] = value if value.dtype == dtype else value.astype(dtype)
    for target, value in values.items():
        targets[target].assign(value)
    return values


def forms_of_model(model: keras.Model) -> dict[str, Form]:
    """Return shape and type of every variable of a model, without the states of its random generators."""
    drawn = seed_states(model)
    return {name: form for name, form in forms_of(variables(model)).items() if name not in drawn}


def converted_from_torch(
    model: keras.Model,
    source: Weights,
    targets: Mapping[str, Form],
    rules: Sequence[Rule],
    *,
    forms: Mapping[str, Form] | None = None,
) -> Converted:
    """Return PyTorch's arrays, of `forms` or all, as those of the model's `targets`, with the rules applied."""
    return to_keras(
        source,
        forms_of(source) if forms is None else forms,
        classes=classes_of(model),
        targets=targets,
        rules=torch_rules(rules),
        rows=rows_by_layer(model),
    )


def with_torch_names(plan: WeightPlan, converted: Converted) -> WeightPlan:
    """Return a plan of converted arrays with PyTorch's names, what is done to rows, and what Keras has no place for."""
    return with_file_names(
        plan, converted.origins, rules=converted.rules, notes=converted.notes, dropped=converted.dropped
    )


def classes_of(model: keras.Model) -> dict[str, str]:
    """Return `{layer: class}`; for a class that is not Keras', the one of its bases whose layout it has."""
    return {entry.name: _class_with_layout(type(entry.layer)) for entry in walk(model)}


def _class_with_layout(kind: type) -> str:
    bases = (base.__name__ for base in kind.__mro__ if base.__module__.startswith("keras."))
    return next((name for name in bases if pytorch_layouts.role(name)), kind.__name__)


def numpy_dtype(name: str) -> np.dtype:
    """Return NumPy's type of a variable's. Raises `LoadingError` for one that no file holds."""
    dtype = dtypes.of_name(name)
    if dtype is None:
        raise LoadingError(f"the model has a variable of {name}, which no file holds")
    return dtype


def layout_of(weights: Weights) -> str:
    """Return whose order of axes arrays have: "torch" where the file or its names are PyTorch's, else "keras".

    PyTorch's names have dots and no slash, and most end in leaves that Keras does not have; a parameter of the whole
    module, `cls_token`, has neither dot nor slash.
    """
    if getattr(weights, "format", "") == "PyTorch":
        return "torch"
    plain = not any(names.SEPARATOR in name for name in weights)
    return "torch" if plain and any(name.endswith((".weight", ".bias")) for name in weights) else "keras"


def _targets(model: keras.Model, forms: Collection[str]) -> dict[str, Any]:
    """Return the model's variables; states of seed generators only where the source has them."""
    drawn = seed_states(model)
    return {name: variable for name, variable, _ in owned_variables(model) if name not in drawn or name in forms}


# ---- by order ---------------------------------------------------------------------------------------------------


def _by_order(model: keras.Model, source: Weights, label: str) -> dict[str, str]:
    """Return `{name in the file: name in the model}` by place in the file, as Keras would load it."""
    if not isinstance(source, Arrays) or not source.unnamed:
        raise LoadingError(f"{label} has names; by_order=True is for a .weights.h5 file without")
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        model.save_weights(Path(folder) / "order.weights.h5")
        with open_weights(Path(folder) / "order.weights.h5") as mine:
            named = {place: name for name, place in mine.places.items()}
    warnings.warn(
        f"{label} has no names; its arrays are taken in the order of each class's layers, which cannot be checked",
        OrderWarning,
        stacklevel=6,  # the caller of `load_weights`
    )
    return {name: named[place] for name, place in source.places.items() if place in named}
