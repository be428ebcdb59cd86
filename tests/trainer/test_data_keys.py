"""The keys of `data` that hold for every kind of data, in whole runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nameplate
from nameplate.data.registry import open_dataset
from nameplate.errors import NameplateError
from nameplate.section import ConfigError
from tests.nameplate.data.test_image_folder import folder
from tests.trainer.running import assert_same, content, train
from trainer.cli import evaluate, predict
from trainer.config import run_config
from trainer.job.model import rebuild

SMALL = ["model=mlp", "model.hidden=[8]", "optimizer.learning_rate=0.01"]
NUMBERS = np.random.default_rng(0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table in which no column has the mean 0 and the variance 1."""
    path = tmp_path_factory.mktemp("table") / "t.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "income", "colour", "label"])
        for _ in range(120):
            age, income = NUMBERS.normal(40, 10), NUMBERS.normal(30_000, 9_000)
            rows.writerow([age, income, "red" if age > 40 else "blue", "high" if income > 30_000 else "low"])
    return path


def keys(table: Path) -> list[str]:
    return ["data=table", f"data.path={table}", "data.classes=[label]", "data.categories=[colour]"]


def test_a_run_scales_numbers_by_its_training_part_and_keeps_the_statistics(
    strategy: Any, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*SMALL, *keys(table), "data.standardize=true"]
    train(tmp_path, *given, "run=cut", "fit.steps=7")
    with pytest.MonkeyPatch.context() as patch:  # statistics are weights: a resume does not compute them
        patch.setattr("trainer.run.moments_of_run", None)
        train(tmp_path, *given, "run=cut", "fit.steps=12")
    report = train(tmp_path, *given, "run=whole", "fit.steps=12")
    assert_same(content(tmp_path / "cut"), content(tmp_path / "whole"))
    assert "features_normalization: 4 features by the training data, means 0 to " in capsys.readouterr().out
    dataset = open_dataset(run_config(given).data, seed=0)
    x: np.ndarray = dataset.train.arrays()[0].astype("float64")  # type: ignore[union-attr, index]
    held = content(tmp_path / "whole")
    np.testing.assert_allclose(held["weights:features_normalization/mean"], [*x.mean(0)[:2], 0, 0], rtol=1e-6)
    np.testing.assert_allclose(held["weights:features_normalization/variance"], [*x.var(0)[:2], 1, 1], rtol=1e-6)
    assert report.model is not None
    inputs = dataset.validation.arrays()[0]  # type: ignore[union-attr, index]
    with strategy.scope():
        again = rebuild(str(tmp_path / "whole" / "latest")).model
    expected = nameplate.load(tmp_path / "whole", which="latest").predict(inputs, verbose=0)
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), expected)
    assert evaluate.main([str(tmp_path / "whole")]) == 0
    assert predict.main([str(tmp_path / "whole"), str(table), "--to", str(tmp_path / "p.csv")]) == 0


def test_each_column_that_is_an_input_is_scaled_and_a_category_is_not(table: Path, tmp_path: Path) -> None:
    train(tmp_path, "model=custom", "model._target_=tests.trainer.test_data_keys.three", "trust=[tests]", *keys(table),
          "data.named=true", "data.standardize=true", "run=named", "fit.steps=2")  # fmt: skip
    names = [name for name in content(tmp_path / "named") if name.endswith("/mean")]
    assert names == ["weights:age_normalization/mean", "weights:income_normalization/mean"]


def three(inputs: dict[str, Any], classes: int) -> Any:
    import keras

    ports = {name: keras.Input(shape, name=name) for name, shape in inputs.items()}
    both = keras.layers.Concatenate(name="both")(list(ports.values()))
    return keras.Model(ports, keras.layers.Dense(classes, name="label")(both), name="three")


SCALING: dict[str, tuple[list[str], type[Exception], str]] = {
    "subclassed": (
        ["model=subclassed", "data.standardize=true"],
        ConfigError,
        "data.standardize: .* cannot be edited.*choose another model",
    ),
    "changed": (
        ["model=mlp", "run=scaled", "data.standardize=false"],
        NameplateError,
        "image_normalization/mean: only in the ch",
    ),
    "twice": (
        ["model=file", "model.path={runs}/scaled", "data.standardize=true"],
        ConfigError,
        "the model scales its inputs already, in image_normalization; data.standardize=false",
    ),
}


