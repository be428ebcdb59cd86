"""PyTorch weights converted to those of a Keras model, and back: names by rules, layouts by the role of each layer.

A PyTorch module `layer1.0.conv1` is the layer `layer1/0/conv1` unless a rule renames it. Everything on both sides is
accounted for: an array without a counterpart keeps its name, so that the plan lists it as left over.
"""

from __future__ import annotations

import re
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
from nameplate.formats.pytorch_layouts import COUNTER, Pair, Rows, slashed
from nameplate.naming import names
from nameplate.naming.rules import Rule, apply_rules
from nameplate.weights.named import Weights
from nameplate.weights.plan import Form

ROWS_UNKNOWN = "rows as they are"
_AND = " + "  # between the PyTorch names of the arrays that one Keras array is made of


@dataclass(frozen=True)
class Converted:
    """Weights in Keras' names and layouts, read on demand, with the origin of each."""

    weights: Arrays
    origins: Mapping[str, str]  # Keras name -> PyTorch name, several joined with ` + `
    dropped: Mapping[str, str]  # PyTorch name -> why Keras has no counterpart
    notes: Mapping[str, str] = field(default_factory=dict)  # Keras name -> how its rows were reordered, or why not
    rules: Mapping[str, str] = field(default_factory=dict)  # PyTorch name -> the rule that renamed it


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
        source: by PyTorch's names; its arrays are read when those of the result are.
        forms: the form of each array of `source`.
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
    origins = {new: by_slash[old] for old, new in mapped.names.items()}
    dropped = {by_slash[old]: mapped.rules[old] for old in mapped.dropped}
    converter = _Converter(source, forms, origins, targets)
    for layer, kind in classes.items():
        role = pytorch_layouts.role(kind)
        for pair in pytorch_layouts.pairs(role) if role else ():
            converter.take(layer, pair, (rows or {}).get(layer))
        counter = names.join(layer, COUNTER)
        if role == "batch_norm" and counter in origins:
            dropped[origins.pop(counter)] = "PyTorch's count of batches; Keras has no such counter"
    rule_of = {by_slash[old]: text for old, text in mapped.rules.items()}
    return converter.result(dropped, rule_of)


