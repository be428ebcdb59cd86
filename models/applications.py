"""Any architecture of `keras.applications` by name, with random weights and our classes.

Its layers keep Keras' names, without a prefix, so that published weights match by name. MobileNet, MobileNetV2,
EfficientNetV2, ResNet50 to 152 and VGG pass the policy `strict` unchanged, under our head. Where Keras numbers its
names (InceptionV3, Xception, NASNet, MobileNetV3 and others), `repair` makes them stable.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from nameplate.naming.names import did_you_mean
from trainer.models import checks, ports
from trainer.models.checks import BuildError, require

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
    include_top: bool = False,
    dropout: float = 0.0,
    enlarge_to: int | None = None,
    scale: float | None = None,
    offset: float | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Return the architecture `name`, in any case and with or without `_` and `-`.

    `include_top` keeps the architecture's own classifier, for our number of classes; otherwise its features are
    averaged over positions and go through `dropout` to the logits. Images with a side under `enlarge_to` pixels are
    first enlarged to it. They then become `scale * image + offset`, by default what the architecture expects for images
    in [0, 1]. `arguments` are the architecture's own, e.g. `alpha`. Raises BuildError for an unknown name or argument,
    for images too small for the architecture, and for data other than one image (height, width, channels) and one
    output.
    """
    known = _find(name)
    problems = [
        *checks.rates(dropout=dropout),
        *checks.at_least(1, enlarge_to=enlarge_to),
        *_unknown_arguments(known, arguments or {}),
    ]
    port = ports.single("applications", inputs, outputs, image=True, problems=problems)
    images = ports.source(port.name, port.shape)
    expected_scale, expected_offset = _expected(known)
    x = _enlarged(images, side=enlarge_to)
    x = keras.layers.Rescaling(
        expected_scale if scale is None else scale,
        expected_offset if offset is None else offset,
        name="input_scale",
    )(x)
    top = {"classes": port.units, "classifier_activation": None}
    x = _features(known, x, {"include_top": include_top, **(top if include_top else {}), **(arguments or {})})
    if include_top:
        # An identity, to name the output and keep it in float32 under every precision.
        logits = keras.layers.Activation("linear", dtype="float32", name=port.label)(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dropout(dropout, name="pool_dropout")(x) if dropout else x
        logits = ports.logits(x, label=port.label, units=port.units)
    return ports.assemble("applications", images, logits)


def names() -> list[str]:
    """Return the names of all architectures in this version of Keras."""
    return [name for name in dir(keras.applications) if name[0].isupper()]


def _find(name: str) -> str:
    by_key = {_key(known): known for known in names()}
    if _key(name) not in by_key:
        hint = did_you_mean(name, by_key.values())
        raise BuildError(
            "applications",
            [f"name: keras.applications has no {name!r}.{hint} It has {', '.join(by_key.values())}"],
        )
    return by_key[_key(name)]


def _key(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).casefold()


def _constructor(name: str) -> Callable[..., keras.Model]:
    constructor: Callable[..., keras.Model] = getattr(keras.applications, name)
    return constructor


def _unknown_arguments(name: str, arguments: Mapping[str, Any]) -> list[str]:
    own = [argument for argument in inspect.signature(_constructor(name)).parameters if argument not in _OURS]
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


def _expected(name: str) -> tuple[float, float]:
    """Return the scale and offset that bring images in [0, 1] to the range that the architecture expects."""
    # EfficientNetB0 to B7 always divide by 255 themselves; the others take [-1, 1].
    return (255.0, 0.0) if name.startswith("EfficientNetB") else (2.0, -1.0)


def _enlarged(images: Any, *, side: int | None) -> Any:
    height, width = images.shape[1:3]
    if side is None or min(height, width) >= side:
        return images
    return keras.layers.Resizing(max(height, side), max(width, side), name="input_size")(images)


def _features(name: str, images: Any, arguments: dict[str, Any]) -> Any:
    constructor = _constructor(name)
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        arguments = {**arguments, "include_preprocessing": False}
    shape = tuple(images.shape[1:])
    try:
        return constructor(weights=None, input_tensor=images, input_shape=shape, **arguments).output
    except (TypeError, ValueError) as error:
        require("applications", _too_small(name, shape, str(error)))
        raise BuildError("applications", [f"name: {name} refuses: {str(error).splitlines()[0]}"]) from error


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
