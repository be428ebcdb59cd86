"""Weights of PyTorch's as weights of a Keras model, and back: names by rules, layouts by the role of each layer.

A PyTorch module `layer1.0.conv1` is the layer `layer1/0/conv1` until a rule gives it another name. All of both sides is
accounted for: what has no place keeps its name, so that a plan finds it left over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nameplate.errors import FileFormatError
from nameplate.formats import pytorch_layouts
from nameplate.formats.arrays import Arrays
from nameplate.formats.name_table import Array
from nameplate.formats.pytorch_layouts import COUNTER, Pair, Rows
from nameplate.naming import names
from nameplate.naming.rules import Rule, apply_rules
from nameplate.weights.named import Weights
from nameplate.weights.plan import Form

ROWS_UNKNOWN = "rows as they are"


@dataclass(frozen=True)
class Converted:
    """Weights in Keras' names and layouts, not yet read, and where each came from."""

    weights: Arrays
    origins: Mapping[str, str]  # Keras' name -> PyTorch's, joined with ` + ` where there were several
    dropped: Mapping[str, str]  # PyTorch's name -> why it has no place in Keras
    notes: Mapping[str, str] = field(default_factory=dict)  # Keras' name -> what was done to its rows, or could not be


def slashed(name: str) -> str:
    """Return a PyTorch name in the project's grammar: `layer1.0.conv1.weight` is `layer1/0/conv1/weight`."""
    return names.SEPARATOR.join(part for part in name.replace(".", names.SEPARATOR).split(names.SEPARATOR) if part)


def to_keras(
    source: Weights,
    forms: Mapping[str, Form],
    *,
    classes: Mapping[str, str],
    targets: Mapping[str, Form],
    rules: Sequence[Rule] = (),
    rows: Mapping[str, Rows] | None = None,
) -> Converted:
    """Return PyTorch's weights as those of the model that `classes` and `targets` describe.

    Args:
        source: by PyTorch's names; read only when the result is.
        forms: what each array of `source` is.
        classes: `{layer: class}` of the model, qualified.
        targets: `{variable: form}` of the model.
        rules: over the slashed names of PyTorch's modules and variables. One that gives a variable Keras' name for it
            (`fc/weight=head/kernel`) renames it; the layout is the layer's all the same.
        rows: by layer, where its features are the pixels of a flattened picture.

    Raises:
        RuleError: for rules that do nothing or make one name of two.
    """
    mapped = apply_rules([slashed(name) for name in forms], rules)
    by_slash = {slashed(name): name for name in forms}
    found = {new: by_slash[old] for old, new in mapped.names.items()}
    dropped = {by_slash[old]: mapped.rules[old] for old in mapped.dropped}
    converter = _Converter(source, forms, found, targets)
    for layer, kind in classes.items():
        role = pytorch_layouts.role(kind)
        for pair in pytorch_layouts.pairs(role) if role else ():
            converter.take(layer, pair, (rows or {}).get(layer))
        counter = names.join(layer, COUNTER)
        if role == "batch_norm" and counter in found:
            dropped[found.pop(counter)] = "counts PyTorch's batches; Keras keeps no such number"
    return converter.result(dropped)


class _Converter:
    """Collects what each array of Keras' is made of."""

    def __init__(
        self, source: Weights, forms: Mapping[str, Form], found: dict[str, str], targets: Mapping[str, Form]
    ) -> None:
        self._source = source
        self._forms = forms
        self._found = found  # name after the rules -> PyTorch's
        self._targets = targets
        self._arrays: list[Array] = []
        self._reads: dict[str, Callable[[], np.ndarray]] = {}
        self._origins: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def take(self, layer: str, pair: Pair, rows: Rows | None) -> None:
        """Make Keras' arrays of a pair out of PyTorch's, under whichever of their two names a rule put them."""
        there = [names.join(layer, leaf) for leaf in pair.keras]
        here = self._found_as([names.join(layer, leaf) for leaf in pair.torch], there)
        if here is None or not all(name in self._targets for name in there):
            return
        origins = [self._found[name] for name in here]
        shapes = [self._targets[name].shape for name in there]
        forms = self._shaped(origins, pair, shapes)
        if len(forms) != len(there):  # of another size: it stays as it is, and the plan says so
            return
        for name in here:
            del self._found[name]
        fits = all(form.shape == shape for form, shape in zip(forms, shapes, strict=True))
        if rows is not None and fits and rows.concerns(pair.keras[0]):
            pair = pytorch_layouts.behind(pair, rows)
            self._notes[there[0]] = rows.description if rows.known else f"{ROWS_UNKNOWN}: {rows.description}"
        for index, (name, form) in enumerate(zip(there, forms, strict=True)):
            self._add(name, form, " + ".join(origins), partial(self._read, origins, pair, shapes, index))

    def _found_as(self, here: list[str], there: list[str]) -> list[str] | None:
        """Return under which names the arrays of a pair were found; None where one is missing."""
        if all(name in self._found for name in here):
            return here
        if len(here) != 1 or len(there) != 1 or there[0] not in self._found:
            return None
        leaf = names.split(slashed(self._found[there[0]]))[1]  # as PyTorch calls it: a rule gave it Keras' name
        return there if leaf == names.split(here[0])[1] else None

    def result(self, dropped: Mapping[str, str]) -> Converted:
        for name, origin in self._found.items():
            self._add(name, self._forms[origin], origin, partial(self._source.__getitem__, origin))
        weights = Arrays(self._arrays, lambda place: self._reads[place](), path=Path(), format="PyTorch")
        return Converted(weights, self._origins, dropped, self._notes)

    def _add(self, name: str, form: Form, origin: str, read: Callable[[], np.ndarray]) -> None:
        self._arrays.append(Array(name, form.shape, form.dtype, name))
        self._reads[name] = read
        self._origins[name] = origin

    def _shaped(self, origins: list[str], pair: Pair, shapes: Sequence[tuple[int, ...]]) -> list[Form]:
        """Return the forms after a conversion, by converting bytes of the same shapes; nothing when it does not go."""
        forms = [self._forms[origin] for origin in origins]
        try:
            made = pair.forward([np.broadcast_to(np.int8(0), form.shape) for form in forms], shapes)
        except ValueError:
            return [Form(forms[0].shape, forms[0].dtype)] if len(pair.keras) == 1 else []
        return [Form(each.shape, forms[0].dtype) for each in made]

    def _read(self, origins: list[str], pair: Pair, shapes: Sequence[tuple[int, ...]], index: int) -> np.ndarray:
        made = pair.forward([self._source[origin] for origin in origins], shapes)
        return np.ascontiguousarray(made[index]).reshape(made[index].shape)


