"""The table of variable names matches what Keras creates."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from nameplate.formats import keras_variables
from nameplate.graph import keras_private
from nameplate.naming import names

MADE: list[tuple[Any, tuple[int, ...]]] = [
    (lambda: layers.Dense(2), (3,)),
    (lambda: layers.Dense(2, use_bias=False), (3,)),
    (lambda: layers.EinsumDense("ab,bc->ac", 2, bias_axes="c"), (3,)),
    (lambda: layers.Conv1D(2, 2), (5, 3)),
    (lambda: layers.Conv2D(2, 2, use_bias=False), (5, 5, 3)),
    (lambda: layers.Conv3D(2, 2), (5, 5, 5, 3)),
    (lambda: layers.Conv1DTranspose(2, 2), (5, 3)),
    (lambda: layers.Conv2DTranspose(2, 2), (5, 5, 3)),
    (lambda: layers.Conv3DTranspose(2, 2), (5, 5, 5, 3)),
    (lambda: layers.DepthwiseConv1D(2), (5, 3)),
    (lambda: layers.DepthwiseConv2D(2), (5, 5, 3)),
    (lambda: layers.SeparableConv1D(2, 2), (5, 3)),
    (lambda: layers.SeparableConv2D(2, 2, use_bias=False), (5, 5, 3)),
    (lambda: layers.BatchNormalization(), (3,)),
    (lambda: layers.BatchNormalization(scale=False), (3,)),
    (lambda: layers.BatchNormalization(center=False, scale=False), (3,)),
    (lambda: layers.LayerNormalization(), (3,)),
    (lambda: layers.LayerNormalization(center=False), (3,)),
    (lambda: layers.GroupNormalization(1), (3,)),
    (lambda: layers.RMSNormalization(), (3,)),
    (lambda: layers.Embedding(5, 2), ()),
    (lambda: layers.PReLU(), (3,)),
    (lambda: layers.LSTMCell(2), (3,)),
    (lambda: layers.GRUCell(2, use_bias=False), (3,)),
    (lambda: layers.SimpleRNNCell(2), (3,)),
]


@pytest.mark.parametrize(("make", "shape"), MADE, ids=map(str, range(len(MADE))))
def test_the_names_of_a_layers_variables_are_those_that_keras_gives(make: Any, shape: tuple[int, ...]) -> None:
    layer = make()
    layer.build((None, *shape))
    made = [variable.name for variable in keras_private.own_variables(layer)]

    assert keras_variables.of_class(type(layer).__name__, len(made), layer.get_config()) == tuple(made)
    assert keras_variables.of_class(names.snake(type(layer).__name__), len(made)) in (tuple(made), None)


def test_what_is_not_known_stays_a_number() -> None:
    assert keras_variables.of_class("Mine", 2) is None
    assert keras_variables.of_class("LayerNormalization", 1) is None
    assert keras_variables.of_class("Dense", 3) is None


def test_parts_of_an_attention_are_known_by_its_names() -> None:
    layer = layers.MultiHeadAttention(2, 3)
    layer.build(query_shape=(None, 4, 6), value_shape=(None, 4, 6))
    parts = {part.name for part in keras_private.sublayers(layer) if isinstance(part, keras.layers.EinsumDense)}

    assert {keras_variables.word(part, names.UNKNOWN_CLASS, "MultiHeadAttention") for part in parts} == {"einsum_dense"}
