"""Where PyTorch counts the features of a flattened picture in another order than Keras.

PyTorch keeps channels first, so that a flattened picture goes channel by channel; in Keras it goes pixel by pixel. What
has a weight for each feature of it, a Dense or a normalization, needs its weights in the other order. The graph of the
model says where that is; where it does not, that is said too.
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
class _Seen:
    """What is known of a tensor's axes: `plain` are PyTorch's, `picture` has its channels elsewhere, else unknown."""

    kind: str  # plain, picture, flat, unknown
    last: bool = True  # of a picture: whether its channels are last
    rows: Rows | None = None  # of a flattened picture


_PLAINLY, _UNKNOWN = _Seen("plain"), _Seen("unknown")


def rows_by_layer(model: keras.Model) -> dict[str, Rows]:
    """Return, for each layer with a weight for every feature of a flattened picture, where PyTorch has each of them."""
    names = {id(entry.layer): entry.name for entry in walk(model)}
    found: dict[int, Rows] = {}
    _closed(model, found)
    if is_graph(model) and getattr(model, "inputs", None):
        _Tracer(found).graph(model, [_of_input(tensor) for tensor in model.inputs])
    return {names[key]: rows for key, rows in found.items() if key in names}


def _of_input(tensor: Any) -> _Seen:
    rank = len(tensor.shape)
    if rank >= 4:
        return _Seen("picture", last=keras.config.image_data_format() == "channels_last")
    return _UNKNOWN if rank == 3 and "int" not in str(tensor.dtype) else _PLAINLY


class _Tracer:
    """Follows the axes of each tensor through a graph."""

    def __init__(self, found: dict[int, Rows]) -> None:
        self._found = found

    def graph(self, container: Any, given: Sequence[_Seen]) -> list[_Seen]:
        try:
            graph: Graph = read(container)
        except SurgeryError:  # it holds layers outside its graph
            return [_UNKNOWN for _ in container.outputs]
        seen = {id(head.value): each for head, each in zip(graph.heads, given, strict=False)}
        for call in graph.calls:
            tensors = values_in(call.args)
            if type(call.layer).__name__ == "Reshape" and call.took and len(call.took[0].shape) == 2:
                self._becomes_a_picture(graph, call)
            results = self._call(call, [seen.get(id(value), _UNKNOWN) for value in tensors])
            results += [_UNKNOWN] * (len(call.outputs) - len(results))
            seen.update((id(value), each) for value, each in zip(call.outputs, results, strict=False))
        return [seen.get(id(value), _UNKNOWN) for value in values_in(graph.outputs)]

    def _call(self, call: Call, given: list[_Seen]) -> list[_Seen]:
        layer, took, gave = call.layer, call.took or [], call.gave
        if is_graph(layer) and getattr(layer, "inputs", None):
            return self.graph(layer, given)
        if not given or not took or not gave:
            return []
        first, shape, result = given[0], tuple(took[0].shape), tuple(gave[0].shape)
        if isinstance(layer, layers.Flatten) or (type(layer).__name__ == "Reshape" and len(result) == 2):
            return [_flattened(layer, first, shape)]
        if type(layer).__name__ == "Reshape" and len(shape) == 2 and len(result) >= 4:
            return [_Seen("picture", last=keras.config.image_data_format() == "channels_last")]
        if isinstance(layer, layers.Dense):
            self._note(layer, first, shape)
            return [_PLAINLY if len(result) == 2 or first.kind == "plain" else _UNKNOWN]
        if isinstance(layer, _PER_FEATURE):
            self._note(layer, first, shape)
            return [first]
        if isinstance(layer, _MERGES) or type(layer).__name__ in _ELEMENTWISE:
            return [first if all(other == first for other in given[1:]) else _UNKNOWN]
        if isinstance(layer, layers.Concatenate):
            return [_beside(given, [tuple(each.shape) for each in took])]
        return [_through(layer, first, shape, result)]

    def _note(self, layer: Any, seen: _Seen, shape: Sequence[int | None]) -> None:
        """Take note of the rows of a layer that works on vectors; two calls that disagree leave them unknown."""
        if len(shape) == 2 and (seen.kind != "plain" or id(layer) in self._found):
            self._take(layer, seen)

    def _take(self, layer: Any, seen: _Seen) -> None:
        rows = seen.rows or Rows(None, _BLIND if seen.kind != "plain" else _SEVERAL)
        before = self._found.get(id(layer), rows)
        self._found[id(layer)] = rows if before == rows else Rows(None, _SEVERAL)

    def _becomes_a_picture(self, graph: Graph, call: Call) -> None:
        """Take note of the Dense, and the normalizations behind it, whose features a Reshape makes a picture of."""
        sides = [int(side or 0) for side in call.gave[0].shape[1:]]
        if len(sides) < 3 or keras.config.image_data_format() != "channels_last":
            return
        here = _pixels([sides[-1], *sides[:-1]], last=True)
        order = tuple(here.ravel().tolist())
        told = f"from {' x '.join(map(str, [sides[-1], *sides[:-1]]))} to {' x '.join(map(str, sides))}"
        makers = {id(value): each for each in graph.calls for value in each.outputs}
        taken = [id(value) for each in graph.calls for value in each.inputs()] + list(map(id, values_in(graph.outputs)))
        value, alone, between = values_in(call.args)[0], True, []
        while (maker := makers.get(id(value))) and isinstance(maker.layer, (*_SAME, *_PER_FEATURE)):
            between += [maker.layer] if isinstance(maker.layer, _PER_FEATURE) else []
            alone = alone and taken.count(id(value)) == 1
            value = values_in(maker.args)[0]
        if maker is None or not isinstance(maker.layer, layers.Dense) or order == tuple(range(len(order))):
            return
        if not alone or taken.count(id(value)) != 1 or sum(each.layer is maker.layer for each in graph.calls) != 1:
            self._found[id(maker.layer)] = Rows(None, f"columns that become a picture, {told}, go elsewhere too")
            return
        before = self._found.get(id(maker.layer), Rows(None, ""))
        words = "; ".join(part for part in (before.description, f"columns {told}") if part)
        self._found[id(maker.layer)] = Rows(before.order, words, order)
        self._found.update((id(layer), Rows(order, f"rows {told}")) for layer in between)


_SEVERAL = "it is called on features in several orders"
_BLIND = "whether PyTorch flattened channels first cannot be seen in the graph"


def _flattened(layer: Any, seen: _Seen, shape: Sequence[int | None]) -> _Seen:
    sides = list(shape[1:])
    if seen.kind in ("plain", "flat") or sum(side != 1 for side in sides) < 2:
        return seen if seen.kind == "flat" else _PLAINLY
    if seen.kind == "unknown" or None in sides:
        return _UNKNOWN
    channels_first = [int(side or 0) for side in ([sides[-1], *sides[:-1]] if seen.last else sides)]
    here = _pixels(channels_first, last=seen.last)
    if isinstance(layer, layers.Flatten) and layer.data_format == "channels_first":  # it turns what it gets first
        here = np.moveaxis(here, 0, -1)
    order = tuple(here.ravel().tolist())
    if order == tuple(range(len(order))):
        return _PLAINLY
    told = f"rows from {' x '.join(map(str, channels_first))} to {' x '.join(map(str, here.shape))}"
    return _Seen("flat", rows=Rows(order, told))


def _pixels(channels_first: Sequence[int], *, last: bool) -> np.ndarray:
    """Return PyTorch's place of each pixel of a picture of these sides, with its channels where they are here."""
    torch = np.arange(math.prod(channels_first)).reshape(channels_first)
    return np.moveaxis(torch, 0, -1) if last else torch


