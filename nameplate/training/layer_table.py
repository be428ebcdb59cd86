"""The layers of a model as rows of a table, and which layer owns each variable."""

from __future__ import annotations

from collections.abc import Mapping

import keras

import nameplate

COLUMNS = ("layer", "class", "output", "parameters")


def layer_rows(model: keras.Model) -> list[tuple[str, str, str, str]]:
    """Return name, class, output shape and number of parameters of every layer in the tree."""
    rows = []
    for name, layer in nameplate.layers(model).items():
        parameters = layer.count_params() if isinstance(layer, keras.Layer) else 0  # an operator has none
        rows.append((name, type(layer).__name__, _output_shape(layer), f"{parameters:,}"))
    return rows


def classes_by_variable(model: keras.Model) -> Mapping[str, str]:
    """Return the class of the layer that owns each variable, by qualified variable name."""
    layers = nameplate.layers(model)
    classes = {}
    for name in nameplate.variables(model):
        owner = name.rpartition("/")[0]
        while owner and owner not in layers:
            owner = owner.rpartition("/")[0]
        classes[name] = type(layers[owner] if owner else model).__name__
    return classes


def _output_shape(layer: keras.Layer) -> str:
    try:
        return str(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), layer.output)).replace("None", "n")
    except (AttributeError, ValueError):
        return ""
