"""The variable names of Keras' own layers, for files that number the variables.

As in keras 3.15, in the order of saving; a test builds every layer and compares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nameplate.naming import names

# `name?option` is a variable that exists only where the layer has that option.
_KERNEL = ("kernel", "bias?use_bias")
_CELL = ("kernel", "recurrent_kernel", "bias?use_bias")
_SCALE = ("gamma?scale", "beta?center")
_SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias?use_bias")

_VARIABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["dense", "einsum_dense"], _KERNEL),
    **dict.fromkeys([f"conv{rank}d" for rank in (1, 2, 3)], _KERNEL),
    **dict.fromkeys([f"conv{rank}d_transpose" for rank in (1, 2, 3)], _KERNEL),
    **dict.fromkeys(["depthwise_conv1d", "depthwise_conv2d"], _KERNEL),
    **dict.fromkeys(["separable_conv1d", "separable_conv2d"], _SEPARABLE),
    **dict.fromkeys(["lstm_cell", "gru_cell", "simple_rnn_cell"], _CELL),
    **dict.fromkeys([f"conv_lstm_cell{rank}d" for rank in (1, 2, 3)], _CELL),
    "batch_normalization": (*_SCALE, "moving_mean", "moving_variance"),
    **dict.fromkeys(["layer_normalization", "group_normalization"], _SCALE),
    "rms_normalization": ("scale",),
    "embedding": ("embeddings",),
    "p_re_lu": ("alpha",),
    "additive_attention": ("scale",),
}
_PARTS = {  # (class, attribute) of Keras' own layers: class of the layer in that attribute
    ("multi_head_attention", "query"): "einsum_dense",
    ("multi_head_attention", "key"): "einsum_dense",
    ("multi_head_attention", "value"): "einsum_dense",
    ("multi_head_attention", "attention_output"): "einsum_dense",
    ("grouped_query_attention", "query"): "einsum_dense",
    ("grouped_query_attention", "key"): "einsum_dense",
    ("grouped_query_attention", "value"): "einsum_dense",
    ("grouped_query_attention", "attention_output"): "einsum_dense",
}


_BLOCKS = {name: (f"{name}_scale", f"{name}_zero", "g_idx") for name in ("kernel", "embeddings")}
_QUANTIZED_KERNEL: dict[int, tuple[str, ...]] = {
    2: ("kernel", "kernel_scale"),
    3: ("kernel", "bias", "kernel_scale"),
    4: ("kernel", *_BLOCKS["kernel"]),
    5: ("kernel", "bias", *_BLOCKS["kernel"]),
}
_QUANTIZED: dict[str, dict[int, tuple[str, ...]]] = {  # class: {count: names}, for 8 bits and for 4 bits in blocks
    **dict.fromkeys(["dense", "einsum_dense"], _QUANTIZED_KERNEL),
    "embedding": {2: ("embeddings", "embeddings_scale"), 4: ("embeddings", *_BLOCKS["embeddings"])},
}


def of_class(
    class_name: str, count: int, config: Mapping[str, Any] | None = None, *, first: str = ""
) -> tuple[str, ...] | None:
    """Return the names of a layer's `count` variables in the order of saving; None if unknown.

    Args:
        class_name: as in a configuration (`Conv2D`) or as Keras' word (`conv2d`).
        count: the number of variables in the file; the names are unknown unless it fits the class.
        config: the layer's own configuration, where the file has one.
        first: the dtype of the first variable; int8 or uint8 means that the layer is quantized.
    """
    if first in ("int8", "uint8"):
        return _QUANTIZED.get(names.snake(class_name), {}).get(count)
    declared = _VARIABLES.get(names.snake(class_name))
    if declared is None:
        return None
    options = [variable.partition("?") for variable in declared]
    expected = tuple(name for name, _, option in options if (config or {}).get(option, True))
    if len(expected) == count:
        return expected
    certain = tuple(name for name, _, option in options if not option)
    return certain if config is None and len(certain) == count else None


def has_no_parts(word: str) -> bool:
    """Return whether layers of this class (`dense`) are known to hold variables themselves and no other layers."""
    return word in _VARIABLES


def word(own: str, class_name: str, container_class: str) -> str:
    """Return the class of a layer, or where the file has none, a word derived from its container or its name."""
    if class_name != names.UNKNOWN_CLASS:
        return class_name
    if part := _PARTS.get((names.snake(container_class), own)):
        return part
    bare = re.sub(r"_[0-9]+$", "", own)
    return next((text for text in (own, bare) if text in names.KERAS_WORDS or text in _VARIABLES), class_name)