def _beside(given: Sequence[_Seen], shapes: Sequence[Sequence[int | None]]) -> _Seen:
    """Return what is known of tensors side by side: of vectors, the rows of each behind those before it."""
    if any(each.kind == "unknown" for each in given):
        return _UNKNOWN
    if len(shapes[0]) != 2:
        return given[0] if all(other == given[0] for other in given[1:]) else _UNKNOWN
    if all(each.kind == "plain" for each in given):
        return _PLAINLY
    order: list[int] = []
    told: list[str] = []
    for seen, shape in zip(given, shapes, strict=True):
        start, size = len(order), int(shape[1] or 0)
        part = seen.rows.order if seen.rows and seen.rows.order is not None else range(size)
        order += [start + place for place in part]
        told += [seen.rows.description] if seen.rows else []
    return _Seen("flat", rows=Rows(tuple(order), "; ".join(told)))


def _through(layer: Any, seen: _Seen, shape: Sequence[int | None], result: Sequence[int | None]) -> _Seen:
    """Return what is known behind a layer that has no weight for each feature of a vector."""
    if isinstance(layer, _SAME):
        return seen
    if isinstance(layer, _PLAIN):
        return _PLAINLY
    if len(result) >= 3 and getattr(layer, "data_format", None) in ("channels_last", "channels_first"):
        return _Seen("picture", last=layer.data_format == "channels_last")
    if isinstance(layer, layers.GroupNormalization | layers.SpatialDropout1D | layers.SpatialDropout2D):
        return seen
    if len(result) != 2:
        return _PLAINLY if seen.kind == "plain" and len(result) == len(shape) else _UNKNOWN
    if seen.kind == "flat":
        return _UNKNOWN
    whole = len(shape) > 2 and seen.kind != "plain" and None not in shape[1:]
    return _UNKNOWN if whole and result[1] == math.prod(int(side or 0) for side in shape[1:]) else _PLAINLY


def _closed(model: Any, found: dict[int, Rows]) -> None:
    """Take note of Dense layers that code calls, and whose rows may be those of a flattened picture."""
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
                found[id(layer)] = Rows(None, f"the code of {kind} calls it, where no Flatten can be seen")
