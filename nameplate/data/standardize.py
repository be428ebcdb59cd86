"""Inputs scaled by the mean and the variance of the training data, in named layers of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.arguments import checked
from nameplate.data.adapters import as_source
from nameplate.data.dataset import Dataset, Field
from nameplate.data.errors import DataError
from nameplate.data.source import Source, Stream, absent, named
from nameplate.data.tables import layer_name
from nameplate.graph import keras_private, model_weights
from nameplate.graph.functional import SurgeryError, is_graph, why_closed
from nameplate.graph.tree import layers
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from nameplate.surgery.changes import Insert
from nameplate.surgery.edit import edit

_KIND = "normalization"  # ends the names of the layers
_CHUNK = 1024  # examples that are read at a time
_CONSTANT = 1e-7  # of the mean: deviations below are the rounding of 32-bit floats


@dataclass
class Moments:
    """The mean and the variance of every feature so far, float64 (features,)."""

    count: int = 0  # of values of each feature
    mean: Any = 0.0
    squares: Any = 0.0  # sum of the squared distances to the mean

    @property
    def variance(self) -> np.ndarray:
        """The variance, 1 for a feature that is constant."""
        variance = np.asarray(self.squares / self.count)
        return np.where(self.constant, 1.0, variance)

    @property
    def constant(self) -> np.ndarray:
        """Which features have one value only, up to rounding."""
        return np.asarray(np.sqrt(self.squares / self.count) <= _CONSTANT * np.abs(self.mean))

    def add(self, values: np.ndarray) -> None:
        """Count values (n, features); after Chan, Golub and LeVeque (1979), so that large means cost no digits."""
        values = values.astype(np.float64)
        count, mean = len(values), values.mean(axis=0)
        apart = mean - self.mean
        total = self.count + count
        self.squares = self.squares + ((values - mean) ** 2).sum(axis=0) + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


def scalable(inputs: Mapping[str, Field], *, categories: Collection[str] = ()) -> list[str]:
    """Return the inputs that hold floats, with a known number of features in the last dimension, and no categories."""
    return [
        name
        for name, field in inputs.items()
        if field.dtype.startswith(("float", "bfloat")) and None not in field.shape[-1:] and name not in categories
    ]


@checked
def standardized(model: keras.Model, data: Any, *, inputs: Sequence[str] | None = None) -> keras.Model:
    """Return an uncompiled copy of the model whose inputs are scaled to mean 0 and variance 1 over this data.

    Each input goes through a `keras.layers.Normalization` named after it, `features_normalization`, with a mean and a
    variance for each feature of the last dimension; they are weights, which files and checkpoints hold. Give the
    training data, not the validation data. A feature that is constant is only shifted.

    Args:
        model: functional or sequential; it is not changed.
        data: what `fit` takes, and finite; targets and weights are ignored.
        inputs: which inputs, by their names in the data; by default all that hold floats.

    Raises:
        DataError: no input holds floats, an unknown input, NaN or infinite values, or data without an end.
        SurgeryError: the model is not a graph of layers.
    """
    source = as_source(data)
    first = list(named(_inputs_of(source.spec()), next(iter(_input_layers(model)), "x")).items())
    fields = {name: Field(tuple(spec.shape), spec.dtype.name) for name, spec in first}
    chosen = scalable(fields) if inputs is None else list(inputs)
    if unknown := [name for name in chosen if name not in fields]:
        hints = "".join(f"\n  no input {name!r}.{did_you_mean(name, fields)}" for name in unknown)
        raise DataError(f"inputs: the data has {', '.join(fields)}{hints}")
    if not chosen:
        shown = ", ".join(f"{name} {field.dtype} {field.shape}" for name, field in fields.items())
        raise DataError(f"no input holds floats with a known number of features: {shown}")
    copy = with_normalizations(model, chosen)
    adapt(copy, moments_of(source, chosen, first=next(iter(fields))))
    return copy


def inputs_to_scale(inputs: Mapping[str, Field], categories: Collection[str]) -> list[str]:
    """Return the inputs of a configured run that `data.standardize` scales; columns of categories are not.

    Raises:
        ConfigError: there are none.
    """
    found = scalable(inputs, categories=[layer_name(column) for column in categories])
    if not found:
        shown = ", ".join(f"{name} {field.dtype} {field.shape}" for name, field in inputs.items())
        raise ConfigError([f"data.standardize: no input holds floats that are not categories: {shown}"])
    return found


def moments_of_run(dataset: Dataset) -> dict[str, Moments]:
    """Return the statistics of the training part of a run's data; columns of categories keep their values.

    Raises:
        DataError: as `moments_of`.
    """
    names = inputs_to_scale(dataset.inputs, dataset.categories)
    widths = [len(dataset.categories[column]) if column in dataset.categories else 1 for column in dataset.columns]
    untouched = np.repeat([column in dataset.categories for column in dataset.columns], widths)
    vector = names == list(dataset.inputs) and dataset.inputs[names[0]].shape == untouched.shape
    kept = {names[0]: untouched} if vector and untouched.any() else {}
    return moments_of(dataset.train, names, first=next(iter(dataset.inputs)), untouched=kept)


def with_normalizations(model: keras.Model, inputs: Sequence[str]) -> keras.Model:
    """Return an uncompiled copy of a model, with a layer that scales nothing yet after each of these inputs."""
    if not is_graph(model):
        raise SurgeryError(f"{model.name!r} cannot be edited: {why_closed(model, top=True)}")
    own = _own_names(model, inputs)
    return edit(
        model,
        [
            Insert(keras.layers.Normalization(dtype="float32", name=f"{name}_{_KIND}"), after=name)
            for name in own.values()
        ],
    )


def adapt(model: keras.Model, moments: Mapping[str, Moments]) -> list[str]:
    """Write statistics of inputs into the layers of `with_normalizations`; return a line for constant features."""
    own, lines = _own_names(model, moments), []
    every = layers(model)
    for name, found in moments.items():
        layer = every[f"{own[name]}_{_KIND}"]
        layer.adapt_mean.assign(found.mean)
        layer.adapt_variance.assign(found.variance)
        layer.count.assign(min(found.count, 2**31 - 1))
        if places := np.flatnonzero(found.constant).tolist():
            shown = ", ".join(map(str, places[:10])) + (f" and {len(places) - 10} more" if len(places) > 10 else "")
            lines.append(
                f"{name!r} is constant in feature{'s' if len(places) > 1 else ''} {shown}: shifted, not scaled"
            )
    model_weights.refresh(model)
    return lines


def normalizations(model: keras.Model) -> dict[str, keras.layers.Normalization]:
    """Return the layers of `with_normalizations` in a model, by name."""
    names = {f"{name}_{_KIND}" for name in _input_layers(model).values()}
    return {name: layer for name, layer in layers(model).items() if name in names}


def moments_of(
    source: Source | Stream, inputs: Sequence[str], *, first: str, untouched: Mapping[str, np.ndarray] | None = None
) -> dict[str, Moments]:
    """Return the statistics of inputs over all examples of a source; a bare input is called `first`.

    `untouched` says which features, (features,), keep their values: they get the mean 0 and the variance 1.

    Raises:
        DataError: NaN or infinite values, or a stream without an end.
    """
    moments = {name: Moments() for name in inputs}
    read = 0
    for x in _batches(source):
        arrays = named(x, first)
        for name, found in moments.items():
            array = np.asarray(arrays[name])
            if not np.isfinite(array).all():
                raise DataError(
                    f"{name!r} has NaN or infinite values among the examples {read} to {read + len(array) - 1} of the "
                    "training data, and so no mean; remove them or fill them in"
                )
            found.add(array.reshape(-1, *array.shape[-1:] if array.ndim > 1 else ()))
        read += len(np.asarray(arrays[next(iter(inputs))]))
    for name, kept in (untouched or {}).items():
        if name in moments:
            found = moments[name]
            found.mean, found.squares = (
                np.where(kept, 0.0, found.mean),
                np.where(kept, float(found.count), found.squares),
            )
    return moments


def _batches(source: Source | Stream) -> Iterator[Any]:
    """Yield the inputs of all examples of a source, in order, some at a time."""
    if isinstance(source, Stream):
        if source.endless:
            raise DataError("a dataset without an end has no mean and no variance; give .take(...) of it")
        dataset = source.dataset if source.batched else source.dataset.batch(_CHUNK)
        for example in dataset:
            yield keras.tree.map_structure(np.asarray, _inputs_of(example))
        return
    whole = source.arrays()
    for start in range(0, source.size, _CHUNK):
        end = min(start + _CHUNK, source.size)
        if whole is not None:
            yield keras.tree.map_structure(lambda array, rows=slice(start, end): array[rows], _inputs_of(whole))
        else:
            example = source.load(tf.range(start, end, dtype=tf.int64))
            yield keras.tree.map_structure(np.asarray, _inputs_of(example))


def _inputs_of(example: Any) -> Any:
    x = example[0] if isinstance(example, tuple) else example
    if any(absent(leaf) for leaf in keras.tree.flatten(x)):
        raise DataError("an input is None; give arrays")
    return x


def _input_layers(model: keras.Model) -> dict[str, str]:
    """Return the name of the layer of each input, by the input's key if the model takes a dict; empty if unknown."""
    if not is_graph(model):
        return {}
    inputs = model.inputs if isinstance(model, keras.Sequential) else model.input  # a Sequential has no `input`
    if isinstance(inputs, dict):
        return {key: str(keras_private.source(tensor).name) for key, tensor in inputs.items()}
    names = [str(keras_private.source(tensor).name) for tensor in keras.tree.flatten(inputs)]
    return {name: name for name in names}


def _own_names(model: keras.Model, inputs: Collection[str]) -> dict[str, str]:
    """Return the layer of each input: a single one goes to the only input, whatever it is called."""
    own = _input_layers(model)
    if len(own) == 1 and len(inputs) == 1:
        return {next(iter(inputs)): next(iter(own.values()))}
    return {name: own.get(name, name) for name in inputs}
