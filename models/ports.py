"""The named inputs and logits of an architecture, and what it refuses about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from trainer.models.checks import BuildError, require

Shape = tuple[int, ...]  # of one example, without the batch


@dataclass(frozen=True)
class Ports:
    """The only input and the only output of an architecture."""

    name: str  # of the input
    shape: Shape
    label: str  # of the output
    units: int  # logits of the output


def single(
    architecture: str,
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, int],
    *,
    image: bool = False,
    problems: Iterable[str] = (),
) -> Ports:
    """Return the only input and output; BuildError, with `problems`, if there are more, or with `image` no image."""
    own = [*_one("inputs", inputs), *_one("outputs", outputs), *_sizes(inputs, outputs)]
    if image:
        own += _images(inputs)
    require(architecture, [*own, *problems])
    (name, shape), (label, units) = next(iter(inputs.items())), next(iter(outputs.items()))
    return Ports(name, tuple(shape), label, units)


def twins(
    architecture: str,
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, int],
    *,
    problems: Iterable[str] = (),
) -> Shape:
    """Return the common shape of exactly two inputs; BuildError, with `problems`, if they have none."""
    own = _sizes(inputs, outputs)
    if len(inputs) != 2:
        own.append(
            f"inputs: takes exactly two of one shape, the data has {_listed(inputs)}; "
            "choose data with two, e.g. data=digit_pairs, or a model with one input, e.g. model=convnet"
        )
    elif len(set(inputs.values())) > 1:
        shapes = " and ".join(f"{name!r} {shape}" for name, shape in inputs.items())
        own.append(f"inputs: the shared tower needs one shape, the data has {shapes}")
    if not outputs:
        own.append("outputs: needs at least one, the data has none")
    require(architecture, [*own, *problems])
    return tuple(next(iter(inputs.values())))


def source(name: str, shape: Shape) -> Any:
    """Return a Keras input of examples of this shape, in float32 under every precision."""
    return keras.Input(shape, name=name, dtype="float32")


def logits(x: Any, *, label: str, units: int) -> Any:
    """Return `units` logits a row of `x`, from a layer named `label`, in float32 under every precision."""
    return keras.layers.Dense(units, dtype="float32", name=label)(x)


def assemble(architecture: str, inputs: Any, outputs: Any) -> keras.Model:
    """Return the functional model; BuildError if an input or output has the name of an inner layer."""
    try:
        return keras.Model(inputs, outputs, name=architecture)
    except ValueError as error:
        if "should be unique" not in str(error):
            raise
        raise BuildError(
            architecture,
            [
                f"names: {_twice(str(error))} is both an input or output of the data and a layer of the model; "
                "give the data's input or output another name"
            ],
        ) from error


def _one(kind: str, names: Mapping[str, Any]) -> list[str]:
    if len(names) == 1:
        return []
    advice = (
        "model=two_tower takes two inputs and gives several outputs; or choose data with one of each, e.g. data=digits"
    )
    return [f"{kind}: takes exactly one, the data has {_listed(names)}; {advice}"]


def _listed(names: Mapping[str, Any]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def _images(inputs: Mapping[str, Shape]) -> list[str]:
    return [
        f"inputs: {name!r} has the shape {shape}, but an image is (height, width, channels); model=mlp takes any shape"
        for name, shape in inputs.items()
        if len(shape) != 3
    ]


def _sizes(inputs: Mapping[str, Shape], outputs: Mapping[str, int]) -> list[str]:
    problems = [
        f"inputs: {name!r} has the shape {shape}, but every side must be at least 1"
        for name, shape in inputs.items()
        if any(side is None or side < 1 for side in shape)
    ]
    return problems + [
        f"outputs: {name!r} has {units} logits; at least 1" for name, units in outputs.items() if units < 1
    ]


def _twice(message: str) -> str:
    return message.split('"')[1] if message.count('"') >= 2 else "a name"
