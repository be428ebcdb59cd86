"""The `model` section of a configuration: one frozen dataclass an architecture, with the parameters of its `build`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from nameplate.data.config import MISSING, example
from nameplate.section import Section
from trainer.models import ARCHITECTURES, checks
from trainer.models.checks import Activation, Head, Norm, Pooling, Preprocess, Stem
from trainer.models.edits import edit_problems


@dataclass(frozen=True)
class ModelConfig(Section):
    """The settings that every architecture has: the function that builds it, and edits of what that returns."""

    _target_: str = MISSING  # dotted path of build(inputs, outputs, **parameters) -> keras.Model
    # Edits of the built model, one after another, as {VERB: ARGUMENTS}: rename, replace, insert, remove, attach,
    # extract, freeze, unfreeze; e.g. {insert: {after: hidden1, layer: {_target_: Dropout, rate: 0.1, name: drop1}}}.
    edits: list[Any] = field(default_factory=list, kw_only=True)

    def arguments_for_build(self) -> dict[str, Any]:
        """Return the keyword parameters of the build function, without `inputs` and `outputs`."""
        names = [field.name for field in fields(self) if field.name not in ("_target_", "edits")]
        return {name: getattr(self, name) for name in names}

    def problems(self) -> list[str]:
        """Return the problems that do not depend on the data; the others are found when the model is built."""
        return [*(f"model.{problem}" for problem in self.parameter_problems()), *edit_problems(self.edits)]

    def parameter_problems(self) -> Iterator[str]:
        """Yield the problems of a subclass's own parameters, by name."""
        yield from ()


@dataclass(frozen=True)
class MlpConfig(ModelConfig):
    """A multilayer perceptron over inputs of any shape."""

    _target_: str = ARCHITECTURES["mlp"]
    hidden: list[int] = field(default_factory=lambda: [128, 64])  # units of each hidden layer; []: a linear model
    activation: Activation = Activation.relu  # of the hidden layers
    dropout: float = 0.0  # share of units dropped after each hidden layer, in [0, 1)

    def parameter_problems(self) -> Iterator[str]:
        """Yield sizes and rates that no layer can have."""
        yield from checks.at_least(1, hidden=self.hidden)
        yield from checks.rates(dropout=self.dropout)


@dataclass(frozen=True)
class ConvnetConfig(ModelConfig):
    """A small residual convolutional network."""

    _target_: str = ARCHITECTURES["convnet"]
    width: int = 64  # channels of the first stage; each later one has twice as many
    blocks: list[int] = field(default_factory=lambda: [1, 1])  # residual blocks of each stage
    dropout: float = 0.3  # share of features dropped before the logits, in [0, 1)
    norm: Norm = Norm.batch  # after each convolution

    def parameter_problems(self) -> Iterator[str]:
        """Yield sizes and rates that no layer can have."""
        yield from checks.at_least(1, width=self.width, blocks=self.blocks)
        yield from checks.not_empty(blocks=self.blocks)
        yield from checks.rates(dropout=self.dropout)


@dataclass(frozen=True)
class ResnetConfig(ModelConfig):
    """A residual network as in the paper, for images of any size."""

    _target_: str = ARCHITECTURES["resnet"]
    depth: int = 18  # layers: 18, 34 or 50
    stem: Stem = Stem.auto  # small for images under 64 pixels a side
    width: int = 64  # channels of the first stage; 64 in the paper

    def parameter_problems(self) -> Iterator[str]:
        """Yield depths that the paper does not have, and sizes that no layer can have."""
        yield from checks.numbers(checks.RESNET_DEPTHS, depth=self.depth)
        yield from checks.at_least(1, width=self.width)


@dataclass(frozen=True)
class VitConfig(ModelConfig):
    """A vision transformer."""

    _target_: str = ARCHITECTURES["vit"]
    patch: int | None = None  # pixels a side of a patch; null: near the square root of the image's side
    width: int = 64  # size of a patch's vector
    layers: int = 4  # blocks of attention and dense layers
    heads: int = 4  # of attention; they divide the width
    mlp_width: int | None = None  # units of a block's first dense layer; null: 4 times the width
    dropout: float = 0.0  # share dropped after positions, attention and dense layers, in [0, 1)

    def parameter_problems(self) -> Iterator[str]:
        """Yield sizes that no layer can have, and heads that do not divide the width."""
        yield from checks.at_least(1, patch=self.patch, width=self.width, layers=self.layers, heads=self.heads)
        yield from checks.at_least(1, mlp_width=self.mlp_width)
        yield from checks.heads_divide(width=self.width, heads=self.heads)
        yield from checks.rates(dropout=self.dropout)


@dataclass(frozen=True)
class TwoTowerConfig(ModelConfig):
    """Two inputs through one shared tower, any number of outputs."""

    _target_: str = ARCHITECTURES["two_tower"]
    width: int = 32  # channels of the tower's first convolution, where the inputs are images
    features: int = 64  # size of the vector that the tower returns for an input
    hidden: int = 64  # units of each output's own hidden layer

    def parameter_problems(self) -> Iterator[str]:
        """Yield sizes that no layer can have."""
        yield from checks.at_least(1, width=self.width, features=self.features, hidden=self.hidden)


