"""A dream rises, holds together, comes out the same again, and takes images of any size and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.arguments import ArgumentError
from nameplate.interpret.ascent import grid
from nameplate.interpret.canvas import Fourier, Pixels, total_variation
from nameplate.interpret.dream import Dreamer, octave_sizes
from nameplate.interpret.image_files import ImageFileError, save_image
from nameplate.interpret.objectives import ObjectiveError, channel, class_logit, content, layer, style
from nameplate.interpret.settings import Parameters, Settings, SettingsError
from nameplate.interpret.start_images import credited
from tests.nameplate.interpret.nets import digits, nested, noise

PHOTO = (255 * noise(40, 48, 3)).astype(np.uint8)


@pytest.mark.parametrize("parameters", Parameters)
def test_a_class_objectives_image_is_classified_as_that_class(parameters: Parameters) -> None:
    model = digits()
    found = nameplate.dream(model, class_logit(list(range(10))), parameters=parameters, steps=96)
    assert found.shape == (10, 8, 8, 1)
    assert np.asarray(model(found)).argmax(axis=1).tolist() == list(range(10))


@pytest.mark.parametrize("parameters", Parameters)
def test_the_objective_rises_in_trend_and_total_variation_stays_in_bounds(parameters: Parameters) -> None:
    variations = []
    for tv in (0.0, 0.3):
        settings = Settings(parameters=parameters, steps=96, tv=tv)
        dreamer = Dreamer(digits(), layer("stage1_block1_relu2"), settings)
        found, values = dreamer.dream(dreamer.noise(32, 2))
        parts = values.reshape(6, 16, 2).mean(axis=1)  # jitter makes single steps go up and down
        assert (np.diff(parts[:4], axis=0) > 0).all()
        assert (parts[-1] > 2 * parts[0]).all()
        variations.append(float(np.mean(total_variation(tf.constant(found)))))
    assert 0.005 < variations[1] < variations[0] < 0.6


@pytest.mark.parametrize("options", [{}, {"image": PHOTO, "octaves": 2, "tv": 0.1}, {"image": PHOTO, "tile": 24}])
def test_the_same_arguments_give_the_same_image_bit_for_bit(options: Any) -> None:
    first, again = (nameplate.dream(nested(), "backbone/conv2", steps=20, **options) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.dtype == np.float32
    other = nameplate.dream(nested(), "backbone/conv2", steps=20, seed=1, **options)
    assert other.tobytes() != first.tobytes()


def test_steps_that_are_taken_in_several_calls_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for steps in (16, 5):
        monkeypatch.setattr("nameplate.interpret.ascent.STEPS", steps)
        found.append(nameplate.dream(nested(), "neck", steps=20))
    assert found[0].tobytes() == found[1].tobytes()


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    objective = channel("neck", [1, 4, 7])
    together = nameplate.dream(nested(), objective, steps=12)
    start = Dreamer(nested(), objective, Settings()).noise(None, 3)
    alone = nameplate.dream(nested(), channel("neck", 4), start[1], steps=12, parameters="fourier", octaves=1)
    np.testing.assert_allclose(together[1], alone, atol=2e-3)


def test_a_batch_is_shared_among_replicas_and_comes_out_as_on_one_device(strategy: Any) -> None:
    objective = channel("neck", [1, 4, 7])  # three images over two replicas
    alone = nameplate.dream(nested(), objective, steps=12)
    with strategy.scope():
        shared = nameplate.dream(nested(), objective, steps=12)
        single = nameplate.dream(nested(), "backbone/conv1", steps=4)
    assert single.shape == (32, 32, 3)
    np.testing.assert_allclose(shared, alone, atol=2e-3)


@pytest.mark.parametrize("objective", ["backbone/conv2", "class_logit(2)"])
def test_an_image_larger_than_the_model_was_built_for_is_dreamt_whole(objective: str) -> None:
    found = nameplate.dream(nested(), objective, PHOTO, steps=3)
    assert found.shape == (40, 48, 3)
    assert 0 <= found.min() <= found.max() <= 1


def test_a_model_that_takes_one_size_only_goes_over_larger_images_in_tiles() -> None:
    image = keras.Input((8, 8, 1), name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    model = keras.Model(image, keras.layers.Dense(4, name="label")(flat), name="rigid")
    large = noise(20, 30, 1)
    with pytest.raises(ObjectiveError, match="built for 8 by 8 pixels: start with that size, or give tile=8"):
        nameplate.dream(model, "label", large, steps=2)
    assert nameplate.dream(model, "label", large, steps=2, tile=8).shape == (20, 30, 1)


def test_tiles_follow_the_whole_image_closely() -> None:
    whole, tiled = (
        nameplate.dream(nested(), "backbone/conv2", PHOTO, steps=8, octaves=1, tile=tile) for tile in (None, 24)
    )
    apart = np.abs(whole - tiled).mean()
    moved = np.abs(whole - PHOTO / 255).mean()
    assert apart < moved / 3


def test_references_go_with_octaves_and_tiles() -> None:
    reference = (255 * noise(30, 30, 3)[::-1]).astype(np.uint8)
    objective = content("backbone/conv2", reference) + style("backbone/conv1", reference)
    dreamer = Dreamer(nested(), objective, Settings(steps=24, octaves=2, tile=25))
    _, values = dreamer.dream(dreamer.start(PHOTO))
    assert values[-4:].mean() > values[:4].mean() + 0.2 * abs(values[:4].mean())


def test_uint8_and_float_images_begin_the_same_in_any_range() -> None:
    found = [
        nameplate.dream(nested(), "neck", PHOTO, steps=2, values=(-1, 1)),
        nameplate.dream(nested(), "neck", (PHOTO / 127.5 - 1).astype(np.float32), steps=2, values=(-1, 1)),
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    assert found[0].min() < -0.5


def test_a_batch_of_images_comes_back_as_a_batch() -> None:
    assert nameplate.dream(nested(), "neck", PHOTO[None], steps=1).shape == (1, 40, 48, 3)
    assert nameplate.dream(nested(), "neck", count=2, steps=1).shape == (2, 32, 32, 3)
    assert nameplate.dream(nested(None), "neck", size=(16, 24), steps=1).shape == (16, 24, 3)


def test_a_dream_begins_from_a_photograph_s_file_or_a_pattern_by_name(tmp_path: Path) -> None:
    path = save_image(tmp_path / "photo.png", PHOTO, recipe={})
    model = nested(None)
    found = nameplate.dream(model, "neck", path, steps=2, octaves=1)
    np.testing.assert_array_equal(found, nameplate.dream(model, "neck", PHOTO, steps=2, octaves=1))

    assert nameplate.dream(model, "neck", str(path), size=24, steps=1, octaves=1).shape == (24, 24, 3)
    assert nameplate.dream(model, "neck", "sky", size=(20, 30), steps=1, octaves=1).shape == (20, 30, 3)
    assert nameplate.dream(digits(), "label", path, size=8, steps=1).shape == (8, 8, 1)
    with pytest.raises(ImageFileError, match=r"absent\.jpg"):
        nameplate.dream(model, "neck", tmp_path / "absent.jpg", steps=1)


def test_a_photograph_s_author_is_in_the_recipe() -> None:
    assert credited("flower").startswith("flower (photograph by vultilion, CC BY 2.0")
    assert credited("sky") == "sky"


def test_progress_is_told_to_the_last_step() -> None:
    told: list[tuple[int, int]] = []
    nameplate.dream(
        nested(None), "neck", PHOTO, steps=20, octaves=2, octave_scale=1.2, progress=lambda *each: told.append(each[:2])
    )
    assert told == [(16, 40), (20, 40), (36, 40), (40, 40)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown setting": ({"octave": 3}, "no setting 'octave'. Did you mean 'octaves'"),
    "no steps": ({"steps": 0}, "steps: 0 is too small"),
    "no range": ({"values": (1, 1)}, "is not a range"),
    "several": ({"rate": 0, "tv": -1}, "tv: -1 is too small"),
    "parameters": ({"parameters": "wavelets"}, "'pixels' or 'fourier' is needed, not 'wavelets'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_settings_that_cannot_be_meant_are_refused(kind: str) -> None:
    options, message = REFUSED[kind]
    with pytest.raises((SettingsError, ArgumentError), match=message.replace("(", r"\(")):
        nameplate.dream(nested(), "neck", **options)


def test_images_of_other_channels_and_batches_of_other_lengths_are_refused() -> None:
    with pytest.raises(ObjectiveError, match=r"\(height, width, 3\)"):
        nameplate.dream(nested(), "neck", noise(8, 8, 1))
    with pytest.raises(ObjectiveError, match="numbers for 3 images, and there are 2"):
        nameplate.dream(nested(), channel("neck", [1, 2, 3]), noise(2, 32, 32, 3))


@pytest.mark.parametrize("size", [(12, 17), (9, 8), (16, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_written_as_frequencies_reads_back(size: tuple[int, int], channels: int) -> None:
    images = 0.1 + 0.8 * noise(2, *size, channels)
    for canvas in (Fourier((0.0, 1.0), 0.05), Pixels((0.0, 1.0), 0.01)):
        back = canvas.decode(canvas.encode(tf.constant(images)), size)
        np.testing.assert_allclose(back, images, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "tile", "exact"), [((20, 30), 8, 8), ((20, 30), 8, None), ((7, 9), 9, None), ((8, 8), 8, 8)]
)
def test_tiles_cover_an_image_and_join_again(size: tuple[int, int], tile: int, exact: int | None) -> None:
    plan = grid(size, tile, exact=(exact, exact))
    assert max(plan.tile) <= tile
    assert exact is None or plan.tile == (tile, tile)
    images = tf.constant(noise(2, *size, 3))
    tiles = plan.split(images)
    assert tiles.shape == (plan.rows * plan.columns, 2, *plan.tile, 3)
    times = plan.joined(tf.ones_like(tiles))  # a pixel that is in several tiles is counted as often
    np.testing.assert_allclose(plan.joined(tiles) / times, images, rtol=1e-6)


def test_octaves_end_with_the_image_and_leave_out_what_is_too_small() -> None:
    assert octave_sizes((100, 200), Settings(octaves=3, octave_scale=2.0)) == [(50, 100), (100, 200)]
    assert octave_sizes((8, 8), Settings(octaves=4)) == [(8, 8)]


def test_a_saved_model_dreams_as_it_did_before(tmp_path: Path) -> None:
    model = nested()
    model.save(tmp_path / "nested.keras")
    loaded = keras.saving.load_model(tmp_path / "nested.keras")
    first, again = (nameplate.dream(each, "backbone/conv2", steps=8) for each in (model, loaded))
    assert first.tobytes() == again.tobytes()
