"""Weights for the backbone of `model=applications`: of a file by name, and those that Keras publishes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.backend import config as keras_config

import nameplate
from nameplate.section import ConfigError
from trainer.models import applications, keras_private, pretrained
from trainer.models.checks import Pooling, Preprocess
from trainer.models.config import ApplicationsConfig

SMALL: dict[str, Any] = {"name": "MobileNet", "arguments": {"alpha": 0.25}}
PUBLISHED = "mobilenet_2_5_224_tf_no_top.h5"


def configured(weights: str | Path | None, **settings: Any) -> ApplicationsConfig:
    settings = {**SMALL, "backbone": "backbone", "preprocess": Preprocess.own, **settings}
    return ApplicationsConfig(weights=None if weights is None else str(weights), **settings)


def built(config: ApplicationsConfig, shape: tuple[int, int, int] = (32, 32, 3), classes: int = 4) -> keras.Model:
    assert config.problems() == []
    return applications.build({"image": shape}, {"label": classes}, **config.arguments_for_build())


def loaded(config: ApplicationsConfig) -> tuple[keras.Model, str]:
    """Return a model with the weights of its configuration, and the account of them."""
    model = built(config)
    plan = pretrained.load_pretrained(model, config, say=lambda line: None)
    assert plan
    return model, f"{plan.source}: {plan.total()}"


def theirs(seed: int = 0, **options: Any) -> keras.Model:
    """Return Keras' own MobileNet with numbers that random weights do not have, in the statistics too."""
    keras.utils.set_random_seed(seed)
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, **{"include_top": False, **options})
    rng = np.random.default_rng(seed)
    model.set_weights([rng.random(value.shape, np.float32) / 2 + 0.1 for value in model.get_weights()])
    return model


def of_keras_2(model: keras.Model, path: Path) -> Path:
    """Write weights as the published files have them: by layer, in the order in which Keras makes its layers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{weight.name}:0".encode() for weight in weights]
            for weight in weights:
                group[f"{layer.name}/{weight.name}:0"] = weight.numpy()
    return path


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((count, 32, 32, 3), np.float32)


def features_of(model: keras.Model, x: np.ndarray) -> np.ndarray:
    part = nameplate.extract(model, "backbone", verify=False)
    return np.asarray(part(x))


@pytest.mark.parametrize("ending", ["weights.h5", "keras", "safetensors", "h5"])
def test_a_file_fills_the_whole_backbone_by_name(tmp_path: Path, ending: str) -> None:
    own, path = theirs(), tmp_path / f"mine.{ending}"
    match ending:
        case "weights.h5":
            own.save_weights(path)
        case "h5":
            of_keras_2(own, path)
        case _:
            nameplate.save(own, path)
    model, account = loaded(configured(path))
    x = images()
    expected = own(keras.applications.mobilenet.preprocess_input(255.0 * x))
    np.testing.assert_allclose(features_of(model, x), expected, rtol=1e-4, atol=1e-5)
    assert account == f"{path}: 135 taken"


def test_a_classifier_in_the_file_is_left_and_counted(tmp_path: Path) -> None:
    own = theirs(include_top=True, classes=7)
    own.save_weights(tmp_path / "top.weights.h5")
    _, account = loaded(configured(tmp_path / "top.weights.h5"))
    assert account == f"{tmp_path / 'top.weights.h5'}: 135 taken, 2 left"


def test_the_own_classifier_is_loaded_with_include_top(tmp_path: Path) -> None:
    own = theirs(include_top=True, classes=4, classifier_activation=None)
    own.save_weights(tmp_path / "top.weights.h5")
    model, _ = loaded(configured(tmp_path / "top.weights.h5", include_top=True))
    x = images()
    np.testing.assert_allclose(model(x), own(2.0 * x - 1.0), rtol=1e-4, atol=1e-5)


def test_layers_that_keras_numbers_are_paired_in_their_order(tmp_path: Path) -> None:
    own = keras.applications.MobileNetV3Small((32, 32, 3), include_top=False, weights=None)
    own.save_weights(tmp_path / "v3.weights.h5")
    model, _ = loaded(configured(tmp_path / "v3.weights.h5", name="MobileNetV3Small", arguments={}))
    x = images()
    np.testing.assert_allclose(features_of(model, x), own(255.0 * x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_features_are_pooled_inside_the_backbone(tmp_path: Path, pooling: str) -> None:
    own = theirs(pooling=pooling)
    own.save_weights(tmp_path / "own.weights.h5")
    model, _ = loaded(configured(tmp_path / "own.weights.h5", pooling=Pooling[pooling]))
    x = images()
    np.testing.assert_allclose(features_of(model, x), own(2.0 * x - 1.0), rtol=1e-4, atol=1e-5)
    assert "label_pool" not in nameplate.layers(model)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "mone.weights.h5", "no file at .*mone.weights.h5'. Did you mean 'mine.weights.h5'"),
        (lambda folder: "imagnet", "no file at 'imagnet'. Did you mean 'imagenet'"),
        (lambda folder: folder, "is a directory; .* use init=checkpoint init.path="),
        (lambda folder: folder / "notes.txt", "is not called like a file of weights"),
        (lambda folder: folder / "half.weights.h5", r"has 0 of the 135 variables(?s:.*)conv1/kernel(?s:.*)e.g. alpha"),
    ],
)
def test_a_file_that_cannot_fill_it_is_refused(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    theirs().save_weights(tmp_path / "mine.weights.h5")
    keras.applications.MobileNet((32, 32, 3), alpha=0.5, weights=None, include_top=False).save_weights(
        tmp_path / "half.weights.h5"
    )
    (tmp_path / "notes.txt").write_text("no weights")
    config = configured(make(tmp_path))
    model = built(config)
    before = nameplate.read(model)
    with pytest.raises(ConfigError, match=says):
        pretrained.load_pretrained(model, config, say=lambda line: None)
    assert all(np.array_equal(before[name], value) for name, value in nameplate.read(model).items())


# ---- what Keras publishes ---------------------------------------------------------------------------------------


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let Keras keep its downloads in a folder of this test, and no download succeed; return that folder."""
    monkeypatch.setattr(keras_config, "_KERAS_DIR", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # where nothing listens
        monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path / "models"


def test_a_download_that_fails_names_the_file_and_its_place(no_network: Path) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(configured("imagenet"))
    text = str(error.value)
    assert f"{PUBLISHED} cannot be downloaded: [Errno " in text
    assert f"Put the file into {no_network}, or give it as model.weights=PATH" in text
    assert "http" not in text


def test_a_file_in_that_place_is_loaded_as_keras_does(no_network: Path) -> None:
    own = theirs()
    of_keras_2(own, no_network / PUBLISHED)
    model, account = loaded(configured("imagenet"))
    np.testing.assert_allclose(features_of(model, images()), own(2.0 * images() - 1.0), rtol=1e-4, atol=1e-5)
    assert account == f"{PUBLISHED} (imagenet): 135 taken"


def test_another_file_under_the_name_of_a_published_one_is_refused_and_kept(no_network: Path) -> None:
    no_network.mkdir()
    place = no_network / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    place.write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"is not the published file: its MD5 is \w+, not 6d6bbae1\w+; remove it"):
        loaded(configured("imagenet", name="VGG16", arguments={}))
    assert place.read_bytes() == b"something else"


