"""Conversion of PyTorch's arrays to Keras' layouts and back, by the role of a layer: transposed, split or joined.

A role is what a layer does (`conv`, `batch_norm`), a leaf the name of a variable inside its layer. PyTorch keeps
channels first and a dense kernel as (out, in); Keras keeps channels last and (in, out). Read in torch 2.13 and keras
3.15; tests compare the outputs of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nameplate.naming import names

Shape = tuple[int, ...]
_Forward = Callable[[Sequence[np.ndarray], Sequence[Shape]], Sequence[np.ndarray]]
_Backward = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]

COUNTER = "num_batches_tracked"  # of a batch norm in PyTorch; Keras has nothing like it


def slashed(name: str) -> str:
    """Return a PyTorch name in the project's grammar: `layer1.0.conv1.weight` is `layer1/0/conv1/weight`."""
    return names.SEPARATOR.join(part for part in name.replace(".", names.SEPARATOR).split(names.SEPARATOR) if part)


@dataclass(frozen=True)
class Pair:
    """PyTorch leaves and the Keras leaves that hold the same numbers.

    `forward` takes PyTorch's arrays and the shapes that Keras needs, and returns Keras' arrays; `backward` returns
    PyTorch's. Both are exact, except for the two biases of an LSTM, of which Keras keeps the sum.
    """

    torch: tuple[str, ...]
    keras: tuple[str, ...]
    forward: _Forward
    backward: _Backward


@dataclass(frozen=True)
class Rows:
    """The order of a layer's features where they are the pixels of a flattened picture.

    An order maps each index in Keras to the index in PyTorch.
    """

    order: tuple[int, ...] | None  # of the inputs; None where it is PyTorch's or unknown
    description: str  # from which order to which, or why it is unknown
    columns: tuple[int, ...] | None = None  # of a dense layer's outputs, where these become a picture

    @property
    def known(self) -> bool:
        """Whether any order is known."""
        return self.order is not None or self.columns is not None

    def concerns(self, leaf: str) -> bool:
        """Return whether a variable has an axis for these features."""
        return leaf == "kernel" or (leaf == "bias" and self.columns is not None) or leaf in _PER_FEATURE


_PER_FEATURE = ("gamma", "beta", "moving_mean", "moving_variance", "scale")


def behind(pair: Pair, rows: Rows | None) -> Pair:
    """Return a pair whose Keras arrays have their features in the order of a flattened picture."""
    if rows is None or not rows.known or not rows.concerns(pair.keras[0]):
        return pair
    leaf = pair.keras[0]
    return Pair(
        pair.torch,
        pair.keras,
        lambda arrays, shapes: [_ordered(array, rows, leaf, back=False) for array in pair.forward(arrays, shapes)],
        lambda arrays: pair.backward([_ordered(array, rows, leaf, back=True) for array in arrays]),
    )


def _ordered(array: np.ndarray, rows: Rows, leaf: str, *, back: bool) -> np.ndarray:
    """Return an array with its features in Keras' order, or with `back` in PyTorch's."""
    first = rows.columns if leaf == "bias" else rows.order
    for axis, order in ((0, first), (1, rows.columns if leaf == "kernel" else None)):
        if order is not None:
            array = np.take(array, np.argsort(order) if back else np.asarray(order), axis=axis)
    return array


def role(class_name: str) -> str | None:
    """Return the role of a Keras class, None where PyTorch has no layout for it."""
    return _ROLES.get(names.snake(class_name))


def pairs(role: str) -> tuple[Pair, ...]:
    """Return the pairs of leaves of a role."""
    return _LAYOUTS[role]


def _unchanged(torch: str, keras: str) -> Pair:
    return Pair((torch,), (keras,), lambda arrays, _: arrays, lambda arrays: arrays)


def _permuted(torch: str, keras: str, *order: int) -> Pair:
    back = np.argsort(order)
    return Pair(
        (torch,),
        (keras,),
        lambda arrays, _: [arrays[0].transpose(order)],
        lambda arrays: [arrays[0].transpose(back)],
    )


def _conv(rank: int) -> tuple[Pair, ...]:
    """(out, in, *window) -> (*window, in, out)."""
    return _permuted("weight", "kernel", *range(2, 2 + rank), 1, 0), _BIAS


def _conv_transpose(rank: int) -> tuple[Pair, ...]:
    """(in, out, *window) -> (*window, out, in): the same permutation as for a convolution."""
    return _conv(rank)


