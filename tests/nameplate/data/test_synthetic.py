from __future__ import annotations

from typing import Any

import numpy as np

from nameplate.data import open_dataset
from nameplate.data.config import SyntheticConfig
from nameplate.data.synthetic import Synthetic
from tests.nameplate.data.reading import piped


def made(seed: int = 0, **given: Any) -> Any:
    usual: dict[str, Any] = {"size": 600, "shape": [4, 4, 2], "classes": 3}
    return Synthetic(SyntheticConfig(**usual | given), seed=seed)


def test_loading_gives_what_the_arrays_hold() -> None:
    source = made(inputs=["a", "b"], outputs=["u", "v"])
    order = [599, 0, 7, 7, 300]
    x, y = piped(source, order)
    held_x, held_y = source.arrays()
    for name in ("a", "b"):
        # TensorFlow's optimizer adds in another order than it was asked to: the last bits differ.
        np.testing.assert_allclose(x[name], held_x[name][order], rtol=1e-5, atol=1e-6)
    for name in ("u", "v"):
        np.testing.assert_array_equal(y[name], held_y[name][order])


def test_an_example_depends_on_the_seed_and_its_number_alone() -> None:
    images, labels = made().arrays()
    more, more_labels = made(size=1000).arrays()
    np.testing.assert_array_equal(images, more[:600])
    np.testing.assert_array_equal(labels, more_labels[:600])
    assert not np.array_equal(images, made(seed=1).arrays()[0])


def test_the_classes_are_even_and_can_be_told_apart() -> None:
    images, labels = made().arrays()
    assert np.bincount(labels).min() > 150
    flat = images.reshape(len(images), -1)
    centres = np.stack([flat[:300][labels[:300] == each].mean(0) for each in range(3)])
    nearest = np.argmin(((flat[300:, None] - centres) ** 2).sum(-1), axis=1)
    assert (nearest == labels[300:]).mean() > 0.9


def test_the_noise_has_the_deviation_asked_for() -> None:
    images, labels = made(noise=0.5, shape=[16, 16, 3]).arrays()
    spread = images[labels == 0] - images[labels == 0].mean(0)
    np.testing.assert_allclose(spread.std(), 0.5, rtol=0.03)  # sampled: a bank of 61 images


def test_content_that_is_too_much_for_the_memory_is_made_as_it_is_needed() -> None:
    source = made(size=10**6, shape=[64, 64, 3])
    assert source.arrays() is None
    assert piped(source, [999_999])[0].shape == (1, 64, 64, 3)


def test_the_data_set_holds_out_its_share() -> None:
    data = open_dataset(SyntheticConfig(size=100, inputs=["left", "right"], outputs=["a", "b"]), seed=0)
    assert (data.train.size, data.validation.size) == (90, 10)
    assert list(data.inputs) == ["left", "right"]
    assert data.outputs == {"a": 10, "b": 10}
