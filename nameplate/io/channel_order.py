"""The layers for which PyTorch orders the features of a flattened image differently from Keras.

PyTorch keeps channels first, so a flattened image runs channel by channel; in Keras it runs pixel by pixel. A layer
with a weight for each of these features, a Dense or a normalization, needs its weights reordered. The graph of the
model shows which layers these are; if it cannot, the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from nameplate.formats.pytorch_layouts import Rows
from nameplate.graph.functional import Call, Graph, SurgeryError, is_graph, read, values_in
from nameplate.graph.tree import direct, walk

_SAME = (
    layers.Activation,
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Rescaling,
)
_PER_FEATURE = (layers.BatchNormalization, layers.LayerNormalization, layers.RMSNormalization)
_PLAIN = (layers.Embedding, layers.RNN, layers.Bidirectional, layers.MultiHeadAttention)
_MERGES = (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply, layers.Subtract)
_ELEMENTWISE = ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "Relu", "Relu6", "Gelu", "Silu", "Cast")


@dataclass(frozen=True)
class _Axes:
    """What is known of a tensor's axes: `plain` has PyTorch's order, `image` may have its channels elsewhere."""

    kind: str  # plain, image, flat, unknown
    last: bool = True  # of an image: whether its channels are last
    rows: Rows | None = None  # of a flattened image


_PLAINLY, _UNKNOWN = _Axes("plain"), _Axes("unknown")


def rows_by_layer(model: keras.Model) -> dict[str, Rows]:
    """Return PyTorch's order of the rows for each layer with a weight for every feature of a flattened image."""
    names = {id(entry.layer): entry.name for entry in walk(model)}
    rows_of: dict[int, Rows] = {}
    _note_subclassed(model, rows_of)
    if is_graph(model) and getattr(model, "inputs", None):
        _Tracer(rows_of).graph(model, [_of_input(tensor) for tensor in model.inputs])
    return {names[key]: rows for key, rows in rows_of.items() if key in names}


def _of_input(tensor: Any) -> _Axes:
    rank = len(tensor.shape)
    if rank >= 4:
        return _Axes("image", last=keras.config.image_data_format() == "channels_last")
    return _UNKNOWN if rank == 3 and "int" not in str(tensor.dtype) else _PLAINLY


class _Tracer:
    """Follows the axes of every tensor through a graph."""

    def __init__(self, rows_of: dict[int, Rows]) -> None:
        self._rows_of = rows_of

    def graph(self, container: Any, given: Sequence[_Axes]) -> list[_Axes]:
        try:
            graph: Graph = read(container)
        except SurgeryError:  # it holds layers outside its graph
            return [_UNKNOWN for _ in container.outputs]
        known = {id(head.value): axes for head, axes in zip(graph.heads, given, strict=False)}
        for call in graph.calls:
            tensors = values_in(call.args)
            if type(call.layer).__name__ == "Reshape" and call.took and len(call.took[0].shape) == 2:
                self._note_reshape_to_image(graph, call)
            results = self._call(call, [known.get(id(value), _UNKNOWN) for value in tensors])
            results += [_UNKNOWN] * (len(call.outputs) - len(results))
            known.update((id(value), axes) for value, axes in zip(call.outputs, results, strict=False))
        return [known.get(id(value), _UNKNOWN) for value in values_in(graph.outputs)]

    def _call(self, call: Call, given: list[_Axes]) -> list[_Axes]:
        layer, took, gave = call.layer, call.took or [], call.gave
        if is_graph(layer) and getattr(layer, "inputs", None):
            return self.graph(layer, given)
        if not given or not took or not gave:
            return []
        first, shape, result = given[0], tuple(took[0].shape), tuple(gave[0].shape)
        if isinstance(layer, layers.Flatten) or (type(layer).__name__ == "Reshape" and len(result) == 2):
            return [_flattened(layer, first, shape)]
        if type(layer).__name__ == "Reshape" and len(shape) == 2 and len(result) >= 4:
            return [_Axes("image", last=keras.config.image_data_format() == "channels_last")]
        if isinstance(layer, layers.Dense):
            self._note(layer, first, shape)
            return [_PLAINLY if len(result) == 2 or first.kind == "plain" else _UNKNOWN]
        if isinstance(layer, _PER_FEATURE):
            self._note(layer, first, shape)
            return [first]
        if isinstance(layer, _MERGES) or type(layer).__name__ in _ELEMENTWISE:
            return [first if all(other == first for other in given[1:]) else _UNKNOWN]
        if isinstance(layer, layers.Concatenate):
            return [_concatenated(given, [tuple(spec.shape) for spec in took])]
        return [_after(layer, first, shape, result)]

    def _note(self, layer: Any, axes: _Axes, shape: Sequence[int | None]) -> None:
        """Record the rows of a layer that works on vectors; two calls that disagree make them unknown."""
        if len(shape) != 2 or (axes.kind == "plain" and id(layer) not in self._rows_of):
            return
        rows = axes.rows or Rows(None, _BLIND if axes.kind != "plain" else _SEVERAL)
        before = self._rows_of.get(id(layer), rows)
        self._rows_of[id(layer)] = rows if before == rows else Rows(None, _SEVERAL)

    def _note_reshape_to_image(self, graph: Graph, call: Call) -> None:
        """Record the Dense, and the normalizations after it, whose features a Reshape turns into an image."""
        sides = [int(side or 0) for side in call.gave[0].shape[1:]]
        if len(sides) < 3 or keras.config.image_data_format() != "channels_last":
            return
        here = _pixels([sides[-1], *sides[:-1]], last=True)
        order = tuple(here.ravel().tolist())
        change = f"from {' x '.join(map(str, [sides[-1], *sides[:-1]]))} to {' x '.join(map(str, sides))}"
        makers = {id(value): other for other in graph.calls for value in other.outputs}
        taken = [id(value) for other in graph.calls for value in other.inputs()]
        taken += list(map(id, values_in(graph.outputs)))
        value, alone, between = values_in(call.args)[0], True, []
        while (maker := makers.get(id(value))) and isinstance(maker.layer, (*_SAME, *_PER_FEATURE)):
            between += [maker.layer] if isinstance(maker.layer, _PER_FEATURE) else []
            alone = alone and taken.count(id(value)) == 1
            value = values_in(maker.args)[0]
        if maker is None or not isinstance(maker.layer, layers.Dense) or order == tuple(range(len(order))):
            return
        if not alone or taken.count(id(value)) != 1 or sum(other.layer is maker.layer for other in graph.calls) != 1:
            self._rows_of[id(maker.layer)] = Rows(None, f"columns that become an image, {change}, have other uses")
            return
        before = self._rows_of.get(id(maker.layer), Rows(None, ""))
        what = "; ".join(part for part in (before.description, f"columns {change}") if part)
        self._rows_of[id(maker.layer)] = Rows(before.order, what, order)
        self._rows_of.update((id(layer), Rows(order, f"rows {change}")) for layer in between)


