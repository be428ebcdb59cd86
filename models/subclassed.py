"""An MLP-Mixer (Tolstikhin et al., 2021, arXiv:2105.01601), written as a subclass of `keras.Model`.

The example of a model that is not a graph of layers: its blocks are custom layers in a plain list, and all of them and
all layers inside them have names. It takes images, or a dictionary with images under the input's name, and returns a
dictionary with the logits under the output's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from trainer.models import checks, ports


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    patch: int | None = None,
    width: int = 64,
    layers: int = 4,
    token_hidden: int = 32,
    channel_hidden: int = 128,
    dropout: float = 0.0,
) -> keras.Model:
    """Return the mixer with its variables.

    `patch` is the side of the square patches in pixels, by default near the square root of the image's shorter side; an
    image that they do not tile is padded with zeros. `layers` blocks mix the patches with `token_hidden` units and
    the `width` channels with `channel_hidden`. Raises BuildError for data other than one image (height, width,
    channels) and one output.
    """
    problems = [
        *checks.at_least(1, patch=patch, width=width, layers=layers),
        *checks.at_least(1, token_hidden=token_hidden, channel_hidden=channel_hidden),
        *checks.rates(dropout=dropout),
    ]
    port = ports.single("subclassed", inputs, outputs, image=True, problems=problems)
    mixer = Mixer(
        input_name=port.name,
        image=port.shape,
        output_name=port.label,
        units=port.units,
        patch=patch or round(math.sqrt(min(port.shape[:2]))),
        width=width,
        blocks=layers,
        token_hidden=token_hidden,
        channel_hidden=channel_hidden,
        dropout=dropout,
        name="subclassed",
    )
    mixer.build({port.name: (None, *port.shape)})
    return mixer


@keras.saving.register_keras_serializable(package="nameplate")
class Mixer(keras.Model):
    """Patches, blocks that mix them, their average, and the logits."""

    def __init__(
        self,
        *,
        input_name: str,
        image: Sequence[int],
        output_name: str,
        units: int,
        patch: int,
        width: int,
        blocks: int,
        token_hidden: int,
        channel_hidden: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_name, self.image = input_name, tuple(image)  # (height, width, channels)
        self.output_name, self.units = output_name, units
        self.output_names = [output_name]  # keys of losses and metrics, as in a functional model
        self.patch, self.width = patch, width
        self.token_hidden, self.channel_hidden, self.dropout = token_hidden, channel_hidden, dropout
        self.patches = math.ceil(self.image[0] / patch) * math.ceil(self.image[1] / patch)
        policy = self.dtype_policy
        self.patch_embedding = keras.layers.Conv2D(
            width, patch, strides=patch, padding="same", dtype=policy, name="patch_embedding"
        )
        self.blocks = [
            MixerBlock(
                patches=self.patches,
                width=width,
                token_hidden=token_hidden,
                channel_hidden=channel_hidden,
                dropout=dropout,
                dtype=policy,
                name=f"block{number}",
            )
            for number in range(1, blocks + 1)
        ]
        self.final_norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="final_norm")
        self.head = keras.layers.Dense(units, dtype="float32", name=output_name)

    def build(self, input_shape: Any) -> None:
        """Create the variables; their shapes are known from the constructor."""
        self.patch_embedding.build((None, *self.image))
        for block in self.blocks:
            block.build((None, self.patches, self.width))
        self.final_norm.build((None, self.patches, self.width))
        self.head.build((None, self.width))

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Return the logits (batch, units) of images (batch, height, width, channels)."""
        x = inputs[self.input_name] if isinstance(inputs, Mapping) else inputs
        x = self.patch_embedding(x)
        x = keras.ops.reshape(x, (-1, self.patches, self.width))
        for block in self.blocks:
            x = block(x, training=training)
        x = keras.ops.mean(self.final_norm(x), axis=1)
        return {self.output_name: self.head(x)}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "input_name": self.input_name,
            "image": list(self.image),
            "output_name": self.output_name,
            "units": self.units,
            "patch": self.patch,
            "width": self.width,
            "blocks": len(self.blocks),
            "token_hidden": self.token_hidden,
            "channel_hidden": self.channel_hidden,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="nameplate")
class MixerBlock(keras.layers.Layer):
    """Mixes the patches of each channel, then the channels of each patch; keeps the shape (batch, patches, width)."""

    def __init__(
        self,
        *,
        patches: int,
        width: int,
        token_hidden: int,
        channel_hidden: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patches, self.width, self.dropout = patches, width, dropout
        self.token_hidden, self.channel_hidden = token_hidden, channel_hidden
        self.token_norm = self._norm("token_norm")
        self.token_dense1 = self._dense("token_dense1", token_hidden, activation="gelu")
        self.token_dense2 = self._dense("token_dense2", patches)
        self.token_dropout = self._dropout("token_dropout")
        self.channel_norm = self._norm("channel_norm")
        self.channel_dense1 = self._dense("channel_dense1", channel_hidden, activation="gelu")
        self.channel_dense2 = self._dense("channel_dense2", width)
        self.channel_dropout = self._dropout("channel_dropout")

    def build(self, input_shape: Any) -> None:
        """Create the variables; their shapes are known from the constructor."""
        sequence = (None, self.patches, self.width)
        self.token_norm.build(sequence)
        self.token_dense1.build((None, self.width, self.patches))
        self.token_dense2.build((None, self.width, self.token_hidden))
        self.channel_norm.build(sequence)
        self.channel_dense1.build(sequence)
        self.channel_dense2.build((None, self.patches, self.channel_hidden))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the mixed sequence."""
        y = keras.ops.swapaxes(self.token_norm(inputs), 1, 2)
        y = keras.ops.swapaxes(self.token_dense2(self.token_dense1(y)), 1, 2)
        x = inputs + self.token_dropout(y, training=training)
        y = self.channel_dense2(self.channel_dense1(self.channel_norm(x)))
        return x + self.channel_dropout(y, training=training)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "patches": self.patches,
            "width": self.width,
            "token_hidden": self.token_hidden,
            "channel_hidden": self.channel_hidden,
            "dropout": self.dropout,
        }

    def _norm(self, name: str) -> keras.layers.Layer:
        return keras.layers.LayerNormalization(epsilon=1e-6, dtype=self.dtype_policy, name=name)

    def _dense(self, name: str, units: int, *, activation: str | None = None) -> keras.layers.Layer:
        return keras.layers.Dense(units, activation=activation, dtype=self.dtype_policy, name=name)

    def _dropout(self, name: str) -> keras.layers.Layer:
        return keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name=name)
