"""`python -m trainer.evaluate` and `trainer.predict` on runs of digits, of image files and of a table."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nameplate
from nameplate import checkpoint as store
from nameplate.data.digits import read_digits
from tests.trainer.running import train
from trainer.cli import evaluate, export, predict
from trainer.job.model import rebuild

SMALL = ["strategy=single", "model=mlp", "model.hidden=[8]", "optimizer.learning_rate=0.01"]


@pytest.fixture(scope="module")
def desk(strategy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of digits, of a folder of images and of a table, and with their data."""
    folder = tmp_path_factory.mktemp("desk")
    images, labels = read_digits()
    for digit in (0, 1):
        (folder / "files" / f"digit{digit}").mkdir(parents=True)
        for number in np.flatnonzero(labels == digit)[:20]:
            _save(images[number], folder / "files" / f"digit{digit}" / f"{number}.png")
    numbers = np.random.default_rng(0).normal(size=(60, 2))
    rows = [["second", "sign", "first", "kind"]]
    for second, first in numbers:
        rows.append([second, "plus" if first > 0 else "minus", first, "more" if second > first else "less"])
    _write(folder / "table.csv", rows)
    pictures = ["data=image_folder", f"data.root={folder / 'files'}", "data.height=8", "data.width=8"]
    table = ["data=csv", f"data.path={folder / 'table.csv'}", "data.classes=[kind]", "data.categories=[sign]"]
    train(
        folder, *SMALL, "run=digits", "data.limit=64", "data.test=0.1", "fit.epochs=2", "objective.metrics=[accuracy]"
    )
    train(folder, *SMALL, *pictures, "data.channels=1", "run=pictures", "fit.epochs=6")
    train(folder, *SMALL, *table, "run=table", "fit.epochs=10")
    return folder


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray((image[..., 0] * 255).astype("uint8")).save(path)


