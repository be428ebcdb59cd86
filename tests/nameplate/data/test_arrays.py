from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate.data import DataError, Field, open_dataset
from nameplate.data.config import ArraysConfig
from tests.nameplate.data.reading import piped, whole

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (20, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 5
PRICES = RANDOM.standard_normal((20, 2))


def saved(folder: Path, name: str = "data.npz", **arrays: Any) -> str:
    np.savez(folder / name, **arrays)
    return str(folder / name)


def test_one_input_and_one_target_come_bare_and_whole(tmp_path: Path) -> None:
    data = open_dataset(ArraysConfig(path=saved(tmp_path, x=IMAGES, y=LABELS), validation=0.0), seed=0)
    assert data.inputs == {"x": Field((4, 4, 1), "uint8")}
    assert (data.outputs, data.kinds) == ({"y": 5}, {"y": "classes"})
    images, labels = whole(data.train)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64


def test_several_inputs_targets_and_weights_go_by_their_keys(tmp_path: Path) -> None:
    weight = np.linspace(0, 1, 20)
    path = saved(tmp_path, a=IMAGES, b=PRICES, kind=LABELS[:, None], price=PRICES, w=weight)
    config = ArraysConfig(path=path, inputs=["b", "a"], targets=["kind", "price"], sample_weight="w", scale=1 / 255)
    data = open_dataset(config, seed=0)
    assert list(data.inputs) == ["b", "a"]
    assert data.outputs == {"kind": 5, "price": 2}
    assert data.kinds == {"kind": "classes", "price": "values"}
    x, y, w = whole(open_dataset(ArraysConfig(**{**vars(config), "validation": 0.0}), seed=0).train)
    np.testing.assert_allclose(x["a"], IMAGES / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(y["kind"], LABELS)
    np.testing.assert_array_equal(y["price"], PRICES.astype(np.float32))
    np.testing.assert_array_equal(w, weight.astype(np.float32))


def test_a_folder_of_npy_files_stays_on_the_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", LABELS)
    data = open_dataset(ArraysConfig(path=str(tmp_path), scale=1 / 255), seed=0)
    assert data.train.arrays() is None
    order = [3, 17, 3, 0]
    images, labels = piped(data.train, order)
    held = open_dataset(ArraysConfig(path=saved(tmp_path, x=IMAGES, y=LABELS), scale=1 / 255), seed=0)
    np.testing.assert_array_equal(images, held.train.arrays()[0][order])
    np.testing.assert_array_equal(labels, held.train.arrays()[1][order])


def test_files_of_their_own_validate_and_test(tmp_path: Path) -> None:
    train = saved(tmp_path, x=IMAGES, y=LABELS)
    held = saved(tmp_path, "held.npz", x=IMAGES[:6], y=LABELS[:6] + 2)
    data = open_dataset(ArraysConfig(path=train, validation_path=held, test_path=held), seed=0)
    assert (data.train.size, data.validation.size, data.test.size) == (20, 6, 6)
    assert data.outputs == {"y": 7}  # the largest label of all files counts


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (LABELS.astype(int) - 1, {}, r"'y' has the label -1; 4 classes have the labels 0 to 3"),
        (LABELS, {"y": 3}, r"'y' has the label 4; 3 classes have the labels 0 to 2"),
        (np.zeros(20, int), {}, r"'y' has only one class"),
    ],
)
def test_labels_that_are_no_class_are_refused(
    tmp_path: Path, labels: np.ndarray, classes: dict[str, int], message: str
) -> None:
    config = ArraysConfig(path=saved(tmp_path, x=IMAGES, y=labels), classes=classes)
    with pytest.raises(DataError, match=message):
        open_dataset(config, seed=0)


def test_parts_of_another_form_are_refused(tmp_path: Path) -> None:
    train = saved(tmp_path, x=IMAGES, y=LABELS)
    held = saved(tmp_path, "held.npz", x=IMAGES[:, :, 0], y=LABELS)
    message = r"validation are uint8 \(4, 1\), int64 \(\), and the training examples are uint8 \(4, 4, 1\)"
    with pytest.raises(DataError, match=message):
        open_dataset(ArraysConfig(path=train, validation_path=held), seed=0)


def test_b3_parts_may_have_another_size(tmp_path: Path) -> None:
    train, held = saved(tmp_path, x=IMAGES, y=LABELS), saved(tmp_path, "held.npz", x=IMAGES[:, :2], y=LABELS)
    opened = open_dataset(ArraysConfig(path=train, validation_path=held), seed=0)
    assert opened.validation is not None
    assert opened.validation.spec()[0].shape == (2, 4, 1)


def test_names_that_no_layer_may_have_are_refused_together(tmp_path: Path) -> None:
    path = saved(tmp_path, "data.npz", **{"a b": IMAGES}, y=PRICES, Y=LABELS)
    with pytest.raises(DataError) as caught:
        open_dataset(ArraysConfig(path=path, inputs=["a b", "y"], targets=["Y"]), seed=0)
    assert "'a b' cannot name an input" in str(caught.value)
    assert "'y' names two inputs or outputs" in str(caught.value)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, x=IMAGES, y=np.array([{}] * 20, object))
    problems = ArraysConfig(path=path).problems()
    assert problems == ["data.path: the array 'y' has dtype object; numbers or truth values are needed"]