def _depthwise(rank: int) -> tuple[Pair, ...]:
    """(channels * multiplier, 1, *window) -> (*window, channels, multiplier)."""

    def forward(arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        channels, multiplier = shapes[0][-2:]
        window = arrays[0].shape[2:]
        split = arrays[0].reshape(channels, multiplier, *window)
        return [split.transpose(*range(2, 2 + rank), 0, 1)]

    def backward(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        *window, channels, multiplier = arrays[0].shape
        moved = arrays[0].transpose(rank, rank + 1, *range(rank))
        return [moved.reshape(channels * multiplier, 1, *window)]

    return Pair(("weight",), ("kernel",), forward, backward), _BIAS


def _summed(arrays: Sequence[np.ndarray], _: Sequence[Shape]) -> list[np.ndarray]:
    return [arrays[0] + arrays[1]]


def _one_of_two(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [arrays[0], np.zeros_like(arrays[0])]


def _gru_gates(array: np.ndarray) -> np.ndarray:
    """Return an array (..., 3 * units) with its first two gates swapped: PyTorch has reset first, Keras has update."""
    reset, update, new = np.split(array, 3, axis=-1)
    return np.concatenate([update, reset, new], axis=-1)


def _gru_kernel(torch: str, keras: str) -> Pair:
    return Pair(
        (torch,),
        (keras,),
        lambda arrays, _: [_gru_gates(arrays[0].T)],
        lambda arrays: [_gru_gates(arrays[0]).T],
    )


def _heads_in(arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
    """(3 * heads * size, features) -> three of (features, heads, size); biases (3 * heads * size) likewise."""
    return [part.T.reshape(shape) for part, shape in zip(np.split(arrays[0], len(shapes)), shapes, strict=True)]


def _heads_back(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([array.reshape(*array.shape[:-2], -1).T for array in arrays])]


def _out_back(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [arrays[0].reshape(-1, arrays[0].shape[-1]).T]


_BIAS = _unchanged("bias", "bias")
_QKV = ("query", "key", "value")
_ATTENTION = (
    Pair(("in_proj_weight",), tuple(f"{part}/kernel" for part in _QKV), _heads_in, _heads_back),
    Pair(("in_proj_bias",), tuple(f"{part}/bias" for part in _QKV), _heads_in, _heads_back),
    *(Pair((f"{part[0]}_proj_weight",), (f"{part}/kernel",), _heads_in, _heads_back) for part in _QKV),
    Pair(("out_proj/weight",), ("attention_output/kernel",), _heads_in, _out_back),
    _unchanged("out_proj/bias", "attention_output/bias"),
)

_LAYOUTS: dict[str, tuple[Pair, ...]] = {
    "dense": (_permuted("weight", "kernel", 1, 0), _BIAS),
    **{f"conv{rank}d": _conv(rank) for rank in (1, 2, 3)},
    **{f"conv{rank}d_transpose": _conv_transpose(rank) for rank in (1, 2, 3)},
    **{f"depthwise{rank}d": _depthwise(rank) for rank in (1, 2)},
    "batch_norm": (
        _unchanged("weight", "gamma"),
        _unchanged("bias", "beta"),
        _unchanged("running_mean", "moving_mean"),
        _unchanged("running_var", "moving_variance"),
    ),
    "norm": (_unchanged("weight", "gamma"), _unchanged("bias", "beta")),
    "rms_norm": (_unchanged("weight", "scale"),),
    "embedding": (_unchanged("weight", "embeddings"),),
    "lstm": (
        _permuted("weight_ih_l0", "lstm_cell/kernel", 1, 0),
        _permuted("weight_hh_l0", "lstm_cell/recurrent_kernel", 1, 0),
        Pair(("bias_ih_l0", "bias_hh_l0"), ("lstm_cell/bias",), _summed, _one_of_two),
    ),
    "gru": (
        _gru_kernel("weight_ih_l0", "gru_cell/kernel"),
        _gru_kernel("weight_hh_l0", "gru_cell/recurrent_kernel"),
        Pair(
            ("bias_ih_l0", "bias_hh_l0"),
            ("gru_cell/bias",),
            lambda arrays, _: [_gru_gates(np.stack(arrays))],
            lambda arrays: list(_gru_gates(arrays[0])),
        ),
    ),
    "attention": _ATTENTION,
}

_ROLES: dict[str, str] = {
    "dense": "dense",
    **{f"conv{rank}d": f"conv{rank}d" for rank in (1, 2, 3)},
    **{f"conv{rank}d_transpose": f"conv{rank}d_transpose" for rank in (1, 2, 3)},
    **{f"depthwise_conv{rank}d": f"depthwise{rank}d" for rank in (1, 2)},
    "batch_normalization": "batch_norm",
    "layer_normalization": "norm",
    "group_normalization": "norm",
    "rms_normalization": "rms_norm",
    "embedding": "embedding",
    "lstm": "lstm",
    "gru": "gru",
    "multi_head_attention": "attention",
}
