"""Joined models with one answer: ensembles over the same inputs, and pairs through one tower."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

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


def ensemble(
    members: Mapping[str, keras.Model], *, combine: str = "average", name: str = "ensemble", verify: bool = True
) -> keras.Model:
    """Return one uncompiled model that gives what its members agree on; each is a container of its own name.

    Proved: the members in the joined model, as `join` proves them. Not proved: that the ensemble itself can be
    saved.

    Args:
        members: `{name: model}` with the same inputs and one output each, copied.
        combine: `average` of the outputs; `vote`, the share of members that put a class first; or `concatenate`.
        name: of the new model.
        verify: as for `join`.

    Raises:
        JoiningError: for members whose inputs or outputs are not the same.
    """
    if combine not in COMBINE:
        raise JoiningError(
            f"no combine={combine!r}; there are {', '.join(COMBINE)}.{names.did_you_mean(combine, COMBINE)}"
        )
    joined = join(members, inputs="same", name=f"{name}_members", verify=verify)
    _refuse_unequal(members, joined, combine)
    answers = list(joined.output.values())
    with keras_private.undisturbed():
        return keras.Model(joined.input, _combined(answers, combine, _taken(joined)), name=name)


def siamese(
    tower: keras.Model,
    *,
    sides: tuple[str, str] = ("left", "right"),
    compare: str | None = "difference",
    shared: bool = True,
    name: str = "siamese",
    verify: bool = True,
) -> keras.Model:
    """Return one uncompiled model that shows two inputs to a tower and compares what comes out.

    Proved: the towers in the joined model, as `join` proves them. Not proved: that the pair itself can be saved.

    Args:
        tower: a model with one output, copied.
        sides: names of the two; inputs are `left_image` and `right_image`.
        compare: `difference`, `product`, `concatenate`, `cosine`; None gives both outputs by side.
        shared: one tower, called twice under the first side's name, or two copies with weights of their own.
        name: of the new model.
        verify: as for `join`.

    Raises:
        JoiningError: for a tower with several outputs where they are to be compared.
    """
    if compare is not None and compare not in COMPARE:
        raise JoiningError(
            f"no compare={compare!r}; there are {', '.join(COMPARE)}.{names.did_you_mean(compare, COMPARE)}"
        )
    if isinstance(sides, str) or len(set(sides)) != 2 or len(sides) != 2:
        raise JoiningError(f"sides={sides!r}: two different names, e.g. ('left', 'right')")
    joined = join(dict.fromkeys(sides, tower), shared=shared, name=name, verify=verify)
    if compare is None:
        return joined
    answers = list(joined.output.values())
    if len(answers) != 2:
        raise JoiningError(
            f"{tower.name!r} gives {len(answers) // 2} outputs; only one can be compared, or compare=None"
        )
    options: dict[str, Any] = {"axes": -1, "normalize": True} if compare == "cosine" else {}
    with keras_private.undisturbed():
        own = _free(f"pair_{compare}", _taken(joined))
        return keras.Model(joined.input, COMPARE[compare](name=own, **options)(answers), name=name)


def _combined(answers: list[Any], combine: str, taken: set[str]) -> Any:
    if len(answers) == 1:
        return answers[0]
    if combine == "concatenate":
        return layers.Concatenate(name=_free("members_side_by_side", taken))(answers)
    if combine == "average":
        return layers.Average(name=_free("members_average", taken))(answers)
    classes = answers[0].shape[-1]
    ballots = [keras.ops.one_hot(keras.ops.argmax(each, axis=-1), classes) for each in answers]
    return layers.Average(name=_free("members_vote", taken))(ballots)


def _taken(joined: Any) -> set[str]:
    return {str(layer.name).casefold() for layer in joined.layers}


def _free(name: str, taken: set[str]) -> str:
    """Return the name, numbered where a member or an input has it."""
    tries = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    found = next(each for each in tries if each.casefold() not in taken)
    taken.add(found.casefold())
    return found


def _refuse_unequal(members: Mapping[str, Any], joined: Any, combine: str) -> None:
    several = [key for key in members if key not in joined.output]
    if several:
        raise JoiningError(f"each member gives one output; several are given by {', '.join(map(repr, several))}")
    shapes = {key: tuple(tensor.shape) for key, tensor in joined.output.items()}
    alike = {shape[:-1] if combine == "concatenate" else shape for shape in shapes.values()}
    if len(alike) > 1:
        told = "\n".join(f"  {key}: {shape}" for key, shape in shapes.items())
        raise JoiningError(f"to {combine}, the members' outputs must be the same:\n{told}")
    ballots = [key for key in members if any(names.is_automatic(key, kind) for kind in ("Argmax", "OneHot"))]
    if combine == "vote" and ballots:
        told = ", ".join(map(repr, ballots))
        raise JoiningError(f"a vote has operators of Keras' that are called {told}; call the member otherwise")
    if combine == "vote" and (next(iter(shapes.values()))[-1] or 0) < 2:
        raise JoiningError("a vote is between classes, two at least along the last axis; average instead")