class _Converter:
    """Collects from which PyTorch arrays each Keras array is converted."""

    def __init__(
        self, source: Weights, forms: Mapping[str, Form], origins: dict[str, str], targets: Mapping[str, Form]
    ) -> None:
        self._source = source
        self._forms = forms
        self._left = origins  # name after the rules -> PyTorch's name, of the arrays not yet converted
        self._targets = targets
        self._arrays: list[Array] = []
        self._reads: dict[str, Callable[[], np.ndarray]] = {}
        self._origins: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def take(self, layer: str, pair: Pair, rows: Rows | None) -> None:
        """Convert the PyTorch arrays of a pair, which the rules left under PyTorch's or Keras' variable names."""
        targets = [names.join(layer, leaf) for leaf in pair.keras]
        sources = self._source_names([names.join(layer, leaf) for leaf in pair.torch], targets)
        if sources is None or not all(name in self._targets for name in targets):
            return
        origins = [self._left[name] for name in sources]
        shapes = [self._targets[name].shape for name in targets]
        forms = self._shaped(origins, pair, shapes)
        if len(forms) != len(targets):  # of another size: left as it is, for the plan to report
            return
        for name in sources:
            del self._left[name]
        fits = all(form.shape == shape for form, shape in zip(forms, shapes, strict=True))
        if rows is not None and fits and rows.concerns(pair.keras[0]):
            pair = pytorch_layouts.behind(pair, rows)
            self._notes[targets[0]] = rows.description if rows.known else f"{ROWS_UNKNOWN}: {rows.description}"
        for index, (name, form) in enumerate(zip(targets, forms, strict=True)):
            self._add(name, form, _AND.join(origins), partial(self._read, origins, pair, shapes, index))

    def _source_names(self, torch: list[str], keras: list[str]) -> list[str] | None:
        """Return the names, PyTorch's or Keras', under which a pair's arrays are left; None where one is missing."""
        if all(name in self._left for name in torch):
            return torch
        if len(torch) != 1 or len(keras) != 1 or keras[0] not in self._left:
            return None
        leaf = names.split(slashed(self._left[keras[0]]))[1]  # PyTorch's own; a rule renamed the array to Keras' name
        return keras if leaf == names.split(torch[0])[1] else None

    def result(self, dropped: Mapping[str, str], rule_of: Mapping[str, str]) -> Converted:
        for name, origin in self._left.items():
            self._add(name, self._forms[origin], origin, partial(self._source.__getitem__, origin))
        weights = Arrays(self._arrays, lambda place: self._reads[place](), path=Path(), format="PyTorch")
        firsts = {origin: origin.split(_AND)[0] for origin in self._origins.values()}
        rules = {origin: rule_of[first] for origin, first in firsts.items() if first in rule_of}
        return Converted(weights, self._origins, dropped, self._notes, rules)

    def _add(self, name: str, form: Form, origin: str, read: Callable[[], np.ndarray]) -> None:
        self._arrays.append(Array(name, form.shape, form.dtype, name))
        self._reads[name] = read
        self._origins[name] = origin

    def _shaped(self, origins: list[str], pair: Pair, shapes: Sequence[tuple[int, ...]]) -> list[Form]:
        """Return the forms after a conversion, found by converting dummy bytes of these shapes; none if it fails."""
        forms = [self._forms[origin] for origin in origins]
        try:
            dummies = pair.forward([np.broadcast_to(np.int8(0), form.shape) for form in forms], shapes)
        except ValueError:
            return [Form(forms[0].shape, forms[0].dtype)] if len(pair.keras) == 1 else []
        return [Form(dummy.shape, forms[0].dtype) for dummy in dummies]

    def _read(self, origins: list[str], pair: Pair, shapes: Sequence[tuple[int, ...]], index: int) -> np.ndarray:
        converted = pair.forward([self._source[origin] for origin in origins], shapes)[index]
        return np.ascontiguousarray(converted).reshape(converted.shape)


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
        FileFormatError: with every variable that PyTorch has no layout for, and every module of an unknown layer.
    """
    module_of = _modules(modules or {}, classes)
    left = dict.fromkeys(weights)
    state: dict[str, np.ndarray] = {}
    for layer, kind in classes.items():
        role = pytorch_layouts.role(kind)
        module = module_of.get(layer, layer.replace(names.SEPARATOR, "."))
        taken = False
        for plain in pytorch_layouts.pairs(role) if role else ():
            pair = pytorch_layouts.behind(plain, (rows or {}).get(layer))
            sources = [names.join(layer, leaf) for leaf in pair.keras]
            if all(name in left for name in sources):
                converted = pair.backward([weights[name] for name in sources])
                leaves = [f"{module}.{leaf.replace('/', '.')}" for leaf in pair.torch]
                state |= {leaf: np.ascontiguousarray(array) for leaf, array in zip(leaves, converted, strict=True)}
                for name in sources:
                    del left[name]
                taken = True
        if role == "batch_norm" and taken:
            counter = f"{module}.{COUNTER}"
            state[counter] = np.asarray((counters or {}).get(counter, 0), np.int64)
    _refuse_left(left, classes)
    return state


def torch_rules(rename: Iterable[Rule]) -> list[Rule]:
    """Return rules with the dots of PyTorch names replaced by slashes."""
    return [rule if rule.regular else replace(rule, old=slashed(rule.old)) for rule in rename]


def _modules(modules: Mapping[str, str], classes: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(layer for layer in modules.values() if layer not in classes)
    if unknown:
        lines = [f"  {layer!r}{names.did_you_mean(layer, classes)}" for layer in unknown]
        raise FileFormatError("\n".join(["modules were given for layers that do not exist:", *lines]))
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


# ---- ready maps of names -------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(conv\d|bn\d|projection_conv|projection_bn)")
_STEM = {"stem_conv": "conv1", "stem_bn": "bn1"}
_PROJECTION = {"projection_conv": "downsample.0", "projection_bn": "downsample.1"}


def torchvision_resnet(variables: Iterable[str]) -> dict[str, str]:
    """Return the map from torchvision's `resnet18`, `34` or `50` to `models.resnet` of the same depth.

    The output layer, which is named after the data, is `fc`.

    Args:
        variables: the qualified names of the model's variables, as in `nameplate.variables(model)`.

    Raises:
        FileFormatError: when they are not those of this project's residual networks.
    """
    layers = list(dict.fromkeys(names.split(name)[0] for name in variables))
    modules: dict[str, str] = {}
    others = []
    for layer in layers:
        block = _BLOCK.fullmatch(layer)
        if block:
            stage, number, part = block.groups()
            modules[f"layer{stage}.{int(number) - 1}.{_PROJECTION.get(part, part)}"] = layer
        elif layer in _STEM:
            modules[_STEM[layer]] = layer
        else:
            others.append(layer)
    if len(others) != 1 or not modules:
        raise FileFormatError(
            "a residual network of this project has stem_conv, stage1_block1_conv1, ... and one output layer; other "
            f"layers here are {', '.join(map(repr, others[:5])) or 'none'}"
        )
    return {**modules, "fc": others[0]}
