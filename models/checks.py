"""Checks of an architecture's parameters, and the enumerations among them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean


class BuildError(NameplateError):
    """An architecture that does not fit the data or its parameters; the message lists every problem."""

    def __init__(self, architecture: str, problems: Iterable[str]) -> None:
        self.architecture = architecture
        self.problems = list(problems)
        super().__init__("\n  ".join([f"the model '{architecture}' cannot be built:", *self.problems]))


def require(architecture: str, problems: Iterable[str]) -> None:
    """Raise BuildError with all the problems, if there are any."""
    if problems := list(problems):
        raise BuildError(architecture, problems)


class Activation(enum.StrEnum):
    """The activation of a hidden layer."""

    relu = "relu"
    gelu = "gelu"
    silu = "silu"
    elu = "elu"
    selu = "selu"
    tanh = "tanh"
    leaky_relu = "leaky_relu"


class Norm(enum.StrEnum):
    """The normalization of a convolution's output."""

    batch = "batch"
    group = "group"  # groups of at most 8 channels, independent of the batch
    layer = "layer"  # all channels of a position
    none = "none"


class Stem(enum.StrEnum):
    """The first layers of a residual network."""

    auto = "auto"  # small for images under 64 pixels a side, else large
    small = "small"  # 3x3, keeps the resolution of the image
    large = "large"  # 7x7 with stride 2, then pooling with stride 2


RESNET_DEPTHS = (18, 34, 50)


def at_least(bound: int, **values: int | Sequence[int] | None) -> list[str]:
    """Return a problem for each value under its bound; every element of a sequence counts, None is allowed."""
    problems = []
    for name, value in values.items():
        numbers = value if isinstance(value, Sequence) else [] if value is None else [value]
        if any(number < bound for number in numbers):
            problems.append(f"{name}: {value} is too small; at least {bound}")
    return problems


def not_empty(**values: Sequence[int]) -> list[str]:
    """Return a problem for each empty sequence."""
    return [f"{name}: empty; give at least one number" for name, value in values.items() if not value]


def rates(**values: float) -> list[str]:
    """Return a problem for each dropout rate outside [0, 1)."""
    return [f"{name}: {value} is not in [0, 1)" for name, value in values.items() if not 0 <= value < 1]


def choices(kind: type[enum.StrEnum], **values: str) -> list[str]:
    """Return a problem for each value that is not a member of `kind`."""
    known = [member.value for member in kind]
    return [
        f"{name}: {value!r} is not one of {', '.join(known)}.{did_you_mean(value, known)}"
        for name, value in values.items()
        if value not in known
    ]


def numbers(known: Sequence[int], **values: int) -> list[str]:
    """Return a problem for each value that is not one of the known numbers."""
    listed = ", ".join(str(number) for number in known)
    return [f"{name}: {value} is not one of {listed}" for name, value in values.items() if value not in known]


def heads_divide(*, width: int, heads: int) -> list[str]:
    """Return the problem of a width that does not divide among the attention heads."""
    if width < 1 or heads < 1 or width % heads == 0:
        return []
    fitting = [number for number in range(1, width + 1) if width % number == 0]
    near = sorted(sorted(fitting, key=lambda number: abs(number - heads))[:3])
    return [f"heads: {heads} do not divide width {width}; e.g. {', '.join(str(number) for number in near)}"]
