"""Joined models with one output: ensembles over the same inputs, and siamese pairs through one tower."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from nameplate.arguments import checked
from nameplate.graph import keras_private
from nameplate.naming import names
from nameplate.surgery.join import JoiningError, join

COMBINE = ("average", "vote", "concatenate")
COMPARE: dict[str, Any] = {
    "difference": layers.Subtract,
    "product": layers.Multiply,
    "concatenate": layers.Concatenate,
    "cosine": layers.Dot,
}


@checked
def ensemble(
    members: Mapping[str, keras.Model], *, combine: str = "average", name: str = "ensemble", verify: bool = True
) -> keras.Model:
    """Return one uncompiled model that combines the outputs of its members, each a container with its name.

    Proved: the members in the joined model, as `join` proves them. Not proved: that the ensemble itself can be
    saved.

    Args:
        members: `{name: model}` with the same inputs and one output each; they are copied.
        combine: `average` of the outputs; `vote`, the share of members that rank a class first; or `concatenate`.
        name: of the new model.
        verify: as for `join`.

    Raises:
        JoiningError: for members whose inputs or outputs differ in shape.
    """
    if combine not in COMBINE:
        raise JoiningError(
            f"no combine={combine!r}; there are {', '.join(COMBINE)}.{names.did_you_mean(combine, COMBINE)}"
        )
    joined = join(members, inputs="same", name=f"{name}_members", verify=verify)
    _refuse_unequal(members, joined, combine)
    outputs = list(joined.output.values())
    with keras_private.undisturbed():
        return keras.Model(joined.input, _combined(outputs, combine, _taken(joined)), name=name)


@checked
def siamese(
    tower: keras.Model,
    *,
    sides: tuple[str, str] = ("left", "right"),
    compare: str | None = "difference",
    shared: bool = True,
    name: str = "siamese",
    verify: bool = True,
) -> keras.Model:
    """Return one uncompiled model that applies a tower to two inputs and compares the outputs.

    Proved: the towers in the joined model, as `join` proves them. Not proved: that the pair itself can be saved.

    Args:
        tower: a model with one output; it is copied.
        sides: names of the two sides, which prefix the inputs: `left_image`, `right_image`.
        compare: `difference`, `product`, `concatenate`, `cosine`; None returns both outputs by side.
        shared: whether one tower, under the first side's name, is called twice; else there are two copies.
        name: of the new model.
        verify: as for `join`.

    Raises:
        JoiningError: for a tower with several outputs, if they are to be compared.
    """
    if compare is not None and compare not in COMPARE:
        raise JoiningError(
            f"no compare={compare!r}; there are {', '.join(COMPARE)}.{names.did_you_mean(compare, COMPARE)}"
        )
    if isinstance(sides, str) or len(set(sides)) != 2 or len(sides) != 2:
        raise JoiningError(f"sides={sides!r} are not two different names, e.g. ('left', 'right')")
    joined = join(dict.fromkeys(sides, tower), shared=shared, name=name, verify=verify)
    if compare is None:
        return joined
    outputs = list(joined.output.values())
    if len(outputs) != 2:
        raise JoiningError(
            f"{tower.name!r} has {len(outputs) // 2} outputs; only one can be compared, or pass compare=None"
        )
    options: dict[str, Any] = {"axes": -1, "normalize": True} if compare == "cosine" else {}
    with keras_private.undisturbed():
        own = _free(f"pair_{compare}", _taken(joined))
        return keras.Model(joined.input, COMPARE[compare](name=own, **options)(outputs), name=name)


def _combined(outputs: list[Any], combine: str, taken: set[str]) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    if combine == "concatenate":
        return layers.Concatenate(name=_free("members_side_by_side", taken))(outputs)
    if combine == "average":
        return layers.Average(name=_free("members_average", taken))(outputs)
    classes = outputs[0].shape[-1]
    votes = [keras.ops.one_hot(keras.ops.argmax(output, axis=-1), classes) for output in outputs]
    return layers.Average(name=_free("members_vote", taken))(votes)


def _taken(joined: Any) -> set[str]:
    return {str(layer.name).casefold() for layer in joined.layers}


def _free(name: str, taken: set[str]) -> str:
    """Return the name, numbered if a member or an input has it."""
    tries = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    free = next(own for own in tries if own.casefold() not in taken)
    taken.add(free.casefold())
    return free


def _refuse_unequal(members: Mapping[str, Any], joined: Any, combine: str) -> None:
    several = [key for key in members if key not in joined.output]
    if several:
        raise JoiningError(f"each member must have one output; these have several: {', '.join(map(repr, several))}")
    shapes = {key: tuple(tensor.shape) for key, tensor in joined.output.items()}
    alike = {shape[:-1] if combine == "concatenate" else shape for shape in shapes.values()}
    if len(alike) > 1:
        lines = "\n".join(f"  {key}: {shape}" for key, shape in shapes.items())
        raise JoiningError(f"to {combine}, the members' outputs must have the same shape:\n{lines}")
    clashing = [key for key in members if any(names.is_automatic(key, kind) for kind in ("Argmax", "OneHot"))]
    if combine == "vote" and clashing:
        listed = ", ".join(map(repr, clashing))
        raise JoiningError(f"a vote has operators of Keras' called {listed}; rename the member")
    if combine == "vote" and (next(iter(shapes.values()))[-1] or 0) < 2:
        raise JoiningError("a vote needs at least two classes along the last axis; average instead")
