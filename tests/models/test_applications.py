"""Architectures of `keras.applications` under names and bounds of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from tests.long import cases
from trainer.models import applications, checks
from trainer.models.checks import Head, Preprocess
from trainer.models.config import ApplicationsConfig

SMALL_MOBILE: dict[str, Any] = {"arguments": {"alpha": 0.25}, "name": "MobileNet"}

# The layer with which the preprocessing of an architecture ends; otherwise it ends before the first with weights.
BUILT_IN = {
    "MobileNetV3Small": "",
    "EfficientNetV2B0": "",
    "EfficientNetV2S": "",
    "ConvNeXtTiny": "convnext_tiny_prestem_normalization",
}


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


OWN: dict[str, Any] = {**SMALL_MOBILE, "backbone": "backbone", "preprocess": Preprocess.own}


def test_the_architecture_is_one_container_under_a_head() -> None:
    model = _build(**OWN, head=Head(hidden=[8, 6], dropout=0.2))
    names = list(nameplate.layers(model))
    assert names[:3] == ["image", "input_scale", "backbone"]
    head = [f"label_{part}" for part in ("pool", "hidden_1", "hidden_2", "drop")]
    assert [name for name in names[2:] if not name.startswith("backbone")] == [*head, "label"]
    assert nameplate.check(model, "strict") == []
    theirs = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    inside = [name.removeprefix("backbone/") for name in nameplate.variables(model) if name.startswith("backbone/")]
    assert inside == list(nameplate.variables(theirs))


# One of every kind: -1 to 1; ImageNet's mean and deviation; blue first; unchanged, since a layer of its own follows.
@pytest.mark.parametrize("name", ["MobileNet", "DenseNet121", "VGG16", "EfficientNetB0"])
def test_images_become_what_the_architectures_own_function_makes_of_them(name: str) -> None:
    module = applications.module_of(name)
    image = keras.Input((4, 5, 3), name="image")
    model = keras.Model(image, applications.preprocessed(image, applications.own_range(name)), name="net")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(model(pixels / 255.0), module.preprocess_input(pixels.copy()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", cases([*BUILT_IN], short=["MobileNetV3Small", "EfficientNetV2B0"]))
def test_images_become_what_an_architectures_own_first_layers_make_of_them(name: str) -> None:
    theirs = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(32, 32, 3))
    first = next(layer for layer in theirs.layers if layer.weights)
    own = keras.Model(theirs.input, theirs.get_layer(BUILT_IN[name]).output if BUILT_IN[name] else first.input)
    image = keras.Input((32, 32, 3), name="image")
    model = keras.Model(image, applications.preprocessed(image, applications.own_range(name)), name="net")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(model(pixels / 255.0), own(pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mode", "channels"), [("caffe", 3), ("torch", 3), ("torch", 1), ("caffe", 1)])
def test_plain_keras_loads_the_preprocessing(mode: str, channels: int, tmp_path: Path) -> None:
    model = _build(channels=channels, **{**OWN, "preprocess": Preprocess[mode]})
    model.save(tmp_path / "net.keras")
    x = np.random.default_rng(0).random((2, 32, 32, channels), np.float32)
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "net.keras")(x), model(x))
    assert [each for each in nameplate.layers(model) if each.startswith("input_")] == [
        *(["input_bgr"] if (mode, channels) == ("caffe", 3) else []),
        "input_scale",
    ]


def test_grey_images_become_colours_for_weights_and_only_for_them() -> None:
    with_weights, without = (_build(channels=1, **OWN, weights=weights) for weights in ("imagenet", None))
    assert nameplate.layer(with_weights, "backbone/conv1").kernel.shape[2] == 3
    assert nameplate.layer(without, "backbone/conv1").kernel.shape[2] == 1
    with pytest.raises(nameplate.NameplateError, match="published weights take images of 3 channels, these have 4"):
        _build(channels=4, **OWN, weights="imagenet")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": "imagenet"}, ["weights: needs a container", "preprocess: weights were trained on images"]),
        ({"pooling": "avg", "head": Head([8])}, ["head: needs a container", "pooling: needs a container"]),
        ({"include_top": True, "backbone": "b", "pooling": "max"}, ["pooling: not used with include_top=true"]),
        ({"backbone": "b", "head": Head([0], dropout=1.0)}, ["head.hidden: [0] is too small", "head.dropout: 1.0 is"]),
        ({"backbone": "b", "head": Head(dropout=0.1), "dropout": 0.2}, ["dropout, head.dropout: 0.2 and 0.1 mean"]),
        ({"preprocess": Preprocess.own, "scale": 2.0}, ["scale, offset: images are scaled by preprocess=own already"]),
        ({"backbone": "a/b"}, ["backbone: 'a/b' cannot name a container"]),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_once(settings: dict[str, Any], says: list[str]) -> None:
    problems = ApplicationsConfig(**settings).problems()
    assert len(problems) == len(says)
    for problem, start in zip(problems, says, strict=True):
        assert problem.startswith(f"model.{start}"), problem
    with pytest.raises(checks.BuildError) as error:
        _build(**{**SMALL_MOBILE, **settings})
    assert all(start in str(error.value) for start in says)


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