def _write(path: Path, rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_evaluated_on_its_own_data(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, document = tmp_path / "page.html", tmp_path / "numbers.json"
    command = [str(desk / "digits"), "--json", str(document), "--page", str(page), "--worst", "3", "--which", "latest"]
    assert evaluate.main(command) == 0
    found = json.loads(document.read_text())
    with store.open(store.checkpoints(desk / "digits" / "checkpoints")[-1]) as checkpoint:
        assert found["values"]["accuracy"] == pytest.approx(checkpoint.manifest.metrics["val_accuracy"], rel=1e-6)
    confusion = np.array(found["outputs"]["label"]["confusion"])
    assert np.trace(confusion) / confusion.sum() == pytest.approx(found["values"]["accuracy"], rel=1e-6)
    assert len(found["outputs"]["label"]["worst"]) == 3
    assert "validation data" in capsys.readouterr().out
    assert "<table>" in page.read_text()


def test_another_part_and_other_data_are_chosen(desk: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    assert evaluate.main([str(desk / "digits"), "--part", "test", "--json", str(numbers)]) == 0
    assert json.loads(numbers.read_text())["examples"] == 180
    rows = _read(desk / "table.csv")
    _write(tmp_path / "other.csv", [[*reversed(rows[0])], *([*reversed(row.values())] for row in rows)])
    everything = ["data.validation=0", "--part", "train", "--json", str(numbers)]
    found = []
    for path in (desk / "table.csv", tmp_path / "other.csv"):  # the same rows, the columns in another order
        assert evaluate.main([str(desk / "table"), f"data.path={path}", *everything]) == 0
        found.append({key: json.loads(numbers.read_text())[key] for key in ("values", "outputs")})
    assert found[0] == found[1]
    whole = ["data=csv", f"data.path={tmp_path / 'other.csv'}", "data.classes=[kind]", "data.categories=[sign]"]
    assert evaluate.main([str(desk / "table"), *whole, "--json", str(numbers)]) == 0  # all of other data
    assert json.loads(numbers.read_text())["outputs"] == found[0]["outputs"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, "plus", 2, "more"], [1, "minus", 2, "equal"]], "the classes of 'kind' are equal, more;"),
        ([[1, "plus", 2, "more"], [1, "zero", 2, "less"]], "the values of 'sign' are plus, zero;"),
    ],
)
def test_data_with_other_classes_or_categories_is_refused(
    desk: Path, tmp_path: Path, rows: list[list[Any]], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their numbers would mean other things than in the training."""
    _write(tmp_path / "other.csv", [["second", "sign", "first", "kind"], *rows])
    assert evaluate.main([str(desk / "table"), f"data.path={tmp_path / 'other.csv'}", "data.validation=0"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_classes_of_a_run_are_in_its_checkpoints(desk: Path) -> None:
    for run, output, classes in (("pictures", "label", ["digit0", "digit1"]), ("table", "kind", ["less", "more"])):
        with store.open(store.checkpoints(desk / run / "checkpoints")[-1]) as checkpoint:
            assert checkpoint.manifest.about["shapes"]["classes"] == {output: classes}


def test_images_are_prepared_as_those_of_training(desk: Path, tmp_path: Path, strategy: Any) -> None:
    place = desk / "files"
    one = next((place / "digit1").glob("*.png"))
    assert predict.main([str(desk / "pictures"), str(one), str(place / "digit0"), "--to", str(tmp_path / "p.csv")]) == 0
    rows = _read(tmp_path / "p.csv")
    assert len(rows) == 21
    assert rows[0]["example"] == str(one)
    pixels = np.stack([np.asarray(Image.open(row["example"])) for row in rows])[..., None].astype("float32") / 255
    with strategy.scope():
        model = rebuild(str(desk / "pictures" / "best")).model
    logits = model.predict(pixels, verbose=0)
    assert [row["predicted"] for row in rows] == [f"digit{number}" for number in logits.argmax(1)]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose([float(row["p_digit1"]) for row in rows], chances[:, 1], rtol=1e-4)


def test_a_zip_of_images_is_predicted_on(desk: Path, tmp_path: Path) -> None:
    files = sorted((desk / "files" / "digit1").glob("*.png"))[:3]
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for file in files:
            archive.write(file, f"new/{file.name}")
    for name, inputs in (("a.csv", [str(tmp_path / "new.zip")]), ("b.csv", [str(file) for file in files])):
        assert predict.main([str(desk / "pictures"), *inputs, "--to", str(tmp_path / name)]) == 0
    zipped, plain = _read(tmp_path / "a.csv"), _read(tmp_path / "b.csv")
    assert [row.pop("example") for row in zipped] == [f"{tmp_path / 'new.zip'}/new/{file.name}" for file in files]
    assert zipped == [{name: value for name, value in row.items() if name != "example"} for row in plain]


def test_a_damaged_image_is_named(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert predict.main([str(desk / "pictures"), str(tmp_path / "bad.png"), "--to", str(tmp_path / "p.csv")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"1 damaged or missing images (JPEG, PNG, BMP and GIF can be read): {tmp_path / 'bad.png'}" in said
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_of_a_table_are_found_by_name(desk: Path, tmp_path: Path, suffix: str) -> None:
    table = tmp_path / f"new.{suffix}"
    if suffix == "csv":
        _write(table, [["first", "unused", "second", "sign"], [5, "z", -5, "plus"], [-5, "z", 5, "minus"]])
    else:
        content = {"first": [5.0, -5.0], "second": [-5, 5], "sign": ["plus", "minus"]}
        pyarrow = pytest.importorskip("pyarrow.parquet")
        pyarrow.write_table(pytest.importorskip("pyarrow").table(content), table)
    assert predict.main([str(desk / "table"), str(table), "--to", str(tmp_path / "p.csv")]) == 0
    assert [row["predicted"] for row in _read(tmp_path / "p.csv")] == ["less", "more"]


def test_arrays_are_predicted_on(desk: Path, tmp_path: Path) -> None:
    images, _ = read_digits()
    np.savez(tmp_path / "digits.npz", image=images[:5], other=images[:2])
    np.save(tmp_path / "digits.npy", images[:5])
    for name in ("digits.npz", "digits.npy"):
        assert predict.main([str(desk / "digits"), str(tmp_path / name), "--to", str(tmp_path / f"{name}.csv")]) == 0
    rows = _read(tmp_path / "digits.npz.csv")
    assert rows == _read(tmp_path / "digits.npy.csv")
    assert {"predicted", "p_0", "p_9"} < rows[0].keys()
    assert len(rows) == 5


DIGITS = list("0123456789")


@pytest.mark.parametrize("name", ["a.keras", "a.onnx", "a.weights.h5", "a.safetensors", "a.pt", "served"])
def test_a_run_is_exported(desk: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(desk / "digits"), "--to", str(tmp_path / name), "--which", "latest"]) == 0
    assert (tmp_path / name).exists()
    assert "step_" in capsys.readouterr().out
    if name == "served":
        assert json.loads((tmp_path / name / "assets.extra" / "classes.json").read_text()) == {"label": DIGITS}
    if name == "a.onnx":
        onnx = pytest.importorskip("onnx")
        (found,) = onnx.load(str(tmp_path / name)).metadata_props
        assert (found.key, json.loads(found.value)) == ("classes", {"label": DIGITS})
    if name == "a.keras":
        with store.open(store.checkpoints(desk / "digits" / "checkpoints")[-1]) as checkpoint:
            kernel = nameplate.load(tmp_path / name).get_layer("label").kernel
            np.testing.assert_array_equal(kernel, checkpoint.weights["label/kernel"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.npz", b"PK\x03\x04 cut short", "bad.npz cannot be read as arrays"),
        ("bad.npy", b"not an array", "bad.npy cannot be read as arrays"),
        ("other.npz", {"x": np.zeros(3)}, "has no array image; it has x"),
        ("scalar.npz", {"image": np.float32(1)}, "need the same number of examples"),
        ("objects.npz", {"image": np.array([None], object)}, "objects.npz cannot be read as arrays"),
    ],
)
def test_arrays_that_cannot_be_read_are_refused(
    desk: Path, tmp_path: Path, name: str, content: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    assert predict.main([str(desk / "digits"), str(tmp_path / name), "--to", str(tmp_path / "p.csv")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


REFUSED: dict[str, tuple[Any, list[str], str]] = {
    "no part": (evaluate, ["{desk}/table", "--part", "test"], "--part test: the data has no such part; it has valid"),
    "no run": (evaluate, ["{desk}/tables"], "Did you mean 'table'?"),
    "no directory": (evaluate, ["{desk}/table", "--json", "/no/where.json"], "--json /no/where.json: its directory"),
    "another key": (evaluate, ["{desk}/table", "fit.epochs=2"], "fit.epochs=2: not a setting of the data"),
    "a wrong key": (evaluate, ["{desk}/table", "data.pth=x"], "data.pth: no such key. Did you mean data.path"),
    "nothing": (predict, ["{desk}/table", "none.csv", "--to", "x.csv"], "none.csv: there is nothing"),
    "a mixture": (
        predict,
        ["{desk}/pictures", "{desk}/table.csv", "{desk}/files", "--to", "x.csv"],
        "give images and folders of images, or one zip",
    ),
    "images for a table": (
        predict,
        ["{desk}/table", "{desk}/files/digit0", "--to", "x.csv"],
        "takes features (4,), not one image of a fixed size",
    ),
    "a table of other columns": (predict, ["{desk}/digits", "{desk}/table.csv", "--to", "x.csv"], "no column 'image'"),
    "another suffix": (predict, ["{desk}/table", "{desk}/table.csv", "--to", "x.txt"], "written as .csv or .parquet"),
    "an unknown format": (export, ["{desk}/table", "--to", "x.tflite"], "the suffix chooses the format: .keras"),
    "what exists": (export, ["{desk}/table", "--to", "files"], "exists already; name another"),
    "unknown files": (predict, ["{desk}/table", "{here}", "--to", "x.csv"], ".py is not read; .csv, .parquet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_words(
    desk: Path, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    command, words, message = REFUSED[case]
    assert command.main([word.format(desk=desk, here=__file__) for word in words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("x.csv").exists()
