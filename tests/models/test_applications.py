"""Architectures of `keras.applications` under names and bounds of ours."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from trainer.models import applications

SMALL_MOBILE: dict[str, Any] = {"arguments": {"alpha": 0.25}, "name": "MobileNet"}


def _build(side: int = 32, channels: int = 3, **parameters: Any) -> keras.Model:
    return applications.build({"image": (side, side, channels)}, {"label": 4}, **parameters)


@pytest.mark.parametrize("name", ["mobilenet", "MOBILENET", "Mobile_Net", "mobile-net"])
def test_a_name_is_found_in_any_case(name: str) -> None:
    assert "conv_dw_1" in nameplate.layers(_build(**{**SMALL_MOBILE, "name": name}))


def test_the_layers_keep_the_names_that_published_weights_have() -> None:
    ours = [name for name in nameplate.variables(_build(**SMALL_MOBILE)) if not name.startswith("label")]
    theirs = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    assert ours == list(nameplate.variables(theirs))


def test_the_own_classifier_gives_our_classes_under_our_name() -> None:
    model = _build(name="vgg16", include_top=True)
    assert model.output_names == ["label"]
    assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 4)
    assert {"fc1", "fc2", "predictions"} <= set(nameplate.layers(model))


def test_the_own_classifier_has_no_softmax() -> None:
    assert nameplate.layer(_build(include_top=True, **SMALL_MOBILE), "label").activation is keras.activations.linear


@pytest.mark.parametrize(("side", "enlarged"), [(8, True), (31, True), (32, False), (40, False)])
def test_only_images_that_are_too_small_are_enlarged(side: int, enlarged: bool) -> None:
    model = _build(side, enlarge_to=32, **SMALL_MOBILE)
    assert ("input_size" in nameplate.layers(model)) is enlarged


@pytest.mark.parametrize(
    ("parameters", "scaling"),
    [
        (SMALL_MOBILE, (2.0, -1.0)),
        ({**SMALL_MOBILE, "scale": 1.0, "offset": 0.0}, (1.0, 0.0)),
        ({"name": "EfficientNetB0"}, (255.0, 0.0)),
    ],
)
def test_images_are_scaled_to_what_the_architecture_expects(
    parameters: dict[str, Any], scaling: tuple[float, float]
) -> None:
    layer = nameplate.layer(_build(**parameters), "input_scale")
    assert (layer.scale, layer.offset) == scaling


def test_an_architecture_that_would_scale_by_itself_is_told_not_to() -> None:
    names = nameplate.layers(_build(name="EfficientNetV2B0"))
    assert [each for each in names if "rescaling" in each or "normalization" in each] == []


@pytest.mark.parametrize("name", ["ResNet50", "EfficientNetV2B0", "VGG16", "MobileNet"])
def test_what_the_documentation_says_to_be_strict_is(name: str) -> None:
    assert nameplate.check(_build(name=name), "strict") == []


def test_inception_says_its_own_bound() -> None:
    with pytest.raises(nameplate.NameplateError, match=r"InceptionV3 needs images of at least 75 x 75 pixels"):
        _build(32, name="InceptionV3")


def test_grey_images_are_taken() -> None:
    assert _build(channels=1, **SMALL_MOBILE)(np.zeros((2, 32, 32, 1), np.float32)).shape == (2, 4)
