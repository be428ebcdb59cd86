"""`assess` and `tabulate` against numbers that are counted by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf

import nameplate
from nameplate.errors import NameplateError

NUMBERS = np.random.default_rng(0)
LOGITS = NUMBERS.normal(size=(37, 3)).astype("float32")  # the model's outputs are its inputs
CHANCES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
LABELS = NUMBERS.integers(0, 3, 37)
NAMES = ["ant", "bee", "cat"]


def identity(strategy: Any, *, units: int = 3, compiled: bool = True, activation: str = "linear") -> keras.Model:
    with strategy.scope():
        x = keras.Input((units,), name="x")
        model = keras.Model(x, keras.layers.Dense(units, activation, False, "identity", name="kind")(x), name="same")
        if compiled:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("sgd", loss, metrics=["accuracy"])
    return model


class _Indexed:
    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index]


FORMS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (LOGITS, LABELS),
    "one-hot": lambda: (LOGITS, np.eye(3, dtype="float32")[LABELS]),
    "a column": lambda: (LOGITS, LABELS[:, None]),
    "a dataset": lambda: tf.data.Dataset.from_tensor_slices((LOGITS, LABELS)).batch(8),
    "by index": lambda: _Indexed(list(zip(LOGITS, LABELS, strict=True))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_example_is_counted_once_in_its_class(strategy: Any, form: str) -> None:
    model = identity(strategy, compiled=form != "one-hot")
    found = nameplate.assess(model, FORMS[form](), classes=NAMES, worst=3)
    output = found.outputs["kind"]
    chosen = LOGITS.argmax(1)
    counted = [[int(((true == LABELS) & (chosen == other)).sum()) for other in range(3)] for true in range(3)]
    assert output.confusion is not None
    assert output.confusion.tolist() == counted
    assert found.examples == 37
    bee = output.per_class()["bee"]
    assert bee["precision"] == pytest.approx(counted[1][1] / sum(row[1] for row in counted))
    assert bee["recall"] == pytest.approx(counted[1][1] / sum(counted[1]))
    assert bee["examples"] == sum(counted[1])
    errors = 1 - CHANCES[np.arange(37), LABELS]
    assert [each.index for each in output.worst] == np.argsort(-errors)[:3].tolist()
    assert output.worst[0].error == pytest.approx(errors.max(), rel=1e-5)
    assert output.worst[0].target == NAMES[LABELS[errors.argmax()]]
    if form != "one-hot":
        assert found.values["accuracy"] == pytest.approx((chosen == LABELS).mean())


def test_two_classes_in_one_unit_and_values(strategy: Any) -> None:
    model = identity(strategy, units=1, compiled=False)
    logit, label = LOGITS[:, :1], (LABELS > 0).astype("int64")
    found = nameplate.assess(model, (logit, label)).outputs["kind"]
    assert found.confusion is not None
    assert np.trace(found.confusion) == ((logit[:, 0] > 0) == label).sum()
    small = np.full((4, 1), 0.3, "float32")  # a logit between 0 and 1 is not a probability
    assert nameplate.tabulate(model, small, classes=["no", "yes"]).columns["predicted"].tolist() == ["yes"] * 4
    sigmoid = identity(strategy, units=1, compiled=False, activation="sigmoid")
    table = nameplate.tabulate(sigmoid, -small, classes=["no", "yes"])
    np.testing.assert_allclose(table.columns["p_yes"], 1 / (1 + np.exp(0.3)), rtol=1e-5)
    values = nameplate.assess(model, (logit, LOGITS[:, 1:2]), worst=1).outputs["kind"]
    assert values.confusion is None
    assert values.worst[0].index == np.abs(LOGITS[:, 0] - LOGITS[:, 1]).argmax()


def test_it_is_written_as_json_and_as_a_page(strategy: Any) -> None:
    found = nameplate.assess(identity(strategy), (LOGITS[:3], np.zeros(3, int)), classes=NAMES, about={"run": "<b>"})
    document = json.loads(found.as_json())
    assert document["outputs"]["kind"]["classes"] == NAMES
    assert document["outputs"]["kind"]["per_class"]["cat"]["recall"] is None  # of no examples
    assert "<td>ant</td>" in found.page()
    assert "&lt;b&gt;" in found.page()


WRONG: dict[str, tuple[dict[str, Any], Any, str]] = {
    "too few names": ({"classes": NAMES[:2]}, (LOGITS, LABELS), "2 names for the 3 classes of 'kind'"),
    "an unknown output": ({"classes": {"a": NAMES, "b": NAMES}}, (LOGITS, LABELS), "no output a, b; there are kind"),
    "no targets": ({}, LOGITS, "no targets to compare"),
    "sequences": ({}, (LOGITS, LABELS[:, None].repeat(2, 1)), r"of shape \(37, 3\) for targets of shape \(37, 2\)"),
    "other names": ({}, (LOGITS, {"a": LABELS, "b": LABELS}), "targets a, b: the model's outputs are kind"),
    "NaN": ({}, (np.full_like(LOGITS, np.nan), LABELS), "'kind' predicts NaN or infinite values for 37 of 37"),
    "labels beyond": ({}, (LOGITS, LABELS + 1), "predicts 3 classes; the targets have 1 to 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_assessed_is_refused(strategy: Any, case: str) -> None:
    options, data, message = WRONG[case]
    with pytest.raises(NameplateError, match=message):
        nameplate.assess(identity(strategy, compiled=False), data, **options)


def test_predictions_are_written_as_a_table(strategy: Any, tmp_path: Path) -> None:
    model = identity(strategy)
    table = nameplate.tabulate(model, LOGITS, classes=NAMES, names=[f"row {number}" for number in range(37)])
    for suffix in ("csv", "parquet"):
        table.write(tmp_path / f"table.{suffix}")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == [NAMES[number] for number in LOGITS.argmax(1)]
    assert rows[4]["example"] == "row 4"
    np.testing.assert_allclose([float(row["p_bee"]) for row in rows], CHANCES[:, 1], rtol=1e-5)
    assert pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist()[4]["predicted"] == rows[4]["predicted"]
    plain = nameplate.tabulate(model, LOGITS)
    assert list(plain.columns) == ["example", "value_0", "value_1", "value_2"]
    with pytest.raises(NameplateError, match=r"table.txt: a table of predictions is written as .csv or .parquet"):
        table.write(tmp_path / "table.txt")
    with pytest.raises(NameplateError, match="its directory does not exist"):
        table.write(tmp_path / "no" / "table.csv")
    with pytest.raises(NameplateError, match="names: 2 for 37 examples"):
        nameplate.tabulate(model, LOGITS, names=["a", "b"])


class Opaque(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x


def test_one_unit_of_which_nothing_says_what_it_is_needs_a_word(strategy: Any) -> None:
    with strategy.scope():
        x = keras.Input((1,), name="x")
        model = keras.Model(x, Opaque(name="score")(x), name="net")
    values = np.array([[0.3], [0.7]], "float32")
    with pytest.raises(NameplateError, match=r"'score' has one unit, .*from_logits=True or from_logits=False"):
        nameplate.tabulate(model, values, classes=["no", "yes"])
    table = nameplate.tabulate(model, values, classes=["no", "yes"], from_logits=False)
    assert table.columns["predicted"].tolist() == ["no", "yes"]
