"""Images whose classes a table says, and images in a zip file."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import DataError, data_error, open_dataset
from nameplate.data.config import ImageFolderConfig
from nameplate.data.image_tree import Archive
from tests.nameplate.data.reading import piped, whole
from tests.nameplate.data.test_image_folder import COLOURS, folder, opened, paint
from tests.nameplate.formats import bombs


def zipped(root: Path, path: Path, *, inside: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, inside + file.relative_to(root).as_posix())
    return path


def write_table(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("file", "label")) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def same(one: Any, other: Any) -> None:
    for left, right in zip(whole(one), whole(other), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("inside", ["", "flowers/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_images_is_the_folder_that_was_zipped(tmp_path: Path, inside: str, compression: int) -> None:
    root = tmp_path / "images"
    folder(root)
    (root / "notes.txt").write_text("not an image")
    path = zipped(root, tmp_path / "a.zip", inside=inside, compression=compression)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._0.png", b"")
        archive.writestr(f"{inside}red/.hidden.png", b"")
    one, other = (open_dataset(opened(place, validation=0.25), seed=0) for place in (path, root))
    assert (one.classes, one.outputs) == (other.classes, other.outputs)
    same(one.train, other.train)
    same(one.validation, other.validation)
    images, labels = piped(one.train, [3, 0, 3])
    np.testing.assert_array_equal(images[0], images[2])
    assert labels[0] == labels[2]
    assert not [each for each in tmp_path.iterdir() if each not in (root, path)]  # nothing is unpacked


def test_a_zip_may_have_folders_for_the_parts(tmp_path: Path) -> None:
    folder(tmp_path / "images" / "train")
    folder(tmp_path / "images" / "val", count=1)
    data = open_dataset(opened(zipped(tmp_path / "images", tmp_path / "a.zip")), seed=0)
    assert (data.train.size, data.validation.size if data.validation else 0, data.test) == (12, 3, None)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    folder(tmp_path / "images")
    path = zipped(tmp_path / "images", tmp_path / "a.zip", compression=zipfile.ZIP_STORED)
    source = open_dataset(opened(path, validation=0.0), seed=0).train
    content = bytearray(path.read_bytes())
    at = content.index(b"green/1.png") + 60
    content[at : at + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(tf.errors.OpError) as caught:
        whole(source)
    message = str(data_error(caught.value))
    assert "1 damaged or missing images" in message
    assert f"{path}/green/1.png" in message
    with pytest.raises(DataError, match="the checksum of the member does not match"):
        Archive(path).read("green/1.png")


def slipping(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", b"x")
        archive.writestr(name, b"x")
    return path


def linked(path: Path) -> Path:
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def grown(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            bombs.zeros(archive, f"a/{number}.png", 60 << 20)
    return path


def squeezed(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a/1.png", b"x" * 1000)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(slipping(path, "a/2.png").read_bytes()[:-30])
    return path


def claiming(path: Path) -> Path:
    bombs.many_members(path, 60_000)
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a path that leaves it": (
        lambda path: slipping(path, "../../b.png"),
        "looks like a path that leaves its dir",
    ),
    "an absolute path": (lambda path: slipping(path, "/tmp/b.png"), "looks like a path that leaves its dir"),
    "a link": (linked, "is a link"),
    "a bomb": (grown, r"would grow to \d+ or more"),
    "another compression": (squeezed, "a/1.png is neither stored nor deflated; zip it as usual"),
    "cut short": (cut, "cannot be read as a .zip file"),
    "no image": (claiming, "has no image"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_zip_that_is_no_set_of_images_is_refused(tmp_path: Path, case: str) -> None:
    make, message = HOSTILE[case]
    with pytest.raises(DataError, match=message):
        open_dataset(opened(make(tmp_path / "a.zip")), seed=0)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Return a folder of images without folders for classes, and a table of their classes beside them."""
    root = tmp_path / "flat"
    rows = []
    for number in range(9):
        name = list(COLOURS)[number % 3]
        paint(root / "images" / f"{number}.png", COLOURS[name])
        rows.append([f"images/{number}.png", name])
    write_table(root / "labels.csv", rows[::-1])
    return root


