"""Data as people have it trains as arrays of the same examples do; what cannot be used is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow
import pytest
import tensorflow as tf
from pyarrow import feather, parquet

import nameplate
from nameplate.data import DataError, balanced, examples, folds

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(37, 4)).astype("float32")
Y = NUMBERS.integers(0, 3, 37)
WEIGHT = NUMBERS.uniform(0.5, 2, 37).astype("float32")


class Pairs:
    """A dataset in PyTorch's style, of tuples."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return list(map(float, X[index])), int(Y[index])


class Rows:
    """A dataset of dicts."""

    def __init__(self, change: Callable[[int, dict[str, Any]], Any] = lambda index, row: row) -> None:
        self.change = change

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, int):
            raise TypeError(f"{index!r} is not an int")
        row = {"x": X[index].astype("float64"), "y": Y[index], "id": f"row {index}", "weight": WEIGHT[index]}
        return self.change(index, row)


class ByLists(Rows):
    """A dataset that reads many examples in one call."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def table() -> pyarrow.Table:
    return pyarrow.table({"x": X.tolist(), "y": Y, "weight": WEIGHT, "name": [f"n{label}" for label in Y]})


def written(folder: Path, kind: str) -> Path:
    path = folder / f"rows.{kind}"
    (parquet.write_table if kind == "parquet" else feather.write_feather)(table(), path)
    return path


WAYS: dict[str, Callable[[Path], Any]] = {
    "tuples": lambda folder: Pairs(),
    "dicts": lambda folder: examples(Rows(), inputs="x", targets="y"),
    "dicts, three threads": lambda folder: examples(Rows(), inputs="x", targets="y", workers=3),
    "many in one call": lambda folder: examples(ByLists(), inputs="x", targets="y"),
    "a table": lambda folder: examples(table(), inputs="x", targets="y"),
    "parquet": lambda folder: examples(written(folder, "parquet"), inputs="x", targets="y"),
    "feather": lambda folder: examples(str(written(folder, "feather")), inputs="x", targets="y"),
    "a dict of arrays": lambda folder: examples({"x": X, "y": Y}, inputs="x", targets="y"),
    "memory-mapped": lambda folder: (mapped(folder, X.astype("float64")), Y),
}


def mapped(folder: Path, array: np.ndarray) -> np.ndarray:
    np.save(folder / "array.npy", array)
    found: np.ndarray = np.load(folder / "array.npy", mmap_mode="r")
    return found


def built(strategy: Any, *, named: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((4,), name="x")
        outputs = keras.layers.Dense(3, name="y")(inputs)
        model = keras.Model({"x": inputs} if named else inputs, {"y": outputs} if named else outputs, name="net")
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def trained(strategy: Any, data: Any, *, named: bool = False) -> list[np.ndarray]:
    model = built(strategy, named=named)
    nameplate.fit(model, data, batch_size=8, epochs=2)
    return [*model.get_weights(), np.array(nameplate.evaluate(model, data, batch_size=8, return_dict=True)["loss"])]


@pytest.fixture(scope="module")
def expected(strategy: Any) -> list[np.ndarray]:
    return trained(strategy, (X, Y))


@pytest.mark.parametrize("way", WAYS)
def test_it_trains_as_arrays_do(way: str, strategy: Any, expected: list[np.ndarray], tmp_path: Path) -> None:
    for one, other in zip(trained(strategy, WAYS[way](tmp_path)), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_keys_come_by_name_and_weights_count(strategy: Any) -> None:
    of_rows = examples(Rows(), inputs=["x"], targets=["y"], sample_weight="weight")
    whole = trained(strategy, ({"x": X}, {"y": Y}, WEIGHT), named=True)
    for one, other in zip(trained(strategy, of_rows, named=True), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("batched", [True, False])
def test_a_dataset_of_dicts(strategy: Any, batched: bool) -> None:
    dataset = tf.data.Dataset.from_tensor_slices({"x": X, "y": Y, "unused": WEIGHT})
    data = examples(dataset.batch(8) if batched else dataset, inputs="x", targets="y", batched=batched)
    expected = trained(strategy, tf.data.Dataset.from_tensor_slices((X, Y)).batch(8))
    model = built(strategy)
    nameplate.fit(model, data, batch_size=None if batched else 8, epochs=2)
    for one, other in zip(model.get_weights(), expected[:-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_predictions_have_the_order_of_the_examples(strategy: Any) -> None:
    model = built(strategy)
    np.testing.assert_array_equal(nameplate.predict(model, Pairs()), nameplate.predict(model, X))
    only_inputs = examples(Rows(), inputs="x")
    np.testing.assert_array_equal(nameplate.predict(model, only_inputs), nameplate.predict(model, X))


def failing(index: int, row: dict[str, Any]) -> Any:
    if index == 5:
        raise OSError("picture 5 is cut short")
    return row


CHANGES: dict[str, tuple[Callable[[int, Any], Any], str]] = {
    "an error": (failing, "example 5 of a Rows: OSError: picture 5 is cut short"),
    "another shape": (
        lambda index, row: row | {"x": X[0, :3]} if index == 9 else row,
        r"example 9 of a Rows is \(float32 \(3,\), int64 \(\)\), and example 0 is \(float32 \(4,\), int64",
    ),
    "another dtype": (lambda index, row: row | {"y": 0.5} if index == 9 else row, "example 9 .* float32"),
    "a missing key": (lambda index, row: {"x": X[0]} if index == 2 else row, "example 2 of a Rows: KeyError: 'y'"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [Rows, ByLists])
def test_an_example_that_cannot_be_used_is_named(strategy: Any, kind: Any, change: str) -> None:
    changed, message = CHANGES[change]
    message = message.replace("Rows", kind.__name__)
    if kind is ByLists and change == "an error":
        message = "examples .* of a ByLists: OSError: picture 5 is cut short"
    with pytest.raises(DataError, match=message):
        trained(strategy, examples(kind(changed), inputs="x", targets="y"))


class Empty(Rows):
    def __len__(self) -> int:
        return 0


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "dicts without a choice": (lambda: examples(Rows()), "have x, y, id, weight: say which are inputs"),
    "unknown keys": (
        lambda: examples(Rows(), inputs=["xx"], targets="why", sample_weight="weigth"),
        "(?s)inputs: .*no 'xx'; they have x, y, id, weight.*targets: .*'why'.*sample_weight: .*'weigth'.*'weight'",
    ),
    "a choice among tuples": (lambda: examples(Pairs(), inputs="x"), "inputs: chosen from dicts.*is a tuple"),
    "a choice among arrays": (lambda: examples((X, Y), targets="y"), "targets: chosen from dicts"),
    "no examples": (lambda: examples(Empty(), inputs="x"), "Empty without examples"),
    "objects": (lambda: examples(Rows(lambda index, row: {"x": object()}), inputs="x"), "example 0 .* object"),
    "weights alone": (
        lambda: examples(Rows(), inputs="x", sample_weight="weight"),
        "sample_weight='weight' without targets, which it weighs",
    ),
    "no workers": (lambda: examples(Pairs(), workers=0), "workers=0: at least 1"),
    "no table": (lambda: examples("rows.csv", inputs="x"), "rows.csv: not a table; files .parquet, .arrow"),
    "no file": (lambda: examples("none.parquet", inputs="x"), "none.parquet: no such file"),
    "missing values": (
        lambda: examples(pyarrow.table({"x": [1.0, None], "y": [None, 1]}), inputs="x", targets="y"),
        "(?s)'x' has no value in 1 of 2 rows.*'y' has no value",
    ),
    "dates": (
        lambda: examples(pyarrow.table({"x": np.array(["2026-01-01"], "datetime64[s]")}), inputs="x"),
        r"'x' is timestamp\[s\], which is neither numbers nor text",
    ),
    "ragged": (lambda: examples(pyarrow.table({"x": [[1.0], [1.0, 2.0]]}), inputs="x"), "'x' is list<"),
    "one fold": (lambda: folds((X, Y), 1), "count=1: from 2 to the number of examples, 37"),
    "few groups": (lambda: folds((X, Y), 4, groups=Y), "count=4: from 2 to the number of groups, 3"),
    "short groups": (lambda: folds((X, Y), 2, groups=Y[:5]), r"shape \(5,\); the 37 examples need \(37,\)"),
    "a stream": (
        lambda: folds(tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), 2),
        "folds: .* one after another; random access",
    ),
    "no labels": (lambda: balanced((X, X)), "no single target of one integer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_refused_in_words(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        call()


def test_dicts_without_a_choice_are_refused_by_the_verbs(strategy: Any) -> None:
    with pytest.raises(DataError, match=r"data: the examples have x, y, id, weight: say which .*inputs='x'"):
        nameplate.fit(built(strategy), Rows())
    with pytest.raises(DataError, match="validation_data: the examples have x, y"):
        nameplate.fit(built(strategy), (X, Y), validation_data=Rows())


def rows_of(source: Any) -> np.ndarray:
    return np.asarray(source.load(tf.range(source.size, dtype=tf.int64))[0])


def test_every_example_is_held_out_of_exactly_one_fold() -> None:
    places = np.arange(37)
    pairs = folds((places, Y), 5, seed=3)
    assert [train.size + held.size for train, held in pairs] == [37] * 5
    assert max(held.size for _, held in pairs) - min(held.size for _, held in pairs) <= 1
    np.testing.assert_array_equal(np.sort(np.concatenate([rows_of(held) for _, held in pairs])), places)
    for train, held in pairs:
        assert not set(rows_of(train)) & set(rows_of(held))
    again = folds((places, Y), 5, seed=3)
    assert all((rows_of(one[1]) == rows_of(other[1])).all() for one, other in zip(pairs, again, strict=True))
    assert set(rows_of(folds((places, Y), 5)[0][1])) != set(rows_of(pairs[0][1]))


def test_a_group_is_never_divided() -> None:
    groups = np.array([f"patient {number}" for number in NUMBERS.integers(0, 9, 37)])
    for train, held in folds((np.arange(37), Y), 3, groups=groups):
        assert held.size
        assert not set(groups[rows_of(train)]) & set(groups[rows_of(held)])


@pytest.mark.parametrize("data", [(np.arange(37), Y), "indexed"], ids=["arrays", "indexed"])
def test_balanced_classes_occur_equally_often(data: Any) -> None:
    source = balanced(examples(Rows(), inputs="y", targets="y") if data == "indexed" else data)
    labels = np.asarray(source.load(tf.range(source.size, dtype=tf.int64))[1])
    most = np.bincount(Y).max()
    np.testing.assert_array_equal(np.bincount(labels), [most] * 3)
    if data != "indexed":
        counts = np.bincount(rows_of(source), minlength=37)
        assert counts.min() >= 1
        assert all(np.ptp(counts[label == Y]) <= 1 for label in range(3))


def test_an_example_that_changes_between_readings_is_reported_where_a_run_resumes(
    strategy: Any, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1)
    data = examples(Rows(lambda index, row: row | {"x": X[index] + noise.normal(size=4)}), inputs="x", targets="y")
    assert data.differs()
    with pytest.warns(UserWarning, match="data: the first example is another one when it is read again"):
        nameplate.fit(built(strategy), data, batch_size=8, run=tmp_path / "run", naming="off")
    assert not examples(Rows(), inputs="x").differs()


def test_a_run_resumes_within_an_epoch(strategy: Any, tmp_path: Path) -> None:
    data = examples(Rows(), inputs="x", targets="y")
    checkpoint = nameplate.Checkpoint(every_steps=3)
    for run, steps in (("cut", 7), ("cut", 10), ("whole", 10)):
        model = built(strategy)
        nameplate.fit(model, data, batch_size=8, steps=steps, run=tmp_path / run, checkpoint=checkpoint)
        if steps == 10:
            np.testing.assert_array_equal(model.get_layer("y").kernel, trained_kernel(strategy, data))


def trained_kernel(strategy: Any, data: Any) -> np.ndarray:
    model = built(strategy)
    nameplate.fit(model, data, batch_size=8, steps=10)
    return np.asarray(model.get_layer("y").kernel)


class Short(ByLists):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return super().__getitems__(indices[1:])


def test_a_wrong_number_of_items_is_refused(strategy: Any) -> None:
    with pytest.raises(DataError, match="__getitems__ of a Short returned 7 items for 8 indices"):
        trained(strategy, examples(Short(), inputs="x", targets="y"))


def test_sparse_rows_are_not_taken_for_examples_by_index(strategy: Any) -> None:
    """SciPy's sparse matrices have rows by index, and a length that raises."""
    sparse = pytest.importorskip("scipy.sparse")
    model = built(strategy)
    np.testing.assert_array_equal(nameplate.predict(model, sparse.csr_matrix(X)), nameplate.predict(model, X))


def test_memory_mapped_integers_keep_their_shape(strategy: Any, tmp_path: Path) -> None:
    """(n, 1) is not (n,): an embedding of it has another shape."""
    words = Y[:, None].astype("int64")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.layers.Embedding(3, 2, name="words")], name="net")
    found = nameplate.predict(model, mapped(tmp_path, words))
    np.testing.assert_array_equal(found, model.predict(words, verbose=0))
    assert found.shape == (37, 1, 2)
