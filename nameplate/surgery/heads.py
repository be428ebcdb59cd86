"""New heads on a backbone, named in the style of its layers."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.graph import explicit_names, keras_private
from nameplate.graph.functional import has_graph
from nameplate.graph.tree import require_model, walk
from nameplate.naming import names
from nameplate.naming.policy import NameKind
from nameplate.surgery.addresses import is_input
from nameplate.surgery.extract import extract

_SEPARATORS = "_.-"


@dataclass(frozen=True)
class Convention:
    """How words and numbers are joined in a name."""

    separator: str = "_"  # between words; if empty, words are capitalized: `stemConv`
    case: str = "lower"  # of words: lower, capital, upper
    apart: bool = False  # whether a number is separated: `block_1`, not `block1`

    def name(self, *words: str, number: int | None = None) -> str:
        """Return a name of these words, the first unchanged, with a number at its end."""
        first, *rest = words
        parts = [first, *(self._cased(word) for word in rest)]
        joined = self.separator.join(parts)
        if number is None:
            return joined
        return f"{joined}{(self.separator or '_') if self.apart else ''}{number}"

    def _cased(self, word: str) -> str:
        if not self.separator or self.case == "capital":
            return word.capitalize()
        return word.upper() if self.case == "upper" else word


def convention_of(own_names: Iterable[str]) -> Convention:
    """Return the style of most of these names; by default that of `stage1_conv1`."""
    written = list(own_names)
    separators = Counter(char for name in written for char in name if char in _SEPARATORS)
    humps = sum(bool(re.search(r"[a-z][A-Z]", name)) for name in written)
    separator = separators.most_common(1)[0][0] if separators else ("" if humps > len(written) / 2 else "_")
    words = [word for name in written for word in re.findall(r"[A-Za-z]+", name)]
    apart = sum(bool(re.search(rf"[A-Za-z][{_SEPARATORS}][0-9]", name)) for name in written)
    close = sum(bool(re.search(r"[A-Za-z][0-9]", name)) for name in written)
    return Convention(separator, _case(words), apart > close)


def _case(words: Sequence[str]) -> str:
    """Return the case of most words that have several letters."""
    long = [word for word in words if len(word) > 1]
    upper = sum(word.isupper() for word in long)
    capital = sum(word[0].isupper() and not word.isupper() for word in long)
    if 2 * upper > len(long):
        return "upper"
    return "capital" if 2 * capital > len(long) else "lower"


_POOLS: dict[int, Any] = {
    3: layers.GlobalAveragePooling1D,
    4: layers.GlobalAveragePooling2D,
    5: layers.GlobalAveragePooling3D,
}


class HeadError(NameplateError):
    """A head that cannot be attached as requested."""


@checked
def attach(
    backbone: keras.Model,
    heads: Mapping[str, int],
    *,
    after: str | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    activation: str = "relu",
    name: str | None = None,
) -> keras.Model:
    """Return an uncompiled copy of a backbone with a new head for each output, made in the caller's strategy scope.

    Each output has the given name, under which losses and targets know it. The other layers of a head are named in the
    style of the backbone: `label_pool`, `label_hidden1`, or `label.Hidden_1`. The backbone's layers keep their places,
    names and weights, so either model's checkpoint can be loaded into the other by name.

    Proved: the backbone's copy as `extract` proves it without `verify`, and the names of the head. Not proved: that the
    whole can be saved, and what the head computes, which is new.

    Args:
        backbone: functional or sequential, built; it is not changed.
        heads: `{output: units}`; the outputs are logits.
        after: the layer to attach the heads to; by default the backbone's output. Layers after it, such as an old head,
            are dropped. Feature maps and sequences are averaged to one vector.
        hidden: units of dense layers before each output.
        dropout: rate of dropout before each output.
        activation: of the hidden layers.
        name: of the new model; by default the backbone's.

    Raises:
        HeadError: for names that are not allowed or taken, invalid units, and a backbone with several outputs.
        SurgeryError: for a layer that does not exist, and a backbone that has no graph.
    """
    require_model(backbone)
    if not isinstance(heads, Mapping):
        raise HeadError(f"heads must be {{output: units}}, not a {type(heads).__name__}; e.g. {{'label': 10}}")
    _refuse_forms(hidden, activation, name)
    end = after if after is not None else _last(backbone)
    body = extract(backbone, end, name=name or str(backbone.name), verify=False)
    features = _features(body, end)
    style = convention_of(_own_names(body))
    plan = {output: _words(style, hidden, dropout, pooled=len(features.shape) > 2) for output in heads}
    _refuse(body, heads, plan, hidden, dropout)
    with keras_private.undisturbed():
        outputs = {
            output: _head(features, output, units, hidden, dropout, activation, plan[output])
            for output, units in heads.items()
        }
        _name_inputs(body, heads)
        inputs = keras_private.inputs_struct(keras_private.graph_of(body))
        return keras.Model(inputs, outputs if len(outputs) > 1 else next(iter(outputs.values())), name=body.name)


def _refuse_forms(hidden: Any, activation: Any, name: Any) -> None:
    """Refuse arguments of the wrong type, before anything is built."""
    several = isinstance(hidden, Sequence) and not isinstance(hidden, str)
    problems = [] if several else [f"hidden={hidden!r} is not a list of units, e.g. [64]"]
    try:
        keras.activations.get(activation)
    except ValueError:
        problems.append(f"activation={activation!r}: Keras has no such function")
    problems += [f"name={name!r}: {fault}" for fault in [name is not None and names.fault(name)] if fault]
    if problems:
        raise HeadError(
            "\n".join(["no head can be attached with these arguments:", *(f"  {problem}" for problem in problems)])
        )


def _last(backbone: Any) -> str:
    """Return the layer whose output is the backbone's output."""
    ends = [str(keras_private.source(tensor).name) for tensor in getattr(backbone, "outputs", None) or []]
    if len(ends) != 1:
        reason = "is not built; build it first" if has_graph(backbone) else "has no graph, its code calls its layers"
        if ends:
            reason = f"has the outputs {', '.join(ends)}: say which layer the head is attached to with after=NAME"
        raise HeadError(f"{backbone.name!r} {reason}")
    return ends[0]


