"""Every use of Keras' private API, each as it stands in keras 3.15.1 with tensorflow 2.21.

tests/models/test_keras_private.py fails when one of them changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras.src.models.functional import Functional  # keras exports no name for the class of a graph of layers
from keras.src.ops.operation import Operation

__all__ = [
    "Functional",
    "Operation",
    "makes_its_parts",
    "operations",
    "own_variables",
    "seed_generators",
    "stacked",
    "sublayers",
    "takes_one_layer",
]


def operations(model: Any) -> Sequence[Any]:
    """Return the operations of a functional graph, inputs first (`Function._operations`, ops/function.py)."""
    return model._operations


def sublayers(layer: Any) -> Sequence[Any]:
    """Return the layers that a layer tracks, in the order they came (`Layer._layers`, layers/layer.py)."""
    return getattr(layer, "_layers", ())


def stacked(model: Any) -> Sequence[Any]:
    """Return a Sequential's layers with its input, which its `layers` leaves out (models/sequential.py)."""
    return model._layers


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer itself, without its sublayers' (layers/layer.py)."""
    return [*getattr(layer, "_trainable_variables", ()), *getattr(layer, "_non_trainable_variables", ())]


def seed_generators(layer: Any) -> Sequence[Any]:
    """Return the seed generators of a layer itself (`Layer._seed_generators`, layers/layer.py)."""
    return getattr(layer, "_seed_generators", ())


def takes_one_layer(layer: Any) -> bool:
    """Tell whether a layer wraps one that the caller gave: a wrapper, or an RNN around its cell."""
    return isinstance(layer, keras.layers.Wrapper) or type(layer) is keras.layers.RNN


def makes_its_parts(layer: Any) -> bool:
    """Tell whether a layer's sublayers are made by code of Keras, as MultiHeadAttention's are."""
    if isinstance(layer, keras.Model):
        return False
    return any(
        kind.__module__.startswith("keras.src.layers.") and kind not in _GIVEN for kind in type(layer).__mro__
    )


_GIVEN = (keras.layers.Layer, keras.layers.StackedRNNCells, keras.layers.Pipeline)
