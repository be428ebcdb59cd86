from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from nameplate.data import DataError, data_error, open_dataset
from nameplate.data.config import ImageFolderConfig
from tests.nameplate.data.reading import piped, whole

COLOURS = {"blue": (0, 0, 255), "green": (0, 128, 0), "red": (255, 0, 0)}


def paint(path: Path, colour: tuple[int, int, int], *, mode: str = "RGB", size: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size + 3), colour).convert(mode).save(path)


def folder(root: Path, *, count: int = 4, names: tuple[str, ...] = tuple(COLOURS)) -> str:
    for name in names:
        for number in range(count):
            paint(root / name / f"{number}.png", COLOURS[name])
    return str(root)


def opened(root: object, **given: object) -> ImageFolderConfig:
    return ImageFolderConfig(root=str(root), height=6, width=5, **given)  # type: ignore[arg-type]


def test_the_folders_are_the_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = open_dataset(opened(folder(tmp_path), validation=0.0), seed=0)
    assert data.classes == {"label": ("blue", "green", "red")}
    assert data.outputs == {"label": 3}
    images, labels = whole(data.train)
    assert images.shape == (12, 6, 5, 3)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_allclose(image[0, 0] * 255, COLOURS[data.classes["label"][label]], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("file", "mode"),
    [
        ("a.jpg", "RGB"), ("a.JPEG", "L"), ("a.png", "RGBA"), ("a.png", "P"), ("a.png", "L"),
        ("a.gif", "P"), ("a.bmp", "RGB"), ("a.bmp", "RGBA"), ("a.bmp", "L"),
    ],
)  # fmt: skip
def test_each_format_is_read_with_the_channels_asked_for(tmp_path: Path, file: str, mode: str, channels: int) -> None:
    paint(tmp_path / "one" / file, (204, 204, 204), mode=mode)
    paint(tmp_path / "two" / "b.png", (0, 0, 0))
    data = open_dataset(opened(tmp_path, channels=channels, validation=0.0), seed=0)
    images, _ = whole(data.train)
    assert images.shape == (2, 6, 5, channels)
    np.testing.assert_allclose(images[0] * 255, 204, atol=2)  # JPEG and the weights of grey round


def test_the_pixels_are_those_of_the_file_in_any_order(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (6, 6, 5, 3)).astype(np.uint8)
    for number, each in enumerate(pixels):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(each).save(path)
    data = open_dataset(opened(tmp_path, validation=0.0), seed=0)
    of_file = [0, 2, 4, 1, 3, 5]
    images, labels = piped(data.train, [5, 0, 0, 3, 1])
    np.testing.assert_allclose(images, pixels[of_file][[5, 0, 0, 3, 1]] / np.float32(255), rtol=1e-6)
    assert labels.tolist() == [1, 0, 0, 1, 0]


def test_folders_for_train_val_and_test_are_the_parts(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val", count=2)
    folder(tmp_path / "test", count=1, names=("green", "red"))
    folder(tmp_path / "test", count=1, names=("blue",))
    data = open_dataset(opened(tmp_path), seed=0)
    assert [each.size for each in (data.train, data.validation, data.test)] == [12, 6, 3]


def test_a_held_out_part_may_lack_a_class_and_still_numbers_it_as_train_does(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val", names=("red",))
    data = open_dataset(opened(tmp_path), seed=0)
    assert set(whole(data.validation)[1].tolist()) == {2}


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_damaged_image_is_named(tmp_path: Path, place: int) -> None:
    source = open_dataset(opened(folder(tmp_path), validation=0.0), seed=0).train
    path = sorted(tmp_path.glob("*/*.png"))[place]
    path.write_bytes(path.read_bytes()[:40])
    for load in (whole, lambda each: each.load(tf.range(12, dtype=tf.int64))):
        with pytest.raises(tf.errors.OpError) as caught:
            load(source)
        assert f"1 damaged or missing images (JPEG, PNG, BMP and GIF can be read):\n  {path}" == str(
            data_error(caught.value)
        )


def test_all_damaged_and_missing_images_of_a_batch_are_named(tmp_path: Path) -> None:
    source = open_dataset(opened(folder(tmp_path), validation=0.0), seed=0).train
    paths = sorted(tmp_path.glob("*/*.png"))[:3]
    paths[0].write_bytes(b"")
    paths[1].write_text("an é and a 'quote'")
    paths[2].unlink()
    with pytest.raises(tf.errors.OpError) as caught:
        piped(source, [0, 1, 2])
    assert [line.strip() for line in str(data_error(caught.value)).splitlines()[1:]] == [str(p) for p in paths]


def test_what_is_no_data_set_is_refused_with_what_was_found(tmp_path: Path) -> None:
    folder(tmp_path, names=("red",))
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    with pytest.raises(DataError) as caught:
        open_dataset(opened(tmp_path), seed=0)
    message = str(caught.value)
    assert f"{tmp_path / 'empty'} has no image (.jpg, .jpeg, .png, .bmp, .gif); it has no files" in message
    assert "it has 1 files .txt" in message


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "has no folders, and so no classes; it has no files"), (("red",), "has only one class, 'red'")],
)
def test_a_folder_without_two_classes_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(opened(folder(tmp_path, names=names)), seed=0)


def test_a_class_that_train_has_not_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "train", names=("red", "green"))
    folder(tmp_path / "val")
    with pytest.raises(DataError, match="the class 'blue' of validation is not among the classes of train"):
        open_dataset(opened(tmp_path), seed=0)
