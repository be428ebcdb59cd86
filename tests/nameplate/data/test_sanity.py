"""What looks wrong with data is said before it is trained on, with the key that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from nameplate.data import DataError, examples, open_dataset, standardized
from nameplate.data.adapters import as_source
from nameplate.data.config import ImageFolderConfig, TableConfig
from nameplate.data.sanity import findings, typos
from nameplate.data.tables import table_inputs
from tests.nameplate.data.reading import whole
from tests.nameplate.data.test_image_folder import folder
from tests.nameplate.data.test_user_data import X, Y

NUMBERS = np.random.default_rng(0)
PIXELS = NUMBERS.integers(0, 256, (70, 4, 4, 1))


def network(*first: keras.Layer, shape: tuple[int, ...] = (4, 4, 1)) -> keras.Model:
    flat, label = keras.layers.Flatten(name="flat"), keras.layers.Dense(2, name="label")
    return keras.Sequential([keras.Input(shape, name="image"), *first, flat, label], name="net")


class Indexed:
    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int) -> Any:
        return PIXELS[index].astype("float32"), index % 2


def test_pixels_of_0_to_255_into_a_model_that_does_not_scale_them_are_reported() -> None:
    for data in ((PIXELS.astype("float32"), PIXELS[:, 0, 0, 0] % 2), (PIXELS.astype("uint8"), np.arange(70) % 2)):
        (line,) = findings(as_source(data), network(), input_name="image")
        assert line.startswith(
            "'image' holds values from 0 to 255, and the model scales none of its inputs: data.stand"
        )
    (line,) = findings(examples(Indexed()), network())
    assert "'x' holds values from" in line
    assert not list(findings(examples(Indexed()), network(), reads=False))


SCALED: dict[str, Callable[[], keras.Model]] = {
    "rescaling": lambda: network(keras.layers.Rescaling(1 / 255, name="scale")),
    "batch normalization": lambda: network(keras.layers.BatchNormalization(name="norm")),
    "standardized": lambda: standardized(network(), PIXELS.astype("float32")),
}


@pytest.mark.parametrize("model", SCALED)
def test_a_model_that_scales_is_given_pixels(model: str) -> None:
    assert not list(findings(as_source((PIXELS.astype("float32"), np.arange(70) % 2)), SCALED[model]()))


def test_small_values_and_tokens_are_no_reason() -> None:
    assert not list(findings(as_source((X, Y)), network(shape=(4,))))
    tokens = (NUMBERS.integers(0, 3000, (40, 5)), np.arange(40) % 2)
    assert not list(findings(as_source(tokens), network(shape=(5,))))


def test_one_class_only_is_reported_by_its_name(tmp_path: Path) -> None:
    (line,) = findings(as_source((X, np.ones(37, int))), network(shape=(4,)), classes={"y": ("dog", "cat")})
    assert line == "all 37 training examples have the class 'cat' of 'y': nothing can be learned"
    root = folder(tmp_path, count=6)
    first = open_dataset(ImageFolderConfig(root=root, height=4, width=4, validation=0.0, limit=5), seed=0)
    (line,) = findings(first.train, network(shape=(4, 4, 3)), classes=first.classes, target="label")
    assert line.startswith("all 5 training examples have the class 'blue' of 'label'")


TYPOS: dict[str, tuple[dict[str, int], list[tuple[str, str]]]] = {
    "exchanged letters": ({"high": 120, "hgih": 1, "low": 90}, [("hgih", "high")]),
    "a capital and a space": ({"high risk": 120, "High  risk": 2, "low": 90}, [("High  risk", "high risk")]),
    "two errors in a long word": ({"versicolor": 50, "vericolour": 1}, [("vericolour", "versicolor")]),
    "a rare word of its own": ({"high": 120, "mid": 1, "low": 90}, []),
    "not rare": ({"cats": 120, "bats": 40}, []),
    "numbers": ({"2018": 500, "2019": 1, "v1": 200, "v2": 1, "10": 100, "1": 1}, []),
    "short words": ({"no": 500, "on": 1, "a": 100, "b": 1}, []),
    "a hundredth": ({"high": 12_000, "hihg": 90}, [("hihg", "high")]),
}


@pytest.mark.parametrize("case", TYPOS)
def test_a_rare_class_that_looks_like_a_frequent_one_is_asked_about(case: str) -> None:
    counts, expected = TYPOS[case]
    lines = typos(counts, "the class", confirmed={})
    assert len(lines) == len(expected)
    for line, (rare, word) in zip(lines, expected, strict=True):
        assert f"the class {rare!r}" in line
        assert f"'data.spelling={{{rare}: {word}}}' merges them, '{{{rare}: {rare}}}' confirms it" in line
        assert not typos(counts, "the class", confirmed={rare: rare})


def table(path: Path) -> str:
    labels = ["high"] * 60 + ["low"] * 60 + ["hgih"]
    colours = ["red"] * 80 + ["blue"] * 40 + ["rde"]
    rows = {"x": np.arange(121.0), "colour": colours, "label": labels}
    parquet.write_table(pyarrow.table(rows), path)
    return str(path)


def opened(path: str, **given: Any) -> Any:
    config = TableConfig(path=path, classes=["label"], categories=["colour"], validation=0.0, **given)
    assert config.problems() == []
    return open_dataset(config, seed=0)


def test_misspelt_classes_and_categories_of_a_table_are_merged_on_request_only(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet")
    data = opened(path)
    assert data.classes == {"label": ("hgih", "high", "low")}
    assert len(data.notes) == 2
    assert "the class of 'label' 'hgih' (1 example) looks like 'high' (60)" in data.notes[0]
    assert "the category of 'colour' 'rde' (1 example) looks like 'red' (80)" in data.notes[1]
    merged = opened(path, spelling={"hgih": "high", "rde": "red"})
    assert (merged.classes, merged.categories) == ({"label": ("high", "low")}, {"colour": ("blue", "red")})
    assert merged.notes == ()
    assert np.bincount(whole(merged.train)[1]).tolist() == [61, 60]
    confirmed = opened(path, spelling={"hgih": "hgih", "rde": "rde"})
    assert (confirmed.classes, confirmed.notes) == (data.classes, ())
    found = table_inputs(Path(path), ["x", "colour"], categories=merged.categories, spelling={"rde": "red"})
    assert found["colour"][-1].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no class or category is called 'hgi'. Did you mean 'hgih'"):
        opened(path, spelling={"hgi": "high"})


def test_a_misspelt_class_of_a_validation_table_names_its_neighbour_and_the_key(tmp_path: Path) -> None:
    for name, label in (("a", "low"), ("b", "hihg")):
        rows = {"x": [1.0, 2.0], "colour": ["red", "blue"], "label": ["high", label]}
        parquet.write_table(pyarrow.table(rows), tmp_path / f"{name}.parquet")
    given: dict[str, Any] = {"validation_path": str(tmp_path / "b.parquet")}
    with pytest.raises(DataError, match=r"does not: hihg. Did you mean 'high'. data.spelling merges values"):
        opened(str(tmp_path / "a.parquet"), **given)
    assert opened(str(tmp_path / "a.parquet"), **given, spelling={"hihg": "high"}).validation.size == 2


def test_misspelt_folders_are_merged_on_request_only(tmp_path: Path) -> None:
    root = folder(tmp_path, count=40)
    folder(tmp_path, count=1, names=("blue",))
    (tmp_path / "bule").mkdir()
    (tmp_path / "blue" / "9.png").rename(tmp_path / "bule" / "1.png")
    given: dict[str, Any] = {"root": root, "height": 4, "width": 4, "validation": 0.0}
    data = open_dataset(ImageFolderConfig(**given), seed=0)
    assert data.outputs == {"label": 4}
    assert "the class 'bule' (1 example) looks like 'blue' (39)" in data.notes[0]
    merged = open_dataset(ImageFolderConfig(**given, spelling={"bule": "blue"}), seed=0)
    assert (merged.classes["label"], merged.notes) == (("blue", "green", "red"), ())
    assert np.bincount(whole(merged.train)[1]).tolist() == [40, 40, 40]
    with pytest.raises(DataError, match="only the class 'red' is left"):
        open_dataset(ImageFolderConfig(**given, spelling=dict.fromkeys(["bule", "blue", "green"], "red")), seed=0)
