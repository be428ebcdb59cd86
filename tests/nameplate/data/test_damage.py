"""Every damaged example is found, by its name and with a reason, and can be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import DataError, damaged, examples, open_dataset, without
from tests.nameplate.data.reading import whole
from tests.nameplate.data.test_image_folder import folder, opened
from tests.nameplate.data.test_image_forms import zipped
from tests.nameplate.data.test_user_data import Rows, X, Y


def failing(index: int, row: dict[str, Any]) -> Any:
    if index in (3, 30):
        raise OSError(f"picture {index} is cut short")
    return row | {"x": X[0, :3]} if index == 36 else row


def with_nan(index: int) -> tuple[np.ndarray, np.ndarray]:
    x = X.copy()
    x[index, 1] = np.nan
    return x, Y


FOUND: dict[str, tuple[Callable[[], Any], list[tuple[int, str]]]] = {
    "nothing": (lambda: (X, Y), []),
    "examples that raise, and of another form": (
        lambda: examples(Rows(failing), inputs="x", targets="y"),
        [
            (3, "OSError: picture 3 is cut short"),
            (30, "OSError: picture 30 is cut short"),
            (36, "example 36 of a Rows is (float32 (3,)"),
        ],
    ),
    "NaN in memory": (lambda: with_nan(7), [(7, "has NaN or infinite values")]),
    "NaN by index": (
        lambda: examples(
            Rows(lambda index, row: row | {"x": X[index] * (np.inf if index == 9 else 1)}), inputs="x", targets="y"
        ),
        [(9, "has NaN or infinite values")],
    ),
    "labels": (lambda: (X, np.where(np.arange(37) == 5, -1, Y)), [(5, "has a label outside the classes 0 to 2")]),
}


@pytest.mark.parametrize("case", FOUND)
def test_every_damaged_example_is_found(case: str) -> None:
    make, expected = FOUND[case]
    counts: list[tuple[int, int]] = []
    found = damaged(make(), classes={"label": 3}, report=lambda done, total: counts.append((done, total)))
    assert [each.index for each in found] == [index for index, _ in expected]
    for damage, (_, why) in zip(found, expected, strict=True):
        assert why in damage.why
        assert damage.name == f"example {damage.index}"
    assert {total for _, total in counts} <= {37}


NAMES = ["blue/3.png", "green/5.png", "red/7.png"]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_damaged_images_are_called_by_their_paths(tmp_path: Path, form: str) -> None:
    root = tmp_path / "images"
    folder(root, count=20)
    (root / "blue" / "3.png").write_bytes(b"")
    (root / "green" / "5.png").write_text("no picture")
    cut = root / "red" / "7.png"
    cut.write_bytes(cut.read_bytes()[:40])
    place = root if form == "folder" else zipped(root, tmp_path / "a.zip")
    data = open_dataset(opened(place, validation=0.2, validation_limit=11), seed=0)
    parts = [part for part in (data.train, data.validation) if part is not None]
    found = [damage for part in parts for damage in damaged(part)]
    assert sorted(each.name.removeprefix(f"{place}/") for each in found) == NAMES
    reasons = {each.name.rsplit("/", 1)[1]: each.why for each in found}
    assert "empty" in reasons["3.png"].casefold()
    assert "Unknown image file format" in reasons["5.png"]
    assert reasons["7.png"]
    assert "{{" not in "".join(reasons.values())
    for part in parts:
        left = without(part, damaged(part))
        assert left.size == part.size - len(damaged(part))
        whole(left)


def test_what_is_left_out_keeps_the_order_of_the_rest() -> None:
    left = without((X, Y), [2, 36])
    np.testing.assert_array_equal(whole(left)[0], np.delete(X, [2, 36], axis=0))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a stream": (
        lambda: damaged(tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)),
        "damaged: the examples of a stream come one after another",
    ),
    "an index too many": (lambda: without((X, Y), [37]), "the examples are 0 to 36, and 37 is not one of them"),
    "all": (lambda: without((X, Y), list(range(37))), "all 37 examples are damaged; none are left"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_checked_is_refused(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        call()
