"""What an array of a layer is for: by its name where that tells, else by shape and values. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_BY_NAME = {
    "kernel": ("kernel", "weight", "weights", "w"),
    "bias": ("bias", "b"),
    "gamma": ("gamma", "scale"),
    "beta": ("beta", "offset"),
    "moving_mean": ("moving_mean", "running_mean", "mean"),
    "moving_variance": ("moving_variance", "running_var", "variance"),
    "embeddings": ("embeddings", "embedding", "table"),
    "recurrent_kernel": ("recurrent_kernel",),
    "depthwise_kernel": ("depthwise_kernel",),
    "pointwise_kernel": ("pointwise_kernel",),
}
_KNOWN = {word: role for role, words in _BY_NAME.items() for word in words}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def role_of(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the role of each array of one layer, in order; `array_0` where nothing tells.

    Vectors of one length, four of them, are those of a normalization in Keras' order, if the last is no negative
    number; a vector beside one array of more axes is its bias.
    """
    given = [name.rpartition("/")[2] for name in arrays]
    if all(name in _KNOWN for name in given):
        return [_KNOWN[name] for name in given]
    shapes = [np.shape(value) for value in arrays.values()]
    values = list(arrays.values())
    if len(values) == 4 and all(len(shape) == 1 and shape == shapes[0] for shape in shapes):
        return list(_NORM) if np.min(values[3]) >= 0 else [f"array_{place}" for place in range(4)]
    if len(values) == 2 and len(shapes[0]) > 1 and shapes[1] == shapes[0][-1:]:
        return ["kernel", "bias"]
    if len(values) == 1 and len(shapes[0]) > 1:
        return ["kernel"]
    return [_KNOWN.get(name, f"array_{place}") for place, name in enumerate(given)]
