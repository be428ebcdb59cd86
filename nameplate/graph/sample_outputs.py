"""Random inputs for a model, its outputs for them, and how the outputs of two models differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from nameplate.errors import NameplateError, cause
from nameplate.graph import keras_private
from nameplate.graph.tree import output_names

_SIDES = (8, 32, 96, 224)  # sizes to try for the open dimensions of an input; the last suits most strides


class OutputsError(NameplateError):
    """A model that does not run on any of the inputs made for it."""


def specs_of(model: Any) -> list[Any]:
    """Return the specs of a model's inputs, flat; empty if the model is not built."""
    if getattr(model, "inputs", None):
        return list(model.inputs)
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    is_one = isinstance(shape, list | tuple) and all(isinstance(size, int | None) for size in shape)
    return [keras.KerasTensor(tuple(shape))] if shape and is_one else []


def run(model: Any) -> tuple[list[Any], list[Any]]:
    """Return random inputs that a model accepts, flat, and its outputs for them.

    Raises:
        OutputsError: if it accepts none of those that are tried.
    """
    failure: Exception | None = None
    for values in _examples(model):
        try:
            return values, outputs_of(model, values)
        except Exception as error:  # e.g. too small for its strides
            failure = error
    reason = cause(failure) if failure else "it is not built"
    raise OutputsError(f"{model.name!r} cannot be run on random input: {reason}")


def outputs_of(model: Any, values: Sequence[Any], *, scope: keras.StatelessScope | None = None) -> list[Any]:
    """Return flat outputs as arrays; variables and seeds change only inside the scope."""
    with scope or keras.StatelessScope(initialize_variables=False):
        return [array(output) for output in tree.flatten(model(packed(model, values)))]


def packed(model: Any, tensors: Sequence[Any]) -> Any:
    """Return flat tensors in the structure that a model takes."""
    if isinstance(model, keras.Sequential) or keras_private.inputs_struct(model) is None:
        return tensors[0]
    return tree.pack_sequence_as(keras_private.inputs_struct(model), list(tensors))


def unlike(original: Any, copy: Any, *, what: str) -> list[str]:
    """Return how the outputs of a copy differ from the original's; empty also if no inputs can be made.

    An original whose outputs differ between two calls (random numbers of Python's) cannot be compared.
    """
    try:
        values, before = run(original)
    except OutputsError:
        return []
    try:
        after = outputs_of(copy, values)
    except Exception as error:  # its code may raise anything; the original ran
        return [f"it cannot be called {what}: {type(error).__name__}: {cause(error)}"]
    names = output_names(original)
    if len(names) != len(before):
        names = [str(index) for index in range(len(before))]
    if len(before) != len(after):
        return [f"{len(before)} outputs are {len(after)} {what}"]
    problems = differences(before, after, names=names, what=what)
    if problems and differences(before, outputs_of(original, values), names=names, what=""):
        return []
    return problems


def differences(one: Sequence[Any], other: Sequence[Any], *, names: Sequence[str], what: str) -> list[str]:
    """Return a line for each output that differs."""
    problems = []
    for name, left, right in zip(names, one, other, strict=True):
        if left.shape != right.shape:
            problems.append(f"output {name!r} is {right.shape} {what}, not {left.shape}")
        elif not _close(left, right):
            problems.append(f"output {name!r} has other values {what}")
    return problems


def drawn(tensor: Any, draw: np.random.Generator, *, side: int = _SIDES[0]) -> Any:
    """Return a random batch of two examples for a spec; open dimensions have size `side`."""
    shape = [2 if tensor.shape[0] is None else tensor.shape[0], *(size or side for size in tensor.shape[1:])]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return keras.ops.convert_to_tensor(np.full(shape, "a").tolist(), dtype="string")
    if dtype == "bool":
        return keras.ops.convert_to_tensor(draw.integers(0, 2, shape).astype(bool))
    if "int" in dtype:  # indices that every table has
        return keras.ops.cast(draw.integers(0, 2, shape), dtype)
    return keras.ops.cast(draw.normal(size=shape), dtype)


def array(tensor: Any) -> np.ndarray:
    """Return a tensor of any dtype as an array; a sparse one becomes dense."""
    if keras.backend.standardize_dtype(tensor.dtype) == "string":
        return np.asarray(tensor)
    if keras.ops.is_tensor(tensor) and getattr(tensor, "sparse", False):
        tensor = keras.ops.convert_to_tensor(tensor, sparse=False)
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _examples(model: Any) -> Iterator[list[Any]]:
    specs = specs_of(model)
    is_open = any(size is None for tensor in specs for size in tensor.shape[1:])
    sides = _SIDES if is_open else _SIDES[:1]
    readings = [specs] if getattr(model, "inputs", None) else [specs, [_as_index(spec) for spec in specs]]
    for reading, side in itertools.product(readings if specs else [], sides):
        draw = np.random.default_rng(0)
        yield [drawn(tensor, draw, side=side) for tensor in reading]


def _as_index(spec: Any) -> Any:
    """Return the spec with integers: the shape that a class was built with says nothing of the dtype."""
    return keras.KerasTensor(tuple(spec.shape), dtype="int32")


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Compare to the square root of the dtype's precision, since a device may sum in another order."""
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    coarse = float(np.finfo(one.dtype).eps) ** 0.5
    size = float(np.max(np.abs(one[np.isfinite(one)]), initial=0.0))
    return bool(np.allclose(one, other, rtol=coarse, atol=coarse * size, equal_nan=True))