_SEVERAL = "it is called on features in several orders"
_BLIND = "the graph does not show whether PyTorch flattens channels first"


def _flattened(layer: Any, axes: _Axes, shape: Sequence[int | None]) -> _Axes:
    sides = list(shape[1:])
    if axes.kind in ("plain", "flat") or sum(side != 1 for side in sides) < 2:
        return axes if axes.kind == "flat" else _PLAINLY
    if axes.kind == "unknown" or None in sides:
        return _UNKNOWN
    channels_first = [int(side or 0) for side in ([sides[-1], *sides[:-1]] if axes.last else sides)]
    here = _pixels(channels_first, last=axes.last)
    if isinstance(layer, layers.Flatten) and layer.data_format == "channels_first":  # it transposes first
        here = np.moveaxis(here, 0, -1)
    order = tuple(here.ravel().tolist())
    if order == tuple(range(len(order))):
        return _PLAINLY
    change = f"rows from {' x '.join(map(str, channels_first))} to {' x '.join(map(str, here.shape))}"
    return _Axes("flat", rows=Rows(order, change))


def _pixels(channels_first: Sequence[int], *, last: bool) -> np.ndarray:
    """Return PyTorch's index of each element of an image, as an array whose channels are where Keras has them."""
    torch = np.arange(math.prod(channels_first)).reshape(channels_first)
    return np.moveaxis(torch, 0, -1) if last else torch


def _concatenated(given: Sequence[_Axes], shapes: Sequence[Sequence[int | None]]) -> _Axes:
    """Return what is known of concatenated tensors: for vectors, the rows of one after the other."""
    if any(axes.kind == "unknown" for axes in given):
        return _UNKNOWN
    if len(shapes[0]) != 2:
        return given[0] if all(other == given[0] for other in given[1:]) else _UNKNOWN
    if all(axes.kind == "plain" for axes in given):
        return _PLAINLY
    order: list[int] = []
    changes: list[str] = []
    for axes, shape in zip(given, shapes, strict=True):
        start, size = len(order), int(shape[1] or 0)
        part = axes.rows.order if axes.rows and axes.rows.order is not None else range(size)
        order += [start + index for index in part]
        changes += [axes.rows.description] if axes.rows else []
    return _Axes("flat", rows=Rows(tuple(order), "; ".join(changes)))


def _after(layer: Any, axes: _Axes, shape: Sequence[int | None], result: Sequence[int | None]) -> _Axes:
    """Return what is known after a layer that does not have a weight for each feature of a vector."""
    if isinstance(layer, _SAME):
        return axes
    if isinstance(layer, _PLAIN):
        return _PLAINLY
    if len(result) >= 3 and getattr(layer, "data_format", None) in ("channels_last", "channels_first"):
        return _Axes("image", last=layer.data_format == "channels_last")
    if isinstance(layer, layers.GroupNormalization | layers.SpatialDropout1D | layers.SpatialDropout2D):
        return axes
    if len(result) != 2:
        return _PLAINLY if axes.kind == "plain" and len(result) == len(shape) else _UNKNOWN
    if axes.kind == "flat":
        return _UNKNOWN
    whole = len(shape) > 2 and axes.kind != "plain" and None not in shape[1:]
    return _UNKNOWN if whole and result[1] == math.prod(int(side or 0) for side in shape[1:]) else _PLAINLY


def _note_subclassed(model: Any, rows_of: dict[int, Rows]) -> None:
    """Record the Dense layers that a class of the user's calls and whose rows may be those of a flattened image.

    The graph shows nothing there. The number of rows hints at it: a multiple of a convolution's filters that is not the
    size of any vector in the model.
    """
    every = [model, *(entry.layer for entry in walk(model))]
    channels = {layer.filters for layer in every if getattr(layer, "filters", 0)}
    vectors = channels | {layer.units for layer in every if getattr(layer, "units", 0)}
    for container in every:
        if is_graph(container) or type(container).__module__.startswith("keras."):
            continue
        for layer in direct(container):
            size = layer.kernel.shape[0] if isinstance(layer, layers.Dense) and layer.built else 0
            if size not in vectors and any(size > count > 1 and size % count == 0 for count in channels):
                kind = type(container).__name__
                rows_of[id(layer)] = Rows(None, f"the code of {kind} calls it, so no Flatten can be seen")
