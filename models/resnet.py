"""Residual networks of 18, 34 and 50 layers (He et al., 2015, arXiv:1512.03385).

Laid out like torchvision's `ResNet`, version 1.5: the stride of a bottleneck is in its 3x3 convolution. Padding is
explicit and on both sides, since Keras' "same" pads a strided convolution on one side only. So weights map name by
name: `layer1.0.conv1` is `stage1_block1_conv1`, `downsample` is `projection`, `fc` is the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from trainer.models import checks, ports
from trainer.models.checks import Stem


@dataclass(frozen=True)
class _Plan:
    blocks: tuple[int, ...]  # of each stage
    bottleneck: bool


_PLANS = {
    18: _Plan((2, 2, 2, 2), bottleneck=False),
    34: _Plan((3, 4, 6, 3), bottleneck=False),
    50: _Plan((3, 4, 6, 3), bottleneck=True),
}
_SMALL = 64  # pixels; for smaller images a large stem would leave too little resolution
_EXPANSION = 4  # a bottleneck's output has this many times its inner channels


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    depth: int = 18,
    stem: str = Stem.auto,
    width: int = 64,
) -> keras.Model:
    """Return the residual network of `depth` 18, 34 or 50 for images of any size.

    `width` is the number of inner channels of the first stage, 64 in the paper. Raises BuildError for data other than
    one image (height, width, channels) and one output.
    """
    problems = [
        *checks.numbers(checks.RESNET_DEPTHS, depth=depth),
        *checks.choices(Stem, stem=stem),
        *checks.at_least(1, width=width),
    ]
    port = ports.single("resnet", inputs, outputs, image=True, problems=problems)
    plan = _PLANS[depth]
    block_of = _bottleneck if plan.bottleneck else _basic
    images = ports.source(port.name, port.shape)
    x = _stem(images, kind=stem, filters=width)
    for stage, count in enumerate(plan.blocks, start=1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = block_of(x, name=f"stage{stage}_block{block}", filters=width * 2 ** (stage - 1), stride=stride)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return ports.assemble("resnet", images, ports.logits(x, label=port.label, units=port.units))


def _stem(images: Any, *, kind: str, filters: int) -> Any:
    large = kind == Stem.large or (kind == Stem.auto and min(images.shape[1:3]) >= _SMALL)
    x = _conv(images, "stem_conv", filters, kernel=7 if large else 3, stride=2 if large else 1)
    x = _relu(_bn(x, "stem_bn"), "stem_relu")
    if not large:
        return x
    # Padding with zeros is fine for a maximum after a ReLU, where nothing is negative.
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def _basic(x: Any, *, name: str, filters: int, stride: int) -> Any:
    """Return two 3x3 convolutions plus the shortcut."""
    shortcut = _shortcut(x, name=name, filters=filters, stride=stride)
    x = _conv(x, f"{name}_conv1", filters, kernel=3, stride=stride)
    x = _relu(_bn(x, f"{name}_bn1"), f"{name}_relu1")
    x = _bn(_conv(x, f"{name}_conv2", filters, kernel=3), f"{name}_bn2")
    return _relu(keras.layers.Add(name=f"{name}_add")([x, shortcut]), f"{name}_relu2")


def _bottleneck(x: Any, *, name: str, filters: int, stride: int) -> Any:
    """Return 1x1, 3x3 and 1x1 convolutions plus the shortcut."""
    shortcut = _shortcut(x, name=name, filters=filters * _EXPANSION, stride=stride)
    x = _relu(_bn(_conv(x, f"{name}_conv1", filters), f"{name}_bn1"), f"{name}_relu1")
    x = _conv(x, f"{name}_conv2", filters, kernel=3, stride=stride)
    x = _relu(_bn(x, f"{name}_bn2"), f"{name}_relu2")
    x = _bn(_conv(x, f"{name}_conv3", filters * _EXPANSION), f"{name}_bn3")
    return _relu(keras.layers.Add(name=f"{name}_add")([x, shortcut]), f"{name}_relu3")


def _shortcut(x: Any, *, name: str, filters: int, stride: int) -> Any:
    if stride == 1 and x.shape[-1] == filters:
        return x
    x = _conv(x, f"{name}_projection_conv", filters, stride=stride)
    return _bn(x, f"{name}_projection_bn")


def _conv(x: Any, name: str, filters: int, *, kernel: int = 1, stride: int = 1) -> Any:
    padded = kernel > 1 and stride > 1
    if padded:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if padded else "same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def _bn(x: Any, name: str) -> Any:
    # PyTorch's momentum of 0.1 is the weight of the new value, Keras' 0.9 that of the old.
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU(name=name)(x)
