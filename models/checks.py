"""Checks of an architecture's parameters, and the enumerations among them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nameplate.errors import NameplateError
from nameplate.naming import names
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


class Pooling(enum.StrEnum):
    """How feature maps become one vector."""

    avg = "avg"  # the mean over positions
    max = "max"  # the largest of all positions


class Preprocess(enum.StrEnum):
    """What images with values from 0 to 1 become before the first layer of a published architecture."""

    own = "own"  # what the architecture was trained on: its `preprocess_input`, and what it would do itself
    tf = "tf"  # -1 to 1
    torch = "torch"  # the mean and the deviation of ImageNet's colours become 0 and 1
    caffe = "caffe"  # 0 to 255, blue first, less the mean of ImageNet's colours
    bytes = "bytes"  # 0 to 255


@dataclass(frozen=True)
class Head:
    """What is put on a backbone for each output of the data, beside the output itself; see `nameplate.attach`."""

    hidden: list[int] = field(default_factory=list)  # units of dense layers before the output
    activation: Activation = Activation.relu  # of the hidden layers
    dropout: float = 0.0  # share of features dropped before the output, in [0, 1)

    def problems(self) -> list[str]:
        """Return sizes and rates that no layer can have."""
        found = [*at_least(1, hidden=self.hidden), *rates(dropout=self.dropout)]
        return [f"head.{problem}" for problem in found]


NO_HEAD = Head()
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


def backbone(
    *,
    weights: str | None,
    backbone: str | None,
    preprocess: Preprocess | None,
    include_top: bool,
    pooling: Pooling | None,
    head: Head,
    dropout: float,
    scaled: bool,
) -> list[str]:
    """Return the problems of a backbone's settings with each other; `scaled`: images have a scale of their own."""
    problems = head.problems()
    if backbone is not None and (reason := names.fault(backbone)):
        problems.append(f"backbone: {backbone!r} cannot name a container: {reason}")
    if backbone is None:
        needs = {"weights": weights, "head": head != NO_HEAD, "pooling": pooling}
        problems += [
            f"{name}: needs a container for the architecture; e.g. model.backbone=backbone"
            for name, given in needs.items()
            if given
        ]
    if include_top:
        unused = {"head": head != NO_HEAD, "pooling": pooling}
        problems += [
            f"{name}: not used with include_top=true, which has the architecture's own classifier"
            for name, given in unused.items()
            if given
        ]
    if dropout and head.dropout:
        problems.append(f"dropout, head.dropout: {dropout} and {head.dropout} mean the same; give one")
    if scaled and preprocess is not None:
        problems.append(
            f"scale, offset: images are scaled by preprocess={preprocess} already; with model.preprocess=null by these"
        )
    if weights is not None and preprocess is None and not scaled:
        problems.append("preprocess: weights were trained on images of a certain range; model.preprocess=own")
    return problems