def labelled(root: object, **given: Any) -> ImageFolderConfig:
    return opened(root, **{"labels": "labels.csv", "validation": 0.0} | given)


def test_a_table_says_the_class_of_each_image(flat: Path, tmp_path: Path) -> None:
    paint(flat / "images" / "unused.png", (0, 0, 0))
    data = open_dataset(labelled(flat), seed=0)
    assert data.classes == {"label": ("blue", "green", "red")}
    assert data.notes == (f"1 images in {flat} are not in labels.csv and not used",)
    images, labels = whole(data.train)
    assert labels.tolist() == [2, 1, 0] * 3  # in the order of the table
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_allclose(image[0, 0] * 255, COLOURS[data.classes["label"][label]], atol=1e-4)
    same(open_dataset(labelled(zipped(flat, tmp_path / "flat.zip", inside="flat/")), seed=0).train, data.train)
    beside = tmp_path / "elsewhere.csv"
    write_table(beside, [[f"images/{number}.png", "ab"[number % 2]] for number in range(4)], ("path", "kind"))
    data = open_dataset(labelled(flat, labels=str(beside), file_column="path", label_column="kind"), seed=0)
    assert (data.train.size, data.classes["label"]) == (4, ("a", "b"))


@pytest.mark.parametrize("tables", ["one for all", "one a part"])
def test_tables_divide_as_folders_do(tmp_path: Path, tables: str) -> None:
    rows = []
    for part, count in (("train", 4), ("val", 2)):
        for number in range(count):
            paint(tmp_path / part / f"{number}.png", (0, 0, 0))
            rows.append([f"{part}/{number}.png", "ab"[number % 2]])
    if tables == "one for all":
        write_table(tmp_path / "labels.csv", rows)
    else:
        for part in ("train", "val"):
            write_table(tmp_path / part / "labels.csv", [[file[len(part) + 1 :], name] for file, name in rows
                                                          if file.startswith(part)])  # fmt: skip
    data = open_dataset(labelled(tmp_path), seed=0)
    assert whole(data.train)[1].tolist() == [0, 1, 0, 1]
    assert whole(data.validation)[1].tolist() == [0, 1]  # type: ignore[arg-type]


WRONG: dict[str, tuple[list[list[str]], dict[str, Any], str]] = {
    "no such file": (
        [["images/0.png", "a"], ["image/1.png", "b"]],
        {},
        "no image 'image/1.png'. Did you mean 'ima",
    ),
    "outside": ([["images/0.png", "a"], ["../../x.png", "b"]], {}, "has no image '../../x.png'"),
    "twice": ([["images/0.png", "a"], ["images/0.png", "b"]], {}, "1 images are listed twice: 'images/0.png'"),
    "one class": ([["images/0.png", "a"], ["images/1.png", "a"]], {}, "has only the class 'a'; there is nothing to"),
    "no column": ([["images/0.png", "a"]], {"label_column": "lable"}, "no column 'lable'; it has file, label. Did you"),
    "no table": ([], {"labels": "lables.csv"}, "data.labels: no table 'lables.csv' in .*flat; it has 1 files .csv, 9"),
    "no label": ([["images/0.png", ""]], {}, "the column 'label' has no value in line 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_does_not_fit_the_images_is_refused(flat: Path, case: str) -> None:
    rows, given, message = WRONG[case]
    write_table(flat / "labels.csv", rows)
    with pytest.raises(DataError, match=message):
        open_dataset(labelled(flat, **given), seed=0)


def test_a_folder_without_classes_names_the_table_beside_its_images(tmp_path: Path) -> None:
    paint(tmp_path / "0.png", (0, 0, 0))
    write_table(tmp_path / "classes.csv", [["0.png", "a"]])
    with pytest.raises(DataError, match=r"has no folders, and so no classes; .*; data.labels=classes.csv reads"):
        open_dataset(opened(tmp_path), seed=0)
