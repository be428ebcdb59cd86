"""A vision transformer (Dosovitskiy et al., 2020, arXiv:2010.11929), averaged over its patches.

Averaging instead of a class token follows Beyer et al., 2022 (arXiv:2205.01580): simpler, and as accurate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from trainer.models import checks, ports
from trainer.models.checks import require


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    patch: int | None = None,
    width: int = 64,
    layers: int = 4,
    heads: int = 4,
    mlp_width: int | None = None,
    dropout: float = 0.0,
) -> keras.Model:
    """Return the transformer over square patches of `patch` pixels a side.

    By default `patch` is near the square root of the image's shorter side: 2 for 8x8, 4 for 32x32, 14 for 224x224.
    `mlp_width` is 4 times `width` unless given. `dropout` follows the positions, the attention and both dense layers
    of each block. Raises BuildError for data other than one image (height, width, channels) and one output, and for
    patches that do not tile the image.
    """
    problems = [
        *checks.at_least(1, patch=patch, width=width, layers=layers, heads=heads, mlp_width=mlp_width),
        *checks.heads_divide(width=width, heads=heads),
        *checks.rates(dropout=dropout),
    ]
    port = ports.single("vit", inputs, outputs, image=True, problems=problems)
    side = _patch_side(port.shape, wanted=patch)
    images = ports.source(port.name, port.shape)
    x = _embedded(images, side=side, width=width)
    x = _dropped(x, dropout, name="positions_dropout")
    for number in range(1, layers + 1):
        x = _attention(x, name=f"block{number}", heads=heads, dropout=dropout)
        x = _mlp(x, name=f"block{number}", hidden=mlp_width or 4 * width, dropout=dropout)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="final_norm")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return ports.assemble("vit", images, ports.logits(x, label=port.label, units=port.units))


@keras.saving.register_keras_serializable(package="nameplate")
class LearnedPositions(keras.layers.Layer):
    """Adds a learned vector to each position of a sequence (batch, positions, width)."""

    def __init__(self, *, stddev: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stddev = stddev  # of the initial vectors

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the vectors, (positions, width)."""
        self.embedding = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.TruncatedNormal(stddev=self.stddev),
            name="embedding",
        )

    def call(self, inputs: Any) -> Any:
        """Return the sequence with each position's vector added."""
        return inputs + keras.ops.cast(self.embedding, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "stddev": self.stddev}


def _patch_side(shape: tuple[int, ...], *, wanted: int | None) -> int:
    """Return the side of a patch in pixels; BuildError if `wanted` does not tile the image."""
    height, width = shape[:2]
    common = math.gcd(height, width)
    fitting = [side for side in range(1, common + 1) if common % side == 0]
    if wanted is None:
        return min(fitting, key=lambda side: abs(side - math.sqrt(min(height, width))))
    listed = ", ".join(str(side) for side in fitting)
    problem = f"patch: {wanted} does not tile an image of {height} x {width} pixels; these do: {listed}"
    require("vit", [] if wanted in fitting else [problem])
    return wanted


def _embedded(images: Any, *, side: int, width: int) -> Any:
    """Return (batch, patches, width)."""
    x = keras.layers.Conv2D(width, side, strides=side, padding="valid", name="patch_embedding")(images)
    x = keras.layers.Reshape((-1, width), name="patches")(x)
    return LearnedPositions(name="positions")(x)


def _attention(x: Any, *, name: str, heads: int, dropout: float) -> Any:
    normed = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    # The attention's own dropout would be a layer that Keras names; this one follows it, with our name.
    attended = keras.layers.MultiHeadAttention(heads, x.shape[-1] // heads, name=f"{name}_attention")(normed, normed)
    attended = _dropped(attended, dropout, name=f"{name}_attention_dropout")
    return keras.layers.Add(name=f"{name}_add1")([x, attended])


def _mlp(x: Any, *, name: str, hidden: int, dropout: float) -> Any:
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    y = keras.layers.Dense(hidden, activation="gelu", name=f"{name}_dense1")(y)
    y = _dropped(y, dropout, name=f"{name}_dense1_dropout")
    y = keras.layers.Dense(x.shape[-1], name=f"{name}_dense2")(y)
    y = _dropped(y, dropout, name=f"{name}_dense2_dropout")
    return keras.layers.Add(name=f"{name}_add2")([x, y])


def _dropped(x: Any, rate: float, *, name: str) -> Any:
    return keras.layers.Dropout(rate, name=name)(x) if rate else x
