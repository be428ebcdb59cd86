from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from nameplate.data import DataError, Field, open_dataset
from nameplate.data.config import CsvConfig, TableConfig
from nameplate.data.table_files import table_file
from tests.nameplate.data.reading import whole

HEADER = ["width", "petal length", "species", "price", "w"]
ROWS: list[list[Any]] = [
    [1.5, -2, "oak", 10, 1],
    [2.5, 3e2, "ash", 20.5, 0.5],
    [0, 0.25, "oak, old", 30, 1],
    [4, 5, "ash", 40, 2],
]


def write(path: Path, rows: list[list[Any]], header: list[str] = HEADER, **given: Any) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file, **given).writerows([header, *rows])
    return str(path)


def opened(path: str, **given: Any) -> Any:
    return open_dataset(CsvConfig(path=path, **{"validation": 0.0} | given), seed=0)


def test_what_is_not_used_otherwise_is_one_vector_of_inputs(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "a.csv", ROWS), classes=["species"], values=["price"], sample_weight="w")
    assert data.inputs == {"features": Field((2,), "float32")}
    assert (data.outputs, data.kinds) == ({"species": 3, "price": 1}, {"species": "classes", "price": "values"})
    assert data.classes == {"species": ("ash", "oak", "oak, old")}
    x, y, w = whole(data.train)
    np.testing.assert_array_equal(x, np.array([[1.5, -2], [2.5, 300], [0, 0.25], [4, 5]]))
    assert y["species"].tolist() == [1, 0, 2, 0]
    assert y["price"].tolist() == [10, 20.5, 30, 40]
    assert w.tolist() == [1, 0.5, 1, 2]


def test_each_column_may_be_an_input_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    data = opened(path, classes=["species"], inputs=["petal length", "w"], named=True)
    assert data.inputs == {"petal_length": Field((1,), "float32"), "w": Field((1,), "float32")}
    x, y = whole(data.train)
    assert x["petal_length"].ravel().tolist() == [-2, 300, 0.25, 5]
    assert y.tolist() == [1, 0, 2, 0]


def test_whole_numbers_as_classes_sort_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [[1, 10], [2, 9], [3, -1]], ["x", "y"])
    assert opened(path, classes=["y"]).classes == {"y": ("-1", "9", "10")}


def test_another_delimiter_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x;y\n1;a\n2;b\n", encoding="utf-8-sig")
    assert whole(opened(str(path), classes=["y"], delimiter=";").train)[0].tolist() == [[1], [2]]


