"""A small residual convolutional network, the default: designed for the digits, for images of any size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from trainer.models import checks, ports
from trainer.models.checks import Norm


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    width: int = 64,
    blocks: Sequence[int] = (1, 1),
    dropout: float = 0.3,
    norm: str = Norm.batch,
) -> keras.Model:
    """Return a stem, stages of residual blocks, an average over positions and the logits.

    `width` is the number of channels of the stem and the first stage; each later stage has twice as many and half the
    resolution. `blocks` is the number of blocks of each stage. `dropout` is applied once, before the logits.
    Raises BuildError for data other than one image (height, width, channels) and one output.
    """
    problems = [
        *checks.at_least(1, width=width, blocks=blocks),
        *checks.not_empty(blocks=blocks),
        *checks.rates(dropout=dropout),
        *checks.choices(Norm, norm=norm),
    ]
    port = ports.single("convnet", inputs, outputs, image=True, problems=problems)
    images = ports.source(port.name, port.shape)
    x = _conv_norm(images, name="stem", filters=width, norm=norm)
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            x = _residual_block(
                x,
                name=f"stage{stage}_block{block}",
                filters=width * 2 ** (stage - 1),
                stride=2 if stage > 1 and block == 1 else 1,
                norm=norm,
            )
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="pool_dropout")(x)
    return ports.assemble("convnet", images, ports.logits(x, label=port.label, units=port.units))


def _residual_block(x: Any, *, name: str, filters: int, stride: int, norm: str) -> Any:
    """Return two 3x3 convolutions plus their input, projected if its shape differs."""
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _conv_norm(x, name=f"{name}_projection", kernel=1, filters=filters, stride=stride, norm=norm)
    x = _conv_norm(x, name=name, number="1", filters=filters, stride=stride, norm=norm)
    x = keras.layers.ReLU(name=f"{name}_relu1")(x)
    x = _conv_norm(x, name=name, number="2", filters=filters, norm=norm)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu2")(x)


def _conv_norm(
    x: Any, *, name: str, filters: int, norm: str, number: str = "", kernel: int = 3, stride: int = 1
) -> Any:
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=norm == Norm.none,
        kernel_initializer="he_normal",
        name=f"{name}_conv{number}",
    )(x)
    return _normalized(x, norm=norm, name=name, number=number)


def _normalized(x: Any, *, norm: str, name: str, number: str) -> Any:
    if norm == Norm.none:
        return x
    if norm == Norm.batch:
        # 0.9, because in a short training the moving average of Keras' default, 0.99, does not converge.
        layer = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn{number}")
    elif norm == Norm.group:
        groups = x.shape[-1] // math.gcd(x.shape[-1], 8)
        layer = keras.layers.GroupNormalization(groups, name=f"{name}_gn{number}")
    else:
        layer = keras.layers.LayerNormalization(name=f"{name}_ln{number}")
    return layer(x)
