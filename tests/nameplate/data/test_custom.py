from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
import tensorflow as tf

from nameplate.data import DataError, Field, Stream, open_dataset
from nameplate.data.config import CustomDataConfig, TfdsConfig
from nameplate.data.source import Memory
from nameplate.data.targets import TargetError, resolver
from nameplate.errors import NameplateError
from tests.nameplate.data.reading import whole

X = np.random.RandomState(0).standard_normal((10, 3))
Y = np.arange(10) % 4


def opened(made: Any, **given: Any) -> Any:
    factory = made if callable(made) else lambda: made
    return open_dataset(CustomDataConfig(_target_="mine.data", **given), seed=0, allow=lambda name: factory)


def test_arrays_become_a_source() -> None:
    data = opened((X, Y))
    assert (list(data.inputs), data.outputs, data.kinds) == (["x"], {"y": 4}, {"y": "classes"})
    x, y = whole(data.train)
    np.testing.assert_array_equal(x, X.astype(np.float32))
    np.testing.assert_array_equal(y, Y)


def test_arrays_by_name_with_weights_are_split_by_share() -> None:
    data = opened(({"a": X, "b": X}, {"p": X, "q": Y}, np.ones(10)), validation=0.2)
    assert data.outputs == {"p": 3, "q": 4}
    assert (data.train.size, data.validation.size) == (8, 2)
    assert whole(data.train)[2].tolist() == [1.0] * 8


def test_a_source_is_used_as_it_is() -> None:
    source = Memory((X, Y))
    data = opened(source, classes={"y": 4})
    assert data.train is source
    assert data.outputs == {"y": 4}


def test_a_dataset_becomes_a_stream_that_knows_its_size() -> None:
    data = opened(tf.data.Dataset.from_tensor_slices(({"a": X}, X)))
    assert isinstance(data.train, Stream)
    assert (data.train.size, data.inputs["a"].shape, data.outputs) == (10, (3,), {"y": 3})
    assert opened(tf.data.Dataset.from_tensor_slices((X, X)).repeat()).train.size is None


def test_parts_are_returned_by_name() -> None:
    data = opened({"train": (X, Y), "validation": (X[:4], Y[:4]), "test": None})
    assert (data.train.size, data.validation.size, data.test) == (10, 4, None)


def test_the_callable_gets_its_arguments() -> None:
    def factory(*, size: int, factor: float = 1.0) -> Any:
        return X[:size] * factor, Y[:size]

    data = opened(factory, arguments={"size": 6, "factor": 2.0})
    np.testing.assert_array_equal(whole(data.train)[0], (X[:6] * 2).astype(np.float32))


