"""The way that names are written, learnt from names that are there: strings only."""

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

from nameplate.errors import NameplateError
from nameplate.graph import explicit_names, keras_private
from nameplate.graph.functional import is_graph
from nameplate.graph.tree import require_model, walk
from nameplate.naming import names
from nameplate.naming.policy import NameKind
from nameplate.surgery.addresses import is_input
from nameplate.surgery.extract import extract

_SEPARATORS = "_.-"


@dataclass(frozen=True)
class Convention:
    """How words and numbers become one name."""

    separator: str = "_"  # between words; empty: words begin with a capital, `stemConv`
    case: str = "lower"  # of words: lower, capital, upper
    apart: bool = False  # whether a number stands by itself: `block_1`, not `block1`

    def name(self, *words: str, number: int | None = None) -> str:
        """Return a name of these words, the first as it is, and of a number at its end."""
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


def convention_of(names: Iterable[str]) -> Convention:
    """Return how most of these own names are written; where they say nothing, `stage1_conv1`."""
    written = list(names)
    separators = Counter(char for name in written for char in name if char in _SEPARATORS)
    humps = sum(bool(re.search(r"[a-z][A-Z]", name)) for name in written)
    separator = separators.most_common(1)[0][0] if separators else ("" if humps > len(written) / 2 else "_")
    words = [word for name in written for word in re.findall(r"[A-Za-z]+", name)]
    apart = sum(bool(re.search(rf"[A-Za-z][{_SEPARATORS}][0-9]", name)) for name in written)
    close = sum(bool(re.search(r"[A-Za-z][0-9]", name)) for name in written)
    return Convention(separator, _case(words), apart > close)


