"""The choices that architectures offer by name.

A member's name is its value, so that a configuration file, the command line and Python say the same word.
"""

from __future__ import annotations

import enum


class Activation(enum.StrEnum):
    """What a hidden layer applies to its sums."""

    relu = "relu"
    gelu = "gelu"
    silu = "silu"
    elu = "elu"
    selu = "selu"
    tanh = "tanh"
    leaky_relu = "leaky_relu"


class Norm(enum.StrEnum):
    """What normalizes a convolution's output."""

    batch = "batch"
    group = "group"  # groups of 8 channels or fewer, independent of the batch
    layer = "layer"  # all channels of one position
    none = "none"


class Stem(enum.StrEnum):
    """How a residual network begins."""

    auto = "auto"  # small for images under 64 pixels a side, else large
    small = "small"  # 3x3, the image's resolution is kept
    large = "large"  # 7x7 with stride 2, then pooling with stride 2
