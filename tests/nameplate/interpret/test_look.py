"""What layers make of an image is shown under their names."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import nameplate
from nameplate.errors import NameplateError
from nameplate.interpret.image_files import ImageFileError, maps_sheet, read_image, read_recipe, save_image, sheet
from nameplate.interpret.look import activations, overlay
from nameplate.interpret.objectives import ObjectiveError
from nameplate.interpret.start_images import PATTERNS, StartError, start_image
from tests.nameplate.interpret.nets import nested, noise

IMAGE = noise(32, 32, 3)


def test_activations_are_what_the_layers_give() -> None:
    model = nested()
    found = activations(model, IMAGE, ["neck", "backbone/*"])
    assert list(found) == ["backbone/conv1", "backbone/conv2", "neck"]
    wanted = np.asarray(keras.Model(model.inputs[0], model.get_layer("neck").output)(IMAGE[None]))[0]
    np.testing.assert_allclose(found["neck"], wanted, rtol=1e-5, atol=1e-6)


def test_a_grid_has_a_row_for_each_layer() -> None:
    one = nameplate.look(nested(), IMAGE, "neck")
    both = nameplate.look(nested(), IMAGE, ["neck", "pool"], most=4)
    assert one.dtype == both.dtype == np.uint8
    assert one.shape[1] > 10 * 64  # ten channels
    assert both.shape[0] > one.shape[0]


def test_names_that_match_nothing_are_refused_with_the_nearest() -> None:
    with pytest.raises(ObjectiveError, match="Did you mean 'backbone/conv1'"):
        nameplate.look(nested(), IMAGE, ["neck", "bakbone/conv1"])


def test_a_class_is_seen_where_it_is() -> None:
    image = keras.Input((16, 16, 1), name="image")
    maps = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(maps)
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax", name="label")(x), name="bright")
    nameplate.layer(model, "maps").set_weights([np.array([[[[1.0, -1.0]]]])])
    model.get_layer("label").set_weights([np.eye(2), np.zeros(2)])
    picture = np.zeros((16, 16, 1), np.float32)
    picture[2:6, 9:13] = 1
    heat = nameplate.saliency(model, picture, 0, at="maps")
    assert heat.shape == (16, 16)
    np.testing.assert_allclose(heat, picture[..., 0], atol=1e-5)
    assert overlay(np.round(255 * picture).astype(np.uint8), heat).shape == (16, 16, 3)
    assert nameplate.saliency(model, picture, 1, at="maps").max() == 0  # only darkness speaks for it


def test_a_layer_without_maps_is_refused_for_grad_cam() -> None:
    with pytest.raises(ObjectiveError, match="needs maps"):
        nameplate.saliency(nested(), IMAGE, 0, at="pool")
    with pytest.raises(ObjectiveError, match="there is no 7"):
        nameplate.saliency(nested(), IMAGE, 7, at="neck")


def test_a_picture_keeps_its_recipe(tmp_path: Path) -> None:
    pixels = (255 * IMAGE).astype(np.uint8)
    recipe = {"what": 'layer("neck")', "settings": {"seed": 3}, "name": "größer"}
    path = save_image(tmp_path / "new" / "dream.png", pixels, recipe=recipe)
    assert read_recipe(path) == recipe
    np.testing.assert_array_equal(read_image(path, channels=3), pixels)
    assert [each.name for each in path.parent.iterdir()] == ["dream.png"]


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    for path in (text, tmp_path / "absent.png"):
        with pytest.raises(ImageFileError):
            read_image(path, channels=3)
    with pytest.raises(ImageFileError, match="has no recipe"):
        read_recipe(tmp_path / "plain.png")
    with pytest.raises(ImageFileError, match=r"written as \.png"):
        save_image(tmp_path / "dream.jpg", np.zeros((4, 4, 3), np.uint8), recipe={})


def test_a_sheet_holds_every_picture() -> None:
    white = np.full((8, 8, 1), 255, np.uint8)
    found = sheet({f"layer {place}": white for place in range(5)}, columns=3, side=40)
    assert found.shape[1] == 3 * 48 + 8
    assert (found == 255).all(axis=-1).sum() == 5 * 40 * 40


def test_channels_that_vary_most_are_shown() -> None:
    still, lively = np.zeros((8, 8, 3)), noise(8, 8, 2)
    found = maps_sheet({"maps": np.concatenate([still, lively], axis=-1)}, most=2, side=8)
    assert 100 < found[8:16, 8:26].mean() < 250


@pytest.mark.parametrize("name", PATTERNS)
def test_start_images_are_made_at_any_size(name: str) -> None:
    found = start_image(name, (48, 64))
    assert found.shape == (48, 64, 3)
    assert found.std() > 20
    np.testing.assert_array_equal(found, start_image(name, (48, 64)))


def test_photographs_come_from_an_optional_dependency() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        with pytest.raises(StartError, match=r"pip install 'nameplate\[photos\]'"):
            start_image("china", (8, 8))
    else:
        assert start_image("china", (8, 8)).shape == (427, 640, 3)
    with pytest.raises(NameplateError, match="Did you mean 'china'"):
        start_image("chin", (8, 8))