def _features(body: Any, end: str) -> Any:
    """Return the tensor that a head is attached to; several, or one with more axes than a volume, are refused."""
    outputs = keras_private.graph_of(body).outputs
    if len(outputs) != 1 or not 2 <= len(outputs[0].shape) <= max(_POOLS):
        what = f"{len(outputs)} tensors" if len(outputs) != 1 else f"{tuple(outputs[0].shape)}"
        raise HeadError(f"{end!r} has the output {what}; a head takes one vector, sequence, image or volume an example")
    return outputs[0]


def _name_inputs(body: Any, heads: Mapping[str, int]) -> None:
    """Name the input that a Sequential hides, since it is visible in the functional model with the heads."""
    if not isinstance(body, keras.Sequential):
        return
    taken = {name.casefold() for name in [*(layer.name for layer in body.layers), *heads]}
    for tensor in keras_private.graph_of(body).inputs:
        layer = keras_private.source(tensor)
        if names.is_automatic(str(layer.name), "InputLayer"):
            tries = itertools.chain(["input"], (f"input_{number}" for number in itertools.count(2)))
            own = next(name for name in tries if name not in taken)
            keras_private.rename_layer(layer, own, own)


def _own_names(body: Any) -> list[str]:
    """Return the names that users chose, without those of inputs and those that Keras made up."""
    return [
        entry.own
        for entry in walk(body)
        if entry.kind is NameKind.LAYER
        and not is_input(entry.layer)
        and (
            explicit_names.has_given_name(entry.layer) or not names.is_automatic(entry.own, type(entry.layer).__name__)
        )
    ]


def _words(style: Convention, hidden: Sequence[int], dropout: float, *, pooled: bool) -> dict[str, tuple[Any, ...]]:
    """Return `{layer: (style, word, number)}` for the names of the layers before an output."""
    words: dict[str, tuple[Any, ...]] = {"pool": (style, "pool", None)} if pooled else {}
    for index in range(len(hidden)):
        words[f"hidden{index}"] = (style, "hidden", index + 1 if len(hidden) > 1 else None)
    return words | ({"drop": (style, "drop", None)} if dropout else {})


def _named(output: str, words: tuple[Any, ...]) -> str:
    style, word, number = words
    return str(style.name(str(output), word, number=number))


def _refuse(
    body: Any, heads: Mapping[str, int], plan: Mapping[str, Mapping[str, Any]], hidden: Sequence[int], dropout: float
) -> None:
    problems = [] if heads else ["there are no outputs; give {name: units}"]
    problems += [f"{output}: {units!r} is not a number of units" for output, units in heads.items() if _invalid(units)]
    problems += [f"hidden: {units!r} is not a number of units" for units in hidden if _invalid(units)]
    is_rate = isinstance(dropout, int | float) and 0 <= dropout < 1
    problems += [] if is_rate else [f"dropout={dropout!r} is not a rate from 0 to below 1"]
    taken = {entry.own.casefold(): entry.own for entry in walk(body) if entry.parent < 0}
    for output, parts in plan.items():
        for own in (output, *(_named(output, words) for words in parts.values())):
            if fault := names.fault(own):
                problems.append(f"the name {own!r}: {fault}")
                continue
            if own.casefold() in taken:
                problems.append(f"the name {own!r} is taken by {taken[own.casefold()]!r}; rename the output")
            taken.setdefault(own.casefold(), own)
    if problems:
        raise HeadError(
            "\n".join([f"these heads cannot be attached to {body.name!r}:", *(f"  {problem}" for problem in problems)])
        )


def _invalid(units: object) -> bool:
    return not isinstance(units, int | np.integer) or isinstance(units, bool) or int(units) < 1


def _head(
    x: Any, output: str, units: int, hidden: Sequence[int], dropout: float, activation: str, plan: Mapping[str, Any]
) -> Any:
    if "pool" in plan:
        x = _POOLS[len(x.shape)](name=_named(output, plan["pool"]))(x)
    for place, width in enumerate(hidden):
        x = layers.Dense(width, activation=activation, name=_named(output, plan[f"hidden{place}"]))(x)
    if "drop" in plan:
        x = layers.Dropout(dropout, name=_named(output, plan["drop"]))(x)
    return layers.Dense(units, dtype="float32", name=output)(x)