def _case(words: Sequence[str]) -> str:
    """Return how most words of several letters are written."""
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
    """A head that cannot stand on a backbone as it was asked for."""


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

    An output has the name it is asked for, which is what losses and targets are keyed by. What leads to it is named as
    most of the backbone is written: `label_pool`, `label_hidden1`, or `label.Hidden_1`. The backbone's layers keep
    their places, names and weights, so that a checkpoint of either is taken by name.

    Proved: the backbone's copy as `extract` proves it without `verify`, and the names of the head. Not proved: that the
    whole can be saved, and what the head computes, which is new.

    Args:
        backbone: functional or sequential, built; it is left as it is.
        heads: `{output: units}`; what comes out are logits.
        after: the layer on which they stand; None: what the backbone gives. What lies behind it, an old head, is left
            out. Maps and sequences are averaged to one vector.
        hidden: units of dense layers before each output.
        dropout: share of features dropped before each output.
        activation: of the hidden layers.
        name: of the new model; by default the backbone's.

    Raises:
        HeadError: for names that cannot be or are taken, units that no layer has, and a backbone of several outputs.
        SurgeryError: for a layer that does not exist, and a backbone that has no graph.
    """
    require_model(backbone)
    if not isinstance(heads, Mapping):
        raise HeadError(f"heads is {{output: units}}, not a {type(heads).__name__}; e.g. {{'label': 10}}")
    _refuse_forms(hidden, activation, name)
    end = after if after is not None else _last(backbone)
    body = extract(backbone, end, name=name or str(backbone.name), verify=False)
    given = _given(body, end)
    written = convention_of(_own_names(body))
    plan = {output: _words(written, hidden, dropout, pooled=len(given.shape) > 2) for output in heads}
    _refuse(body, heads, plan, hidden, dropout)
    with keras_private.undisturbed():
        outputs = {
            output: _head(given, output, units, hidden, dropout, activation, plan[output])
            for output, units in heads.items()
        }
        _name_inputs(body, heads)
        inputs = keras_private.inputs_struct(keras_private.graph_of(body))
        return keras.Model(inputs, outputs if len(outputs) > 1 else next(iter(outputs.values())), name=body.name)


def _refuse_forms(hidden: Any, activation: Any, name: Any) -> None:
    """Refuse arguments that are something else than they are to be, before any is looked at."""
    several = isinstance(hidden, Sequence) and not isinstance(hidden, str)
    problems = [] if several else [f"hidden={hidden!r}: a list of units, e.g. [64]"]
    try:
        keras.activations.get(activation)
    except ValueError:
        problems.append(f"activation={activation!r}: Keras has no such function")
    problems += [f"name={name!r}: {fault}" for fault in [name is not None and names.fault(name)] if fault]
    if problems:
        raise HeadError("\n".join(["no head can be attached so:", *(f"  {each}" for each in problems)]))


def _last(backbone: Any) -> str:
    """Return the layer that gives what a backbone gives."""
    ends = [str(keras_private.source(tensor).name) for tensor in getattr(backbone, "outputs", None) or []]
    if len(ends) != 1:
        blind = (
            "has not seen a shape; build it first" if is_graph(backbone) else "has no graph, its code calls its layers"
        )
        told = f"gives {', '.join(ends)}: say on which layer the head stands, after=NAME" if ends else blind
        raise HeadError(f"{backbone.name!r} {told}")
    return ends[0]


def _given(body: Any, end: str) -> Any:
    """Return the tensor that a head stands on; several, or one of more dimensions than a volume has, are refused."""
    found = keras_private.graph_of(body).outputs
    if len(found) != 1 or not 2 <= len(found[0].shape) <= max(_POOLS):
        what = f"{len(found)} tensors" if len(found) != 1 else f"{tuple(found[0].shape)}"
        raise HeadError(f"{end!r} gives {what}; a head stands on one vector, sequence, image or volume an example")
    return found[0]


def _name_inputs(body: Any, heads: Mapping[str, int]) -> None:
    """Name the input that a Sequential hides: in the graph that the heads make of it, it shows."""
    if not isinstance(body, keras.Sequential):
        return
    taken = {name.casefold() for name in [*(layer.name for layer in body.layers), *heads]}
    for tensor in keras_private.graph_of(body).inputs:
        layer = keras_private.source(tensor)
        if names.is_automatic(str(layer.name), "InputLayer"):
            tries = itertools.chain(["input"], (f"input_{number}" for number in itertools.count(2)))
            own = next(each for each in tries if each not in taken)
            keras_private.rename_layer(layer, own, own)


def _own_names(body: Any) -> list[str]:
    """Return the names that people gave: neither inputs nor what Keras makes up."""
    return [
        entry.own
        for entry in walk(body)
        if entry.kind is NameKind.LAYER
        and not is_input(entry.layer)
        and (
            explicit_names.has_given_name(entry.layer) or not names.is_automatic(entry.own, type(entry.layer).__name__)
        )
    ]


def _words(written: Convention, hidden: Sequence[int], dropout: float, *, pooled: bool) -> dict[str, tuple[Any, ...]]:
    """Return the words of each layer's name but the output, by what it is."""
    found: dict[str, tuple[Any, ...]] = {"pool": (written, "pool", None)} if pooled else {}
    for place in range(len(hidden)):
        found[f"hidden{place}"] = (written, "hidden", place + 1 if len(hidden) > 1 else None)
    return found | ({"drop": (written, "drop", None)} if dropout else {})


def _named(output: str, words: tuple[Any, ...]) -> str:
    written, word, number = words
    return str(written.name(str(output), word, number=number))


def _refuse(
    body: Any, heads: Mapping[str, int], plan: Mapping[str, Mapping[str, Any]], hidden: Sequence[int], dropout: float
) -> None:
    problems = [] if heads else ["there is no output; give {name: units}"]
    problems += [f"{output}: {units!r} units; a whole number from 1" for output, units in heads.items() if _odd(units)]
    problems += [f"hidden={units!r}: a whole number of units from 1" for units in hidden if _odd(units)]
    share = isinstance(dropout, int | float) and 0 <= dropout < 1
    problems += [] if share else [f"dropout={dropout!r}: a share from 0 to below 1"]
    taken = {entry.own.casefold(): entry.own for entry in walk(body) if entry.parent < 0}
    for output, parts in plan.items():
        for own in (output, *(_named(output, words) for words in parts.values())):
            if fault := names.fault(own):
                problems.append(f"the name {own!r}: {fault}")
                continue
            if own.casefold() in taken:
                problems.append(f"the name {own!r} is taken by {taken[own.casefold()]!r}; call the output otherwise")
            taken.setdefault(own.casefold(), own)
    if problems:
        raise HeadError("\n".join([f"no head can stand on {body.name!r} so:", *(f"  {each}" for each in problems)]))


def _odd(units: object) -> bool:
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
