"""What a data configuration refuses by itself, before TensorFlow is imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from nameplate.data.config import (
    DATA_SCHEMAS,
    ArraysConfig,
    CsvConfig,
    CustomDataConfig,
    DataConfig,
    DigitPairsConfig,
    DigitsConfig,
    ImageFolderConfig,
    RecordsConfig,
    Resident,
    SyntheticConfig,
    TableConfig,
)
from nameplate.data.specs import parse_feature

CONF = Path(__file__).resolve().parents[3] / "conf" / "data"
FEATURES = {"image": "image 8x8x1", "label": "int64"}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (DigitsConfig(validation=1.0), "data.validation: 1.0 is not a share; from 0 (none) to below 1"),
        (DigitsConfig(test=-0.5), "data.test: -0.5 is not a share"),
        (DigitsConfig(validation=0.6, test=0.4), "data.validation, data.test: 0.6 and 0.4 leave nothing"),
        (DigitsConfig(split_seed=-1), "data.split_seed: -1 is out of range"),
        (DigitsConfig(augment=["flop"]), "data.augment: no augmentation 'flop'"),
        (DigitsConfig(augment=["flop"]), "Did you mean 'flip'?"),
        (DigitsConfig(augment=["RandomFlop"]), "Did you mean 'RandomFlip'"),
        (
            DigitsConfig(augment=["flip", {"_target_": "RandomErasing", "factr": 1}]),
            "data.augment[1]: RandomErasing takes no 'factr'. Did you mean 'factor'?",
        ),
        (DigitsConfig(augment=["random_hue"]), "data.augment[0]: RandomHue needs factor; e.g. {_target_: RandomHue,"),
        (
            DigitsConfig(augment=[{"_target_": "RandomFlip", "mode": "diagonal"}]),
            "data.augment[0].mode: 'diagonal' is not one of horizontal, vertical, horizontal_and_vertical",
        ),
        (DigitsConfig(augment=["RandomShear"]), "data.augment[0]: RandomShear changes nothing without arguments"),
        (DigitsConfig(augment=["MixUp"]), "data.augment[0]: MixUp: it changes targets too"),
        (DigitsConfig(augment=[3]), "data.augment[0]: 3; write a name, or a name with arguments"),
        (DigitsConfig(augment=["shift:3"]), "the amount is a number between 0 and 1, e.g. 'shift:0.1'"),
        (DigitsConfig(augment=["flip:0.1"]), "flip takes no amount; write 'flip'"),
        (DigitsConfig(augment=["zoom", "zoom:0.2"]), "data.augment: 'zoom' is given twice"),
        (DigitsConfig(folds=1), "data.folds: 1 is too small; at least 2"),
        (DigitsConfig(folds=5, fold=5), "data.fold: 5 is out of range; 0 to 4"),
        (DigitsConfig(fold=1), "data.fold: 1 of how many? e.g. data.folds=5"),
        (DigitPairsConfig(folds=5), "data.folds: folds of pairs would share digits"),
        (CsvConfig(folds=5, validation_path="/v.csv"), "data.folds: data.validation_path is held out already"),
        (CsvConfig(group="patient"), "data.group: groups are kept together in folds; e.g. data.folds=5"),
        (CsvConfig(group="patient", folds=5, test=0.1), "data.test: a share would divide the groups of data.group"),
        (CsvConfig(group="a", values=["a"], folds=5), "the column 'a' is used twice"),
        (DigitPairsConfig(pairs=0), "data.pairs: 0 is out of range"),
        (ArraysConfig(), "data.path: required and not given; e.g. data.path=/data/train.npz"),
        (ArraysConfig(path="/none.npz"), "data.path: nothing at '/none.npz'; give an .npz file or a folder"),
        (ArraysConfig(path="/none.npz", test_path="/not"), "data.test_path: nothing at '/not'"),
        (ArraysConfig(inputs=[]), "data.inputs: empty; at least one key"),
        (ArraysConfig(classes={"z": 3}), "data.classes: 'z' is not a target; there are y."),
        (ImageFolderConfig(), "data.root: required and not given; e.g. data.root=/data/flowers"),
        (ImageFolderConfig(root="/x"), "data.root: no folder at '/x'; give a folder with"),
        (ImageFolderConfig(root=__file__), "data.root: a file at"),
        (ImageFolderConfig(root=__file__), "or a .zip"),
        (ImageFolderConfig(labels="labels.txt"), "data.labels: 'labels.txt' is not a table; .csv, .parquet"),
        (ImageFolderConfig(channels=2), "data.channels: 2 cannot be decoded; 1 (grey) or 3 (colour)"),
        (ImageFolderConfig(height=0), "data.height: 0 is too small"),
        (RecordsConfig(), "data.files: required and not given; e.g. 'data.files=[/data/train-*.tfrecord]'"),
        (RecordsConfig(), "data.features: required and not given; e.g. 'data.features={image: image 64x64x3"),
        (RecordsConfig(files=["/x/*.rec"]), "data.files: no file matches '/x/*.rec'"),
        (RecordsConfig(files=[]), "data.files: empty"),
        (RecordsConfig(features={"image": "jpeg"}), "data.features: image: 'jpeg' declares nothing known"),
        (RecordsConfig(features={"image": "image 8x8"}), "an image is height x width x channels"),
        (RecordsConfig(features={"imag": "int64"}), "data.inputs: 'image' is not a declared feature; there are imag."),
        (RecordsConfig(features=FEATURES), "data.classes: how many has 'label'? e.g. 'data.classes={label: 10}'"),
        (RecordsConfig(features=FEATURES, targets=["image"]), "data.targets: 'image' is 'image 8x8x1'"),
        (RecordsConfig(features=FEATURES, sample_weight="w"), "data.sample_weight: 'w' is not a declared feature"),
        (CsvConfig(), "data.path: required and not given; e.g. data.path=/data/table.csv"),
        (CsvConfig(path="/x.csv"), "data.path: no file at '/x.csv'"),
        (CsvConfig(), "data.classes, data.values: nothing to predict"),
        (CsvConfig(classes=["a"], values=["a"]), "the column 'a' is used twice"),
        (CsvConfig(delimiter="tab"), "data.delimiter: 'tab'; exactly one character"),
        (CsvConfig(path="/x.parquet"), "data.path: no file at '/x.parquet'"),
        (TableConfig(), "data.path: required and not given; e.g. data.path=/data/table.parquet"),
        (TableConfig(path="/x.arrow"), "data.path: no file at '/x.arrow'"),
        (TableConfig(path=__file__), "is not a table; .csv, .parquet, .arrow, .feather. data=csv reads any file as"),
        (SyntheticConfig(size=1), "data.size: 1 is out of range"),
        (SyntheticConfig(shape=[3, 0]), "data.shape: [3, 0] is not a shape"),
        (SyntheticConfig(inputs=["a", "a"]), "data.inputs: ['a', 'a']; needs at least one name, and each only once"),
        (SyntheticConfig(noise=-1), "data.noise: -1 is too small"),
        (CustomDataConfig(), "data._target_: required and not given; e.g. data._target_=pets.data trust=[pets]"),
        (CustomDataConfig(_target_="data"), "data._target_: 'data' names no module"),
        (CustomDataConfig(_target_="a/b.c"), "data._target_: 'a/b.c' is not a dotted name"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_a_problem_in_words(config: DataConfig, problem: str) -> None:
    assert any(problem in found for found in config.problems()), config.problems()


SOUND = [DigitsConfig(), DigitPairsConfig(), SyntheticConfig(), CustomDataConfig(_target_="a.b")]


@pytest.mark.parametrize("config", SOUND)
def test_sound_settings_have_no_problem(config: DataConfig) -> None:
    assert config.problems() == []


@pytest.mark.parametrize(
    ("arrays", "given", "problem"),
    [
        ({"x": np.ones(3)}, {}, "has no array 'y'; it has x."),
        ({"images": np.ones(3), "y": np.ones(3)}, {"inputs": ["image"]}, "Did you mean 'images'?"),
        ({"x": np.ones(3), "y": np.ones(4)}, {}, "differ in their number of examples: x 3, y 4"),
        ({"x": np.ones(3), "y": np.array(["a"] * 3)}, {}, "the array 'y' has dtype <U1"),
        ({"x": np.ones(()), "y": np.ones(3)}, {}, "the array 'x' has shape ()"),
    ],
)
def test_the_content_of_an_archive_is_known_without_reading_it(
    tmp_path: Path, arrays: dict[str, Any], given: dict[str, Any], problem: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    problems = ArraysConfig(path=str(tmp_path / "a.npz"), **given).problems()
    assert any(problem in found for found in problems), problems


def test_an_archive_that_was_cut_short_is_a_problem(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(100), y=np.ones(100))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:-50])
    (problem,) = ArraysConfig(path=str(tmp_path / "a.npz")).problems()
    assert "cannot be read: not an .npz archive, or cut short" in problem


@pytest.mark.parametrize(
    ("spec", "encoding", "dtype", "shape"),
    [
        ("int64", "fixed", "int64", ()),
        ("float32 2x3", "fixed", "float32", (2, 3)),
        ("uint8 28x28x1", "raw", "uint8", (28, 28, 1)),
        ("image 64x48x3", "image", "float32", (64, 48, 3)),
    ],
)
def test_a_feature_is_declared_in_one_string(spec: str, encoding: str, dtype: str, shape: tuple[int, ...]) -> None:
    feature = parse_feature(spec)
    assert (feature.encoding, feature.dtype, feature.shape) == (encoding, dtype, shape)


@pytest.mark.parametrize("option", sorted(DATA_SCHEMAS))
def test_each_option_has_a_file_that_begins_with_its_command_and_names_its_schema(option: str) -> None:
    text = (CONF / f"{option}.yaml").read_text()
    assert text.startswith(f"# python -m trainer data={option}")
    node: Any = OmegaConf.create(text)
    assert list(node.pop("defaults")) == [f"schema_{option}", "_self_"]
    assert set(node) <= {each.name for each in fields(DATA_SCHEMAS[option])}


def test_every_option_has_a_file_and_every_file_a_schema() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(DATA_SCHEMAS)


@pytest.mark.parametrize("option", sorted(DATA_SCHEMAS))
def test_a_schema_takes_values_as_the_command_line_gives_them(option: str) -> None:
    node = OmegaConf.structured(DATA_SCHEMAS[option])
    OmegaConf.set_readonly(node, False)
    node.resident = "always"  # as `data.resident=always` does
    assert node.resident is Resident.always
    assert "resident: always" in OmegaConf.to_yaml(node)
    node.resident = "NEVER"  # an older spelling
    assert node.resident is Resident.never


def test_problems_are_found_without_tensorflow() -> None:
    code = (
        "import sys; from nameplate.data.config import DATA_SCHEMAS\n"
        "for each in DATA_SCHEMAS.values(): each().problems()\n"
        "import nameplate.data; nameplate.data.DataError\n"
        "print([name for name in ('tensorflow', 'keras', 'hydra') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
