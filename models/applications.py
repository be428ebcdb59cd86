"""Any architecture of `keras.applications` by name, as the container `backbone` under a head of ours.

Inside it the layers keep Keras' names, so that published weights match by name. MobileNet, MobileNetV2,
EfficientNetV2, ResNet50 to 152 and VGG pass the policy `strict` unchanged. Where Keras numbers its names
(InceptionV3, Xception, NASNet, MobileNetV3 and others), `repair` makes them stable. `pretrained` loads weights.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate.graph import keras_private
from nameplate.naming.names import did_you_mean
from trainer.models import checks, ports
from trainer.models.checks import NO_HEAD, BuildError, Head, Pooling, Preprocess, require

_OURS = {
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "include_preprocessing",
    "name",
}


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    name: str = "MobileNetV2",
    weights: str | None = None,
    backbone: str | None = None,
    preprocess: Preprocess | None = None,
    include_top: bool = False,
    pooling: Pooling | None = None,
    head: Head = NO_HEAD,
    dropout: float = 0.0,
    enlarge_to: int | None = None,
    scale: float | None = None,
    offset: float | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Return the architecture `name`, in any case and with or without `_` and `-`, with random weights.

    `backbone` names the container of its layers, on which `head` is attached for the output; without it they are at
    the top level, under a pooling, `dropout` and the logits. `include_top` keeps the architecture's own classifier, for
    our number of classes. Nothing is loaded: `weights` says that they will be, which is for colours, so that grey
    images are repeated in three channels. Images with a side under `enlarge_to` pixels are first enlarged to it. Those
    with values in [0, 1] then become what `preprocess` says, or else `scale * image + offset`, by default the range
    that the architecture expects. `arguments` are the architecture's own, e.g. `alpha`.

    Raises BuildError for an unknown name or argument, for images too small for the architecture, and for data other
    than one image (height, width, channels) and one output.
    """
    known = find(name)
    problems = [
        *checks.rates(dropout=dropout),
        *checks.at_least(1, enlarge_to=enlarge_to),
        *checks.backbone(
            weights=weights,
            backbone=backbone,
            preprocess=preprocess,
            include_top=include_top,
            pooling=pooling,
            head=head,
            dropout=dropout,
            scaled=scale is not None or offset is not None,
        ),
        *_unknown_arguments(known, arguments or {}),
    ]
    port = ports.single("applications", inputs, outputs, image=True, problems=problems)
    images = ports.source(port.name, port.shape)
    x = _enlarged(images, side=enlarge_to)
    x = x if weights is None else _in_colour(x)
    if preprocess is None:
        expected_scale, expected_offset = _expected(known)
        x = keras.layers.Rescaling(
            expected_scale if scale is None else scale,
            expected_offset if offset is None else offset,
            name="input_scale",
        )(x)
    else:
        x = preprocessed(x, own_range(known) if preprocess is Preprocess.own else RANGES[preprocess])
    top: dict[str, Any] = {"classes": port.units, "classifier_activation": None} if include_top else {}
    given = {"include_top": include_top, "pooling": pooling and pooling.value, **top, **(arguments or {})}
    x = _features(known, x, given, container=backbone, port=port.name)
    if include_top:
        # An identity, to name the output and keep it in float32 under every precision.
        logits = keras.layers.Activation("linear", dtype="float32", name=port.label)(x)
    elif backbone is not None:
        body = ports.assemble("applications", images, x)
        hidden, rate = list(head.hidden), head.dropout or dropout
        return nameplate.attach(
            body, {port.label: port.units}, hidden=hidden, dropout=rate, activation=head.activation.value
        )
    else:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dropout(dropout, name="pool_dropout")(x) if dropout else x
        logits = ports.logits(x, label=port.label, units=port.units)
    return ports.assemble("applications", images, logits)


def names() -> list[str]:
    """Return the names of all architectures in this version of Keras."""
    return [name for name in dir(keras.applications) if name[0].isupper()]


def find(name: str) -> str:
    """Return the name that Keras has for an architecture; BuildError, with the nearest, if it has none."""
    by_key = {_key(known): known for known in names()}
    if _key(name) not in by_key:
        hint = did_you_mean(name, by_key.values())
        raise BuildError(
            "applications",
            [f"name: keras.applications has no {name!r}.{hint} It has {', '.join(by_key.values())}"],
        )
    return by_key[_key(name)]


def constructor_of(name: str) -> Callable[..., keras.Model]:
    """Return the function that makes an architecture."""
    constructor: Callable[..., keras.Model] = getattr(keras.applications, name)
    return constructor


def without_preprocessing(name: str) -> dict[str, bool]:
    """Return the argument that leaves out the preprocessing of an architecture that brings its own."""
    takes = "include_preprocessing" in inspect.signature(constructor_of(name)).parameters
    return {"include_preprocessing": False} if takes else {}


# ---- preprocessing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """What images in [0, 1] become: `scale * image + offset`, each a number or one a channel."""

    scale: float | list[float]
    offset: float | list[float]
    blue_first: bool = False  # the order of the channels before that; red is first in what is read

    def applied(self, images: np.ndarray) -> np.ndarray:
        """Return images (..., 3)."""
        ordered = images[..., ::-1] if self.blue_first else images
        return ordered * np.array(self.scale) + np.array(self.offset)


MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue
RANGES = {
    Preprocess.tf: Range(2.0, -1.0),
    Preprocess.torch: Range(
        [1.0 / deviation for deviation in DEVIATION],
        [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)],
    ),
    Preprocess.caffe: Range(255.0, [-103.939, -116.779, -123.68], blue_first=True),
    Preprocess.bytes: Range(255.0, 0.0),
}


@functools.cache
def own_range(name: str) -> Range:
    """Return what an architecture was trained on: its `preprocess_input`, then what it has for a first layer."""
    if name.startswith("ConvNeXt") or re.match(r"EfficientNetV2B\d", name):
        return RANGES[Preprocess.torch]  # by a layer that `include_preprocessing=False` leaves out
    if name.startswith("EfficientNetV2"):
        return Range(255.0 / 128.0, -1.0)  # likewise
    if name.startswith("MobileNetV3"):
        return RANGES[Preprocess.tf]  # likewise
    pixel = np.array([[[[10.0, 90.0, 200.0]]]])
    own = module_of(name).preprocess_input(pixel.copy())
    fitting = [known for known in RANGES.values() if np.allclose(known.applied(pixel / 255.0), own, atol=1e-3)]
    if not fitting:
        raise BuildError(
            "applications", [f"preprocess: that of {name} is unknown here; give tf, torch, caffe or bytes"]
        )
    return fitting[0]


def preprocessed(images: Any, wanted: Range) -> Any:
    """Return images (n, height, width, channels) in [0, 1] as an architecture expects them, in float32.

    Numbers for each colour are for three channels; images of another number of channels become -1 to 1.
    """
    if images.shape[-1] != 3 and isinstance(wanted.offset, list):
        wanted = RANGES[Preprocess.tf]
    if wanted.blue_first:
        reversing = keras_private.source(keras.ops.flip(images, axis=-1))
        images = keras_private.detached(reversing, "input_bgr")(images)
    return keras.layers.Rescaling(wanted.scale, wanted.offset, dtype="float32", name="input_scale")(images)


def module_of(name: str) -> Any:
    """Return the module of `keras.applications` that has an architecture and its `preprocess_input`."""
    modules = [module for module in vars(keras.applications).values() if isinstance(module, ModuleType)]
    return next(module for module in modules if hasattr(module, name) and hasattr(module, "preprocess_input"))


def _in_colour(images: Any) -> Any:
    """Return grey images as images of three equal channels."""
    if images.shape[-1] == 1:
        return keras.layers.Concatenate(name="input_rgb")([images] * 3)
    if images.shape[-1] != 3:
        raise BuildError(
            "applications", [f"inputs: published weights take images of 3 channels, these have {images.shape[-1]}"]
        )
    return images


def _expected(name: str) -> tuple[float, float]:
    """Return the scale and offset that bring images in [0, 1] to the range that the architecture expects."""
    # EfficientNetB0 to B7 always divide by 255 themselves; the others take [-1, 1].
    return (255.0, 0.0) if name.startswith("EfficientNetB") else (2.0, -1.0)


# ---- the layers -------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).casefold()


def _unknown_arguments(name: str, arguments: Mapping[str, Any]) -> list[str]:
    own = [argument for argument in inspect.signature(constructor_of(name)).parameters if argument not in _OURS]
    listed = f"it takes {', '.join(own)}" if own else "it takes none"
    unknown = [
        f"arguments.{argument}: {name} has no such argument; {listed}.{did_you_mean(argument, own)}"
        for argument in arguments
        if argument not in own
    ]
    # Keras would deserialize objects from mappings.
    return unknown + [
        f"arguments.{argument}: {value!r:.80} is not a plain value"
        for argument, value in arguments.items()
        if argument in own and isinstance(value, Mapping)
    ]


def _enlarged(images: Any, *, side: int | None) -> Any:
    height, width = images.shape[1:3]
    if side is None or min(height, width) >= side:
        return images
    return keras.layers.Resizing(max(height, side), max(width, side), name="input_size")(images)


def _features(name: str, images: Any, arguments: dict[str, Any], *, container: str | None, port: str) -> Any:
    """Return what the architecture makes of images, its layers in a container or at the top level."""
    shape = tuple(images.shape[1:])
    inner = images if container is None else ports.source(port, shape)
    options = {**without_preprocessing(name), "weights": None, "input_tensor": inner, "input_shape": shape}
    try:
        made = constructor_of(name)(**options, **arguments)
    except (TypeError, ValueError) as error:
        require("applications", _too_small(name, shape, str(error)))
        raise BuildError("applications", [f"name: {name} refuses: {str(error).splitlines()[0]}"]) from error
    return made.output if container is None else keras.Model(inner, made.output, name=container)(images)


def _too_small(name: str, shape: tuple[int, ...], message: str) -> list[str]:
    """Return the problem if Keras' message is about the size of the image; else nothing."""
    bound = re.search(r"at least (\d+)", message)
    if bound is None:
        return []
    side = bound.group(1)
    return [
        f"inputs: {name} needs images of at least {side} x {side} pixels, these have {shape[0]} x {shape[1]}; "
        f"model.enlarge_to={side} enlarges them, and model=convnet takes any size"
    ]