@pytest.mark.parametrize("case", SCALING)
def test_scaling_that_is_not_possible_is_refused(case: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    runs = tmp_path_factory.getbasetemp() / "scaling"
    if not runs.exists():
        train(runs, "model=mlp", "data.standardize=true", "run=scaled", "fit.steps=1")
    overrides, kind, message = SCALING[case]
    with pytest.raises(kind, match=f"(?s){message}"):
        train(runs, "fit.steps=1", *(each.format(runs=runs) for each in overrides))


def test_weights_of_a_scaled_run_bring_their_statistics(table: Path, tmp_path: Path) -> None:
    given = [*SMALL, *keys(table), "data.standardize=true", "fit.steps=1"]
    train(tmp_path, *given, "run=first")
    train(tmp_path, *given, "data.limit=20", "run=next", "init=checkpoint", f"init.path={tmp_path / 'first'}")
    first, after = (content(tmp_path / run)["weights:features_normalization/mean"] for run in ("first", "next"))
    np.testing.assert_array_equal(first, after)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Return the keys of a folder of images of which two are damaged."""
    root = tmp_path / "pictures"
    folder(root, count=12)
    (root / "blue" / "3.png").write_bytes(b"")
    (root / "red" / "5.png").write_text("no picture")
    return [*SMALL, "data=image_folder", f"data.root={root}", "data.height=6", "data.width=6"]


def test_all_damaged_examples_are_refused_before_training(pictures: list[str], tmp_path: Path) -> None:
    with pytest.raises(NameplateError) as caught:
        train(tmp_path, *pictures, "data.check=true", "run=refused")
    message = str(caught.value)
    for part in (
        "blue/3.png: ",
        "red/5.png: Unknown image file format",
        "data.on_damaged=skip",
        "of the 32 examples of",
    ):
        assert part in message
    assert not list((tmp_path / "refused").glob("checkpoints/step*"))


def test_damaged_examples_are_skipped_alike_when_the_run_resumes(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*pictures, "data.on_damaged=skip"]
    train(tmp_path, *given, "run=cut", "fit.steps=5")
    assert (
        f"data: skipping 2 damaged of 36 examples, listed in {tmp_path / 'cut' / 'damaged.json'}"
        in capsys.readouterr().out
    )
    with pytest.MonkeyPatch.context() as patch:  # the list is read, and the examples are not
        patch.setattr("nameplate.training.damaged_data.damaged", None)
        train(tmp_path, *given, "run=cut", "fit.steps=11")
    train(tmp_path, *given, "run=whole", "fit.steps=11")
    assert_same(content(tmp_path / "cut"), content(tmp_path / "whole"))
    assert evaluate.main([str(tmp_path / "whole"), "--part", "train"]) == 0
    listed = tmp_path / "whole" / "damaged.json"
    for text in ("{}", '{"train": [{"index": 99, "name": "x", "why": "y"}]}', '{"inputs": []}', "[", '{"train": 3}'):
        listed.write_text(text)
        with pytest.raises(NameplateError, match=r"other damaged examples|fewer examples|is not the list of damaged"):
            train(tmp_path, *given, "run=whole", "fit.steps=12")
    listed.unlink()  # found again
    train(tmp_path, *given, "run=whole", "fit.steps=12")
    with pytest.raises(NameplateError, match="was trained without other damaged examples: 0 are skipped now"):
        train(tmp_path, *pictures, "run=whole", "fit.steps=13")


CUSTOM = ["data=custom", "data._target_=tests.trainer.test_data_keys.stream"]


def test_a_stream_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(NameplateError, match="only data with random access can be checked"):
        train(tmp_path, "model=mlp", *CUSTOM, "trust=[tests]", "data.classes={y: 2}", "data.check=true", "run=stream")


def stream() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((np.ones((8, 2), "float32"), np.ones(8, "int64")))


def test_the_first_lines_say_what_looks_wrong(
    table: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with table.open() as file:
        rows = file.read().replace("low", "hgih", 1)
    (tmp_path / "t.csv").write_text(rows)
    given = [*SMALL, *keys(tmp_path / "t.csv"), "dry_run=true"]
    train(tmp_path, *given)
    said = capsys.readouterr().out
    assert "data: the class of 'label' 'hgih' (1 example) looks like 'high'" in said
    assert "data: 'features' holds values from 0 to " in said
    train(tmp_path, *given, "data.spelling={hgih: low}", "data.standardize=true")
    said = capsys.readouterr().out
    assert "looks like" not in said
    assert "holds values" not in said
    train(tmp_path, *pictures, "data.limit=3", "data.validation=0", "dry_run=true")
    assert "data: all 3 training examples have the class 'blue' of 'label'" in capsys.readouterr().out


def test_rare_classes_are_repeated_without_reading_images(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(next(each for each in pictures if each.startswith("data.root=")).removeprefix("data.root="))
    for place in (root / "blue").glob("[4-9].png"):
        place.unlink()
    given = [*pictures, "data.on_damaged=skip", "data.balance=true", "data.validation=0"]
    train(tmp_path, *given, "run=cut", "fit.steps=3")
    assert "label: 12 of blue, 12 of green, 12 of red" in capsys.readouterr().out
    train(tmp_path, *given, "run=cut", "fit.steps=7")
    train(tmp_path, *given, "run=whole", "fit.steps=7")
    assert_same(content(tmp_path / "cut"), content(tmp_path / "whole"))


BALANCE: dict[str, tuple[list[str], str]] = {
    "two outputs": (
        ["data=digit_pairs", "model=two_tower"],
        "needs one output, of classes; the data has same",
    ),
    "a stream": ([*CUSTOM, "trust=[tests]", "data.classes={y: 2}"], "come one after another; random access is needed"),
}


@pytest.mark.parametrize("case", BALANCE)
def test_balance_that_is_not_possible_is_refused(case: str, tmp_path: Path) -> None:
    overrides, message = BALANCE[case]
    with pytest.raises(NameplateError, match=f"data.balance: .*{message}"):
        train(tmp_path, "model=mlp", *overrides, "data.balance=true", "dry_run=true")