def to_torch(
    weights: Weights,
    *,
    classes: Mapping[str, str],
    modules: Mapping[str, str] | None = None,
    counters: Mapping[str, Any] | None = None,
    rows: Mapping[str, Rows] | None = None,
) -> dict[str, np.ndarray]:
    """Return the weights of a Keras model as a PyTorch state dictionary, module by module.

    Args:
        weights: by qualified variable names.
        classes: `{layer: class}` of the model.
        modules: `{PyTorch module: layer}`, as for the way here; a layer without one keeps its name, with dots.
        counters: `{name: number}` of the `num_batches_tracked` that a batch norm had; 0 for those without.
        rows: by layer, where its features are the pixels of a flattened picture.

    Raises:
        FileFormatError: with every variable that no layout of PyTorch's takes, and every module of no layer.
    """
    module_of = _modules(modules or {}, classes)
    left = dict.fromkeys(weights)
    found: dict[str, np.ndarray] = {}
    for layer, kind in classes.items():
        role = pytorch_layouts.role(kind)
        module = module_of.get(layer, layer.replace(names.SEPARATOR, "."))
        taken = False
        for plain in pytorch_layouts.pairs(role) if role else ():
            pair = pytorch_layouts.behind(plain, (rows or {}).get(layer))
            there = [names.join(layer, leaf) for leaf in pair.keras]
            if all(name in left for name in there):
                made = pair.backward([weights[name] for name in there])
                leaves = [f"{module}.{leaf.replace('/', '.')}" for leaf in pair.torch]
                found |= {leaf: np.ascontiguousarray(each) for leaf, each in zip(leaves, made, strict=True)}
                for name in there:
                    del left[name]
                taken = True
        if role == "batch_norm" and taken:
            counter = f"{module}.{COUNTER}"
            found[counter] = np.asarray((counters or {}).get(counter, 0), np.int64)
    _refuse_left(left, classes)
    return found


def torch_rules(rename: Iterable[Rule]) -> list[Rule]:
    """Return rules whose old names may be written with PyTorch's dots."""
    return [rule if rule.regular else replace(rule, old=slashed(rule.old)) for rule in rename]


def _modules(modules: Mapping[str, str], classes: Mapping[str, str]) -> dict[str, str]:
    strangers = sorted(layer for layer in modules.values() if layer not in classes)
    if strangers:
        lines = [f"  {layer!r}{names.did_you_mean(layer, classes)}" for layer in strangers]
        raise FileFormatError("\n".join(["these layers, which modules were named for, do not exist:", *lines]))
    return {layer: module.replace(names.SEPARATOR, ".") for module, layer in modules.items()}


def _refuse_left(left: Iterable[str], classes: Mapping[str, str]) -> None:
    lines = [f"  {name}{_owner(names.split(name)[0], classes)}" for name in left]
    if lines:
        head = f"PyTorch has no layout for {len(lines)} variables, nothing was written:"
        raise FileFormatError("\n".join([head, *lines[:20]]))


def _owner(layer: str, classes: Mapping[str, str]) -> str:
    if not layer:
        return ", a variable of the model itself"
    return f" of a {classes[layer]}" if layer in classes else " of a layer whose class is unknown"