def test_a_file_of_its_own_validates_by_the_classes_of_train(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", [ROWS[2]])
    data = opened(train, validation_path=held, classes=["species"], inputs=["width"], validation=0.5)
    assert (data.train.size, whole(data.validation)[1].tolist()) == (4, [2])


def test_all_missing_values_and_wrong_numbers_are_listed_by_line(tmp_path: Path) -> None:
    rows = [["", 1, "oak", 1, 1]] * 12 + [["wide", "NA", "?", 1, 1], ["1", "inf", "ash", 1, 1]]
    with pytest.raises(DataError) as caught:
        opened(write(tmp_path / "a.csv", rows), classes=["species"])
    message = str(caught.value)
    assert "'width' has no value in lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more" in message
    assert "'width' has 'wide', not a number, in line 14; correct it" in message
    assert "'petal length' has no value in line 14" in message
    assert "'petal length' has 'inf', not a number, in line 15" in message
    assert "'species' has no value in line 14" in message


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("x,y\n1,a\n2,b\n", {"classes": ["z"]}, "no column 'z'; it has x, y."),
        ("x;y\n1;a\n2;b\n", {"classes": ["y"]}, "Is it separated by ';'? Set 'data.delimiter=;'"),
        ("width,y\n1,a\n2,b\n", {"inputs": ["widht"]}, "Did you mean 'width'?"),
        ("x,t,y\n1,p,a\n2,q,b\n", {}, "'t' has 'p', not a number, in lines 2, 3; data.categories=[t] makes it an"),
        ("x,t,y\n1,2026-01-31,a\n2,1/2/26,b\n", {}, "dates are not read: turn them into numbers (the year, the days"),
        ("x,y\n1,a\n2\n3,b,c\n", {}, "the header has 2 columns, unlike lines 3, 4"),
        ("x,x\n1,2\n", {}, "two columns are called 'x'"),
        ("x,y\n", {}, "no rows under the header 'x,y'"),
        ("", {}, "empty"),
        ("x,y\n1,a\n2,a\n", {}, "'y' has only the value 'a'; there is nothing to predict"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, given: dict[str, Any], message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        opened(str(tmp_path / "a.csv"), **{"classes": ["y"]} | given)
    assert message in str(caught.value)


def test_a_class_that_train_has_not_is_refused(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", [[1, 1, "elm", 1, 1]])
    with pytest.raises(DataError, match="'species' has values that the training data does not: elm"):
        opened(train, validation_path=held, classes=["species"])


def test_a_table_in_another_encoding_is_told_how_to_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("größe,y\n1,a\n2,b\n".encode("latin-1"))
    (problem,) = table_file(path).faults
    assert "save it as UTF-8" in problem


def test_categories_are_inputs_with_a_number_for_each_value(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("size,colour,kind\n1.5,red,a\n2.5,blue,b\n3.5,red,a\n")
    data = open_dataset(CsvConfig(path=str(path), classes=["kind"], categories=["colour"], validation=0), seed=0)
    x, _ = whole(data.train)
    assert x.tolist() == [[1.5, 0, 1], [2.5, 1, 0], [3.5, 0, 1]]  # blue, red
    assert (data.columns, data.categories) == (("size", "colour"), {"colour": ("blue", "red")})
    named = open_dataset(
        CsvConfig(path=str(path), classes=["kind"], categories=["colour"], named=True, validation=0), seed=0
    )
    assert {name: field.shape for name, field in named.inputs.items()} == {"size": (1,), "colour": (2,)}


def test_values_of_categories_that_training_never_saw_are_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "t.csv", tmp_path / "other.csv"
    path.write_text("size,colour,kind\n1,red,a\n2,blue,b\n")
    other.write_text("size,colour,kind\n1,green,a\n")
    config = CsvConfig(path=str(path), validation_path=str(other), classes=["kind"], categories=["colour"])
    with pytest.raises(DataError, match="column 'colour' has values that the training data does not: green"):
        open_dataset(config, seed=0)


COLUMNS: dict[str, Any] = {
    "width": pyarrow.array([1, 2, 3, 4], "int16"),
    "price": pyarrow.array([10, 20.5, 30, 40], "float64"),
    "sold": [True, False, True, True],
    "cost": pyarrow.array([1, 2, 3, 4]).cast(pyarrow.decimal128(21, 1)),
    "colour": pyarrow.array(["red", "blue", "red", "blue"]).dictionary_encode(),
    "species": ["oak", "ash", "oak, old", "ash"],
    "code": pyarrow.array([10, 9, 10, 9], "int8"),
}


def as_stream(table: pyarrow.Table, path: Path) -> None:
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


def as_csv(table: pyarrow.Table, path: Path) -> None:
    rows = [list(row.values()) for row in table.to_pylist()]
    write(path, [[float(cell) if isinstance(cell, bool) else cell for cell in row] for row in rows], table.column_names)


WRITERS: dict[str, Any] = {
    "several row groups.parquet": lambda table, path: parquet.write_table(table, path, row_group_size=3),
    "file.arrow": lambda table, path: feather.write_feather(table, path, compression="uncompressed"),
    "compressed.feather": feather.write_feather,
    "stream.arrow": as_stream,
    "text.csv": as_csv,
}


def table_of(path: Path, **given: Any) -> Any:
    return open_dataset(TableConfig(path=str(path), **{"validation": 0.0} | given), seed=0)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_table_gives_what_csv_gives(tmp_path: Path, name: str) -> None:
    table = pyarrow.table(COLUMNS)
    WRITERS[name](table, tmp_path / name)
    as_csv(table, tmp_path / "t.txt")
    given: dict[str, Any] = {"classes": ["species", "code"], "categories": ["colour"], "values": ["price"], "limit": 3}
    one, other = table_of(tmp_path / name, **given), opened(str(tmp_path / "t.txt"), **given)
    assert one.columns == ("width", "sold", "cost", "colour")
    assert (one.inputs, one.outputs, one.classes) == (other.inputs, other.outputs, other.classes)
    assert (one.columns, one.categories) == (other.columns, other.categories)
    for left, right in zip(whole(one.train), whole(other.train), strict=True):
        for key in left if isinstance(left, dict) else ():
            np.testing.assert_array_equal(left[key], right[key])
        if not isinstance(left, dict):
            np.testing.assert_array_equal(left, right)
    assert one.train.size == 3


def test_all_that_is_wrong_with_the_columns_of_a_table_is_said_at_once(tmp_path: Path) -> None:
    day = pyarrow.array([0, 1], "date32")
    table = pyarrow.table({"day": day, "at": day.cast("timestamp[ms]"), "t": ["a", "b"], "v": [[1], [2]], "y": [0, 1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        table_of(tmp_path / "a.parquet", classes=["y"], values=["z"], categories=["dya"])
    message = str(caught.value)
    for part in (
        "'day' is date32[day]; dates are not read: turn them into numbers (the year",
        "'at' is timestamp[ms]; dates are not read",
        "'t' is string, not numbers; data.categories=[t] makes it an input",
        "'v' is list<element: int64>, neither numbers nor text",
        "no column 'z'; it has day, at, t, v, y.",
        "no column 'dya'; it has day, at, t, v, y. Did you mean 'day'?",
    ):
        assert part in message
    with pytest.raises(DataError, match="'day' is date32"):
        table_of(tmp_path / "a.parquet", inputs=["y"], classes=["t"], categories=["day"])


def test_missing_and_infinite_values_of_a_table_are_listed_by_row(tmp_path: Path) -> None:
    numbers = [None, float("nan"), *[1.0] * 9, float("inf"), 1e300]
    table = pyarrow.table({"x": numbers, "y": [None, *"ab" * 6], "empty": [None] * 13})
    feather.write_feather(table, tmp_path / "a.feather")
    with pytest.raises(DataError) as caught:
        table_of(tmp_path / "a.feather", inputs=["x"], classes=["y"])
    message = str(caught.value)
    assert "'x' has no value in rows 0, 1, counted from 0" in message
    assert "'x' has no finite 32-bit float in rows 11, 12, counted from 0" in message
    assert "'y' has no value in row 0, counted from 0" in message


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[: len(content) // 2], "cannot be read"),
        (lambda content: b"", "cannot be read"),
        (lambda content: b"x,y\n1,2\n", "cannot be read"),
        (lambda content: b"FEA1" + content, "cannot be read"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, suffix: str, change: Any, message: str) -> None:
    path = tmp_path / f"a.{suffix}"
    WRITERS["several row groups.parquet" if suffix == "parquet" else "file.arrow"](pyarrow.table(COLUMNS), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        table_of(path, inputs=["width"], classes=["species"])


def test_a_table_that_grows_beyond_its_budget_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nameplate.data.table_files._FLOOR", 1000)
    monkeypatch.setattr("nameplate.data.table_files._EXPANSION", 1)
    table = pyarrow.table({"x": np.zeros(100_000), "y": np.zeros(100_000, int)})
    for name in ("several row groups.parquet", "compressed.feather"):
        writer = parquet.write_table if name.endswith("parquet") else WRITERS[name]
        writer(table, tmp_path / name)
        with pytest.raises(DataError, match=r"is refused: its \d+ bytes would grow to \d+ or more"):
            table_of(tmp_path / name, classes=["y"])


def test_only_the_columns_in_use_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nameplate.data.table_files import ArrowFile

    asked: list[list[str]] = []
    batches = ArrowFile._batches
    monkeypatch.setattr(ArrowFile, "_batches", lambda self, names: asked.append(names) or batches(self, names))  # type: ignore[func-returns-value]
    parquet.write_table(pyarrow.table(COLUMNS), tmp_path / "a.parquet")
    table_of(tmp_path / "a.parquet", inputs=["width", "cost"], classes=["species"])
    assert asked == [["width", "cost", "species"]]