@dataclass(frozen=True)
class OneTowerConfig(TwoTowerConfig):
    """One input through such a tower, one output: a target for `init=transfer` from a trained tower."""

    _target_: str = ARCHITECTURES["one_tower"]


@dataclass(frozen=True)
class SubclassedConfig(ModelConfig):
    """An MLP-Mixer, written as a subclass of `keras.Model`."""

    _target_: str = ARCHITECTURES["subclassed"]
    patch: int | None = None  # pixels a side of a patch; null: near the square root of the image's side
    width: int = 64  # size of a patch's vector
    layers: int = 4  # mixer blocks
    token_hidden: int = 32  # units that mix the patches
    channel_hidden: int = 128  # units that mix a patch's vector
    dropout: float = 0.0  # share dropped after each mixing, in [0, 1)

    def parameter_problems(self) -> Iterator[str]:
        """Yield sizes and rates that no layer can have."""
        yield from checks.at_least(1, patch=self.patch, width=self.width, layers=self.layers)
        yield from checks.at_least(1, token_hidden=self.token_hidden, channel_hidden=self.channel_hidden)
        yield from checks.rates(dropout=self.dropout)


@dataclass(frozen=True)
class ApplicationsConfig(ModelConfig):
    """Any architecture of `keras.applications`, with published weights, those of a file, or random ones."""

    _target_: str = ARCHITECTURES["applications"]
    name: str = "MobileNetV2"  # in any case: resnet50, efficientnet_v2_b0, ...
    # Where a new run's backbone begins: imagenet (downloaded by Keras), or a file of weights; null: random weights.
    weights: str | None = None
    backbone: str | None = None  # the container that the architecture is in; null: its layers are at the top level
    # What images from 0 to 1 become in front of the backbone: own (what it was trained on), tf, torch, caffe, bytes;
    # null: `scale` and `offset`.
    preprocess: Preprocess | None = None
    include_top: bool = False  # true: the architecture's own classifier instead of ours
    pooling: Pooling | None = None  # of the features: avg or max, inside the backbone; null: averaged by the head
    head: Head = field(default_factory=Head)  # what is between the backbone and the outputs
    dropout: float = 0.0  # the same as head.dropout
    enlarge_to: int | None = None  # side in pixels to which smaller images are enlarged; null: too small is an error
    scale: float | None = None  # images become scale * image + offset; null: what the architecture expects for [0, 1]
    offset: float | None = None  # see scale
    arguments: dict[str, Any] = field(default_factory=dict)  # the architecture's own, e.g. {alpha: 0.5}

    def parameter_problems(self) -> Iterator[str]:
        """Yield what cannot be built; the name and its arguments are checked when the model is."""
        yield from checks.at_least(1, enlarge_to=self.enlarge_to)
        yield from checks.rates(dropout=self.dropout)
        yield from checks.backbone(
            weights=self.weights,
            backbone=self.backbone,
            preprocess=self.preprocess,
            include_top=self.include_top,
            pooling=self.pooling,
            head=self.head,
            dropout=self.dropout,
            scaled=self.scale is not None or self.offset is not None,
        )


@dataclass(frozen=True)
class CustomModelConfig(ModelConfig):
    """Any `keras.Model`, from a callable of yours."""

    # Dotted name of the callable.
    _target_: str = field(default=MISSING, metadata=example("model._target_=pets.build trust=[pets]"))
    arguments: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the callable

    def arguments_for_build(self) -> dict[str, Any]:
        """Return the callable's arguments."""
        return dict(self.arguments)

    def parameter_problems(self) -> Iterator[str]:
        """Yield a target that is missing or cannot name something in a module."""
        if self._target_ == MISSING:
            yield "_target_: required and not given; e.g. model._target_=pets.build trust=[pets]"
        elif not all(part.isidentifier() for part in self._target_.split(".")):
            yield f"_target_: {self._target_!r} is not a dotted name; e.g. my_package.my_module.mine"
        elif "." not in self._target_:
            yield f"_target_: {self._target_!r} names no module; e.g. my_package.{self._target_}"


@dataclass(frozen=True)
class FileModelConfig(ModelConfig):
    """The model in a file, with its weights: a `.keras` file, a run (its best checkpoint) or a checkpoint.

    It is built in Keras' safe mode. Classes that are not Keras' own are those that the packages in `trust` register.
    """

    _target_: str = "nameplate.load"  # what reads it
    path: str = field(default=MISSING, metadata=example("model.path=edited.keras"))  # of the file, run or checkpoint

    def parameter_problems(self) -> Iterator[str]:
        """Yield another function in the place of the one that reads the file."""
        if self._target_ != FileModelConfig._target_:
            yield f"_target_: {self._target_!r} does not read model.path; model=custom calls a function of yours"


MODEL_SCHEMAS: dict[str, type[ModelConfig]] = {
    "mlp": MlpConfig,
    "convnet": ConvnetConfig,
    "resnet": ResnetConfig,
    "vit": VitConfig,
    "two_tower": TwoTowerConfig,
    "one_tower": OneTowerConfig,
    "subclassed": SubclassedConfig,
    "applications": ApplicationsConfig,
    "custom": CustomModelConfig,
    "file": FileModelConfig,
}