class Rows:
    """A dataset with random access, of dicts; its classes as Hugging Face's `features` declare them."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.features = {"label": SimpleNamespace(names=names)}

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return {"picture": X[index], "label": int(Y[index])}


CHOSEN: dict[str, Any] = {"inputs": ["picture"], "targets": ["label"]}


def test_keys_of_examples_that_are_dicts_are_chosen_and_name_inputs_and_outputs() -> None:
    data = opened(Rows(["ant", "bee", "cat", "dog"]), **CHOSEN, validation=0.2)
    assert (list(data.inputs), data.outputs) == (["picture"], {"label": 4})
    assert data.classes == {"label": ("ant", "bee", "cat", "dog")}
    assert (data.train.size, data.validation.size) == (8, 2)
    x, y = opened(Rows(), **CHOSEN, classes={"label": 4}).train.load(tf.constant([3, 1], tf.int64))
    np.testing.assert_array_equal(x, X[[3, 1]].astype(np.float32))
    assert y.numpy().tolist() == [3, 1]


def test_examples_that_are_tuples_need_no_choice() -> None:
    pairs = [(row, int(label)) for row, label in zip(X, Y, strict=True)]
    data = opened(type("Pairs", (), {"__len__": lambda self: 10, "__getitem__": lambda self, index: pairs[index],
                                     "classes": ["a", "b", "c", "d"]})())  # fmt: skip
    assert (list(data.inputs), data.outputs, data.classes) == (["x"], {"y": 4}, {"y": ("a", "b", "c", "d")})


def test_a_table_has_its_classes_counted_and_its_labels_checked() -> None:
    rows = {"a": X[:, 0], "b": X[:, 1], "label": Y}
    data = opened(pyarrow.table(rows), inputs=["a", "b"], targets=["label"])
    assert (list(data.inputs), data.outputs) == (["a", "b"], {"label": 4})
    with pytest.raises(DataError, match="the target 'label' has the label -1"):
        opened(pyarrow.table(rows | {"label": Y - 1}), inputs=["a", "b"], targets=["label"])
    with pytest.raises(DataError, match="inputs: the examples have no 'c'; they have a, b, label"):
        opened(pyarrow.table(rows), inputs=["c"], targets=["label"])


def test_inputs_without_targets_are_refused() -> None:
    problems = CustomDataConfig(_target_="mine.data", inputs=["a"]).problems()
    assert problems == ["data.inputs, data.targets: both choose keys of examples that are dicts; give both, or none"]


def test_a_whole_data_set_goes_through() -> None:
    made = opened((X, Y))
    assert opened(made).train is made.train


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (3, {}, "mine.data returned a int for 'train'; it may return arrays (x, y)"),
        ({"valid": (X, Y)}, {}, "returned a dict with valid; the keys are train, validation, test"),
        ((X, Y[:4]), {}, "the arrays differ in their number of examples: x 10, y 4"),
        ((X, Y - 1), {}, "has the label -1"),
        ((X[:0], Y[:0]), {}, "mine.data returned no examples for 'train'"),
        (([], []), {}, "mine.data returned no examples for 'train'"),
        ({"train": (X, Y), "validation": (X[:0], Y[:0])}, {}, "mine.data returned no examples for 'validation'"),
        (Memory((X[:0], Y[:0])), {"classes": {"y": 4}}, "mine.data returned no examples for 'train'"),
        (
            lambda: tf.data.Dataset.from_tensor_slices((X[:0], X[:0])),
            {},
            "mine.data returned no examples for 'train'",
        ),
        (Memory((X, Y)), {}, "how many classes has the target 'y'? e.g. 'data.classes={y: 10}'"),
        (lambda size: (X, Y), {}, "data.arguments: missing a required argument: 'size'"),
        (lambda: (X, Y), {"arguments": {"sise": 1}}, "got an unexpected keyword argument 'sise'"),
        (lambda: tf.data.Dataset.from_tensor_slices(X), {}, "elements must be (x, y) or (x, y, sample_weight)"),
        (lambda: tf.data.Dataset.from_tensor_slices((X,)), {}, "elements must be (x, y) or (x, y, sample_weight)"),
        (lambda: tf.data.Dataset.from_tensor_slices(((X, X), X)), {}, "each a tensor or a dict of tensors by name"),
        (
            lambda: tf.data.Dataset.from_tensor_slices((X, X)),
            {"validation": 0.1},
            "data.validation: no share can be held out of a tf.data.Dataset",
        ),
    ],
)
def test_what_is_no_data_is_refused(made: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(made, **given)
    assert message in str(caught.value)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(DataError, match=r"'mine.data' is a int, not a callable"):
        open_dataset(CustomDataConfig(_target_="mine.data"), seed=0, allow=lambda name: 3)
    with pytest.raises(DataError, match="no package is trusted"):
        open_dataset(CustomDataConfig(_target_="mine.data"), seed=0)


def test_what_the_callable_raises_is_told_with_its_place() -> None:
    def broken() -> Any:
        raise FileNotFoundError("no pets.npz here")

    with pytest.raises(TargetError, match=r"mine.data raised FileNotFoundError: no pets.npz here\n  at .*in broken"):
        opened(broken)


def tiny(folder: Path, file_format: str = "array_record") -> Any:
    """Prepare a small data set of TensorFlow Datasets, and return the package."""
    tfds = pytest.importorskip("tensorflow_datasets")
    _pets(tfds)(data_dir=folder, file_format=file_format).download_and_prepare()
    return tfds


@functools.cache  # a builder is registered once
def _pets(tfds: Any) -> Any:

    class TinyPets(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc, name-defined]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(4, 4, 1)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager: Any) -> Any:
            return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

        def _generate_examples(self, count: int = 0) -> Any:
            for number in range(count):
                yield number, {"image": np.full((4, 4, 1), number, np.uint8), "label": number % 2}

    return TinyPets


@pytest.mark.filterwarnings("ignore")
def test_a_builder_of_tensorflow_datasets_is_opened_by_its_name(tmp_path: Path) -> None:
    tfds = tiny(tmp_path)
    config = TfdsConfig(name="tiny_pets", data_dir=str(tmp_path), validation_split="test", split="train[:15]")
    assert config.problems() == []
    data = open_dataset(config, seed=0, allow=lambda name: tfds.data_source)
    assert data.inputs == {"image": Field((4, 4, 1), "float32")}
    assert (data.outputs, data.classes) == ({"label": 2}, {"label": ("cat", "dog")})
    images, labels = whole(data.train)
    np.testing.assert_array_equal(np.round(images[:, 0, 0, 0] * 255) % 2, labels)
    assert (data.train.size, data.validation.size if data.validation else 0) == (15, 6)
    for name, split in (("tiny_pest", "train"), ("tiny_pets", "trian")):
        wrong = TfdsConfig(name=name, split=split, data_dir=str(tmp_path))
        with pytest.raises(NameplateError, match="tiny_pest" if name == "tiny_pest" else "trian"):
            open_dataset(wrong, seed=0, allow=lambda name: tfds.data_source)


@pytest.mark.filterwarnings("ignore")
def test_a_builder_without_random_access_is_refused(tmp_path: Path) -> None:
    tfds = tiny(tmp_path, "tfrecord")
    with pytest.raises(NameplateError, match=r"random access|array_record"):
        open_dataset(TfdsConfig(name="tiny_pets", data_dir=str(tmp_path)), seed=0, allow=lambda name: tfds.data_source)


def test_a_package_that_is_not_installed_or_trusted_is_said() -> None:
    config = TfdsConfig(name="mnist")
    with pytest.raises(NameplateError, match=r"trust=\[tensorflow_datasets\]"):
        open_dataset(config, seed=0, allow=resolver(()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow_datasets", None)
        with pytest.raises(NameplateError, match="tensorflow_datasets"):
            open_dataset(config, seed=0, allow=resolver(("tensorflow_datasets",)))
