"""What looks wrong with data before it is trained on: one class only, values without a scale, misspelt classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.errors import DataError
from nameplate.data.source import Memory, Source, Stream, absent, named
from nameplate.data.splits import labels_of
from nameplate.graph.tree import layers
from nameplate.naming.names import did_you_mean

_SAMPLE = 64  # examples whose values are looked at
_LARGEST = 30  # an absolute value that inputs with a scale do not reach
_SCALING = (
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.Rescaling,
    keras.layers.Lambda,
    keras.layers.Embedding,  # numbers of tokens
)
_RARE = 2  # examples that a typing error has at most, or a hundredth of those of the right word
_RARER = 20  # times as many examples has the right word at least
_LONG = 8  # letters of a word that may have two typing errors
_SHOWN = 5  # typos that are listed


def findings(
    train: Source | Stream,
    model: keras.Model,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    input_name: str = "x",
    target: str = "y",
    reads: bool = True,
) -> Iterator[str]:
    """Yield a line for each thing that looks wrong with the training data of a model.

    `input_name` and `target` name a bare input and a bare target; `reads` allows reading examples that are not in
    memory.
    """
    yield from _one_class(train, classes or {}, target)
    if not isinstance(train, Stream) and (reads or isinstance(train, Memory)):
        yield from _without_scale(train, model, input_name)


def _one_class(train: Source | Stream, classes: Mapping[str, Sequence[str]], target: str) -> Iterator[str]:
    if isinstance(train, Stream) or train.size < 2:
        return
    for name, labels in labels_of(train, target).items():
        if labels.dtype.kind in "iu" and labels.size == len(labels) and labels.min() == labels.max():
            label, known = int(labels.min()), classes.get(name, ())
            called = known[label] if 0 <= label < len(known) else str(label)
            yield f"all {train.size:,} training examples have the class {called!r} of {name!r}: nothing can be learned"


def _without_scale(train: Source, model: keras.Model, input_name: str) -> Iterator[str]:
    if _scales(model):
        return
    indices = tf.range(min(_SAMPLE, train.size), dtype=tf.int64)
    try:
        example = train.load(indices)
    except (tf.errors.OpError, DataError):  # said by whoever trains on it
        return
    inputs = named(example[0] if isinstance(example, tuple) else example, input_name)
    for name, tensor in inputs.items():
        if isinstance(tensor, tuple | list) or absent(tensor) or not _is_measured(tensor):
            continue
        array = np.asarray(tf.cast(tensor, tf.float32))
        finite = array[np.isfinite(array)]
        if finite.size and np.abs(finite).max() > _LARGEST:
            low, high = finite.min(), finite.max()
            yield (
                f"{name!r} holds values from {low:.4g} to {high:.4g}, and the model scales none of its inputs: "
                "data.standardize=true, nameplate.data.standardized, or a keras.layers.Rescaling as its first layer"
            )


def _is_measured(tensor: Any) -> bool:
    """Say whether an input holds measurements: floats, or the bytes of pixels."""
    return isinstance(tensor, tf.Tensor) and (tensor.dtype.is_floating or tensor.dtype == tf.uint8)


def _scales(model: keras.Model) -> bool:
    """Say whether a layer before the first one that learns scales its inputs, as far as the order of layers says."""
    for layer in layers(model).values():
        if isinstance(layer, _SCALING):
            return True
        inner = any(True for _ in getattr(layer, "layers", ()))
        if layer.trainable_weights and not inner:
            return False
    return False


# ---- names of classes that are typing errors -------------------------------------------------------------------


def typos(counts: Mapping[str, int], what: str, *, confirmed: Mapping[str, str]) -> list[str]:
    """Return a line for each rare value that looks like a typing error of a frequent one.

    `counts` has the number of examples of each; `what` says whose values they are; `confirmed` is `data.spelling`.
    """
    lines = []
    for rare, few in counts.items():
        likely = [
            (many, word)
            for word, many in counts.items()
            if word != rare and few <= max(_RARE, many // 100) and few * _RARER <= many and _alike(rare, word)
        ]
        if likely and rare not in confirmed.values():
            many, word = max(likely)
            lines.append(
                f"{what} {rare!r} ({few:,} example{'s' if few > 1 else ''}) looks like {word!r} ({many:,}): "
                f"'data.spelling={{{rare}: {word}}}' merges them, '{{{rare}: {rare}}}' confirms it"
            )
    return lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more of {what}"] if len(lines) > _SHOWN else [])


def respelling_problems(spelling: Mapping[str, str], values: Sequence[str]) -> Iterator[str]:
    """Yield the words of `data.spelling` that no class or category has."""
    for word in spelling:
        if word not in values:
            yield f"data.spelling: no class or category is called {word!r}.{did_you_mean(word, values)}"


def _alike(one: str, other: str) -> bool:
    """Say whether one word is the other with a typing error; words that differ in digits only are no such pair."""
    if min(len(one), len(other)) < 3 or re.sub(r"\d", "", one) == re.sub(r"\d", "", other):
        return False
    one, other = (re.sub(r"[\s_.-]+", " ", word.casefold()).strip() for word in (one, other))
    most = 2 if min(len(one), len(other)) >= _LONG else 1
    return abs(len(one) - len(other)) <= most and _distance(one, other) <= most


def _distance(one: str, other: str) -> int:
    """Return how many letters are added, left out, replaced or exchanged with their neighbour (restricted Damerau)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        rows = [i]
        for j, its in enumerate(other, start=1):
            cost = min(row[j] + 1, rows[j - 1] + 1, row[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                cost = min(cost, before[j - 2] + 1)
            rows.append(cost)
        before, row = row, rows
    return row[-1]
