"""Proof of an edit: the result is saved, loaded, and compared in names, weights and outputs on random input."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from models import keras_private
from models.saving import round_trip
from models.surgery.edits import SurgeryError
from models.surgery.report import Line
from models.tree import seeds

_PLAIN = (bool, int, float, str, bytes, tuple, list, dict, type(None))
_SIDES = (8, 32, 96, 224)  # tried in turn for dimensions that an input leaves open; large enough for most strides


def verify_edit(original: Any, edited: Any, untouched: Sequence[int]) -> Line:
    """Return what was proved.

    Args:
        original: the model before.
        edited: the model after.
        untouched: places of the flat outputs that must equal the original's.

    Raises:
        SavingError, NamingError: when the edited model cannot be saved, or comes back with other names or weights.
        SurgeryError: when it comes back with other outputs, or an output that no edit reaches has changed.
    """
    loaded = round_trip(edited)
    for ours, theirs in zip(seeds(edited).values(), seeds(loaded).values(), strict=True):
        theirs.state.assign(ours.state.value)  # a Keras file has none
    if not edited.built or not getattr(edited, "inputs", None):
        return Line(
            str(edited.name), "verified", "names and weights after saving and loading; not built, so no outputs"
        )
    values, outputs = run(edited)
    problems = differences(outputs, outputs_of(loaded, values), names=_output_names(edited), what="after loading")
    if untouched:
        before = outputs_of(original, values)
        places = list(untouched)
        problems += differences(
            [before[each] for each in places],
            [outputs[each] for each in places],
            names=[_output_names(edited)[each] for each in places],
            what="though no edit reaches it",
        )
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise SurgeryError(f"the edited {edited.name!r} does not compute what it should:\n{lines}")
    told = f"names, weights and {len(outputs)} outputs after saving and loading; {len(untouched)} outputs as before"
    return Line(str(edited.name), "verified", told)


def verify_newcomers(pairs: Sequence[tuple[Any, Any]], model: Any) -> None:
    """Compare layers that were given with what stands for them in the model, made from their configurations.

    One that is built is run beside the other; of one that is not, the arguments of its class that it keeps as plain
    attributes are compared. Left out is what is called several times or cannot be run by itself.

    Raises:
        SurgeryError: with each layer whose configuration leaves out what it computes with.
    """
    problems = []
    for given, made in pairs:
        with keras_private.undisturbed():
            lost = _lost(given) if not given.built else ["what it computes"] * _computes_otherwise(given, made)
        if lost:
            kind = type(given).__name__
            problems.append(f"{made.name}: a {kind}, whose get_config does not give back {', '.join(lost)}")
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise SurgeryError(f"the edited {model.name!r} does not compute what the given layers do:\n{lines}")


def _lost(given: Any) -> list[str]:
    """Return the arguments that a layer has otherwise after a round trip through its configuration."""
    try:
        fresh = type(given).from_config(given.get_config())
    except Exception:  # whatever the class of a user raises; it was made some way all the same
        return []
    held, again = vars(given), vars(fresh)
    return [
        key
        for key in inspect.signature(type(given).__init__).parameters
        if key != "name" and key in held and isinstance(held[key], _PLAIN) and held[key] != again.get(key)
    ]


def _computes_otherwise(given: Any, made: Any) -> bool:
    """Say whether a built layer and the one in its place make different things of the same random input."""
    try:
        specs = tree.flatten(made.input)
        values = [_drawn(each, _SIDES[0], np.random.default_rng(place)) for place, each in enumerate(specs)]
        with keras.StatelessScope(initialize_variables=False):
            both = [tree.flatten(each(values[0] if len(values) == 1 else values)) for each in (given, made)]
            theirs, ours = ([_array(each) for each in results] for results in both)
    except Exception:  # as said, and the whole model is still compared after loading
        return False
    return bool(differences(theirs, ours, names=[""] * len(ours), what=""))


def equal_outputs(one: Any, other: Any) -> list[str]:
    """Return how the outputs of two models of the same inputs differ on random input; empty when they do not."""
    values, outputs = run(one)
    return differences(outputs, outputs_of(other, values), names=_output_names(one), what="in the other")


def run(model: Any) -> tuple[list[Any], list[Any]]:
    """Return random inputs that a model takes, flat, and its outputs."""
    failure: Exception | None = None
    for values in _examples(model):
        try:
            return values, outputs_of(model, values)
        except Exception as error:  # too small for its strides, or for the lengths that it wants
            failure = error
    reason = " ".join(str(failure).split())
    raise SurgeryError(f"the edited {model.name!r} cannot be run on random input: {reason:.300}")


def _examples(model: Any) -> Iterator[list[Any]]:
    is_open = any(side is None for tensor in model.inputs for side in tensor.shape[1:])
    for side in _SIDES if is_open else _SIDES[:1]:
        draw = np.random.default_rng(0)
        yield [_drawn(tensor, side, draw) for tensor in model.inputs]


def _drawn(tensor: Any, side: int, draw: np.random.Generator) -> Any:
    shape = [2 if tensor.shape[0] is None else tensor.shape[0], *(each or side for each in tensor.shape[1:])]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return keras.ops.convert_to_tensor(np.full(shape, "a").tolist(), dtype="string")
    if dtype == "bool":
        return keras.ops.convert_to_tensor(draw.integers(0, 2, shape).astype(bool))
    if "int" in dtype:  # an index that every table has
        return keras.ops.cast(draw.integers(0, 2, shape), dtype)
    return keras.ops.cast(draw.normal(size=shape), dtype)


def outputs_of(model: Any, values: Sequence[Any]) -> list[Any]:
    """Return flat outputs as arrays; no variable and no seed changes."""
    with keras.StatelessScope(initialize_variables=False):
        return [_array(each) for each in tree.flatten(model(packed(model, values)))]


def packed(model: Any, tensors: Sequence[Any]) -> Any:
    """Return flat tensors in the structure in which a model takes them."""
    if isinstance(model, keras.Sequential) or keras_private.inputs_struct(model) is None:
        return tensors[0]
    return tree.pack_sequence_as(keras_private.inputs_struct(model), list(tensors))


def _array(tensor: Any) -> np.ndarray:
    if keras.backend.standardize_dtype(tensor.dtype) == "string":
        return np.asarray(tensor)
    if keras.ops.is_tensor(tensor) and getattr(tensor, "sparse", False):
        tensor = keras.ops.convert_to_tensor(tensor, sparse=False)
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def differences(one: Sequence[Any], other: Sequence[Any], *, names: Sequence[str], what: str) -> list[str]:
    """Return which outputs differ, in words."""
    problems = []
    for name, left, right in zip(names, one, other, strict=True):
        if left.shape != right.shape:
            problems.append(f"output {name!r} is {right.shape} {what}, not {left.shape}")
        elif not _close(left, right):
            problems.append(f"output {name!r} has other values {what}")
    return problems


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Compare to the root of the dtype's precision: a device may add up in another order."""
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    coarse = float(np.finfo(one.dtype).eps) ** 0.5
    size = float(np.max(np.abs(one[np.isfinite(one)]), initial=0.0))
    return bool(np.allclose(one, other, rtol=coarse, atol=coarse * size, equal_nan=True))


def _output_names(model: Any) -> list[str]:
    return [str(keras_private.source(tensor).name) for tensor in model.outputs]