def test_an_architecture_without_published_weights_says_so() -> None:
    with pytest.raises(ConfigError, match=r"no published weights for MobileNet for images .*: .*alpha(?s:.*)a file"):
        loaded(configured("imagenet", arguments={"alpha": 0.3}))


def test_the_published_classifier_is_for_its_own_classes() -> None:
    with pytest.raises(ConfigError, match="published classifier is for 1000 classes, the data has 4"):
        loaded(configured("imagenet", include_top=True))


@pytest.mark.long
def test_what_keras_adds_to_a_network_for_published_weights_is_kept(
    no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constructor = keras.applications.EfficientNetB0
    own = constructor(include_top=False, weights=None, input_shape=(32, 32, 3))
    rng = np.random.default_rng(0)
    own.set_weights([rng.random(value.shape).astype(value.dtype) / 4 + 0.1 for value in own.get_weights()])
    path = of_keras_2(own, no_network / "any.h5")
    with keras_private.downloads_answered(lambda *_, **__: str(path)):
        published = constructor(include_top=False, weights="imagenet", input_shape=(32, 32, 3))
    assert len(published.layers) == len(own.layers) + 1

    monkeypatch.setattr(pretrained, "published", lambda *_: pretrained.Published("any.h5", "", None, "models"))
    model, _ = loaded(configured("imagenet", name="EfficientNetB0", arguments={}))
    np.testing.assert_allclose(features_of(model, images()), published(255.0 * images()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("least", "most", "says"),
    [
        (0.0, 1.0, None),
        (0.0, 0.0, None),
        (0.0, 255.0, "values from 0 to 255, .*data.scale=0.00392157"),
        (-1.0, 1.0, "which the model scales itself; leave out data.scale"),
        (0.0, 1 / 255, "which the model scales itself; leave out data.scale"),
    ],
)
def test_images_of_another_range_are_refused(least: float, most: float, says: str | None) -> None:
    problem = pretrained.range_problem(least, most)
    if says is None:
        assert problem is None
    else:
        assert problem
        assert re.search(says, problem)
