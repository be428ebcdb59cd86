from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import open_dataset, splits
from nameplate.data.config import ArraysConfig, DataConfig, DigitsConfig, ImageFolderConfig, TableConfig
from nameplate.data.errors import DataError
from nameplate.data.source import Example, Memory, Source
from nameplate.data.splits import take
from tests.nameplate.data.reading import piped, whole
from tests.nameplate.data.test_image_folder import folder


class Counting:
    """A source that holds nothing: example i is the number i."""

    def __init__(self, size: int) -> None:
        self.size = size

    def spec(self) -> Example:
        return tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.int64)

    def load(self, indices: tf.Tensor) -> Example:
        return indices, indices * 2

    def arrays(self) -> None:
        return None


def split(source: Source, config: DataConfig, **given: Any) -> Any:
    return splits.split(source, config, **given)


def in_memory(size: int) -> Memory:
    return Memory((np.arange(size), 2 * np.arange(size)))


@pytest.mark.parametrize("source", [in_memory(103), Counting(103)], ids=["memory", "other"])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.0), (0.2, 0.3), (0.0, 0.5), (0.5, 0.48)])
def test_each_example_is_in_exactly_one_part(source: Source, validation: float, test: float) -> None:
    parts = split(source, DataConfig(validation=validation, test=test))
    sources = [each for each in (parts.train, parts.validation, parts.test) if each is not None]
    held = np.concatenate([whole(each)[0] for each in sources])
    assert sorted(held) == list(range(103))
    assert (parts.validation is None) == (validation == 0)
    assert (parts.test is None) == (test == 0)


def test_the_same_examples_are_held_out_for_every_kind_of_source_and_others_by_another_seed() -> None:
    held = whole(split(in_memory(50), DataConfig(validation=0.2)).validation)[0]
    np.testing.assert_array_equal(held, whole(split(Counting(50), DataConfig(validation=0.2)).validation)[0])
    other = whole(split(in_memory(50), DataConfig(validation=0.2, split_seed=1)).validation)[0]
    assert held.tolist() != other.tolist()
    assert held.tolist() == HELD_OUT  # for ever: a resumed run must not train on what it validates on


def test_a_share_rounds_up_and_floats_do_not_count() -> None:
    assert split(Counting(100), DataConfig(validation=0.07)).validation.size == 7
    assert split(Counting(101), DataConfig(validation=0.07)).validation.size == 8


def test_a_given_part_takes_the_place_of_its_share() -> None:
    mine = Counting(5)
    parts = split(Counting(10), DataConfig(validation=0.5, test=0.1), validation=mine)
    assert parts.validation is mine
    assert (parts.train.size, parts.test.size) == (9, 1)


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 examples: data.validation=0.4 takes 1, data.test=0.4 takes 1"):
        split(Counting(2), DataConfig(validation=0.4, test=0.4))


@pytest.mark.parametrize("source", [in_memory(9), Counting(9)], ids=["memory", "other"])
def test_a_subset_loads_by_its_own_positions(source: Source) -> None:
    subset = take(source, np.array([8, 3, 5]))
    np.testing.assert_array_equal(piped(subset, [2, 0, 1, 1])[1], [10, 16, 6, 6])


def test_a_subset_of_a_subset_keeps_the_content_in_memory() -> None:
    held = take(take(in_memory(9), np.array([8, 3, 5])), np.array([1])).arrays()
    assert held is not None
    assert [leaf.tolist() for leaf in held] == [[3], [6]]


HELD_OUT = [2, 4, 10, 11, 22, 27, 28, 31, 38, 41]


def test_folds_hold_out_each_example_once_beside_the_test_share(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(50.0), y=np.arange(50) % 2)
    given: dict[str, Any] = {"path": str(tmp_path / "a.npz"), "folds": 4, "test": 0.1, "validation": 0.3}
    parts = [open_dataset(ArraysConfig(**given, fold=fold), seed=0) for fold in range(4)]
    held = [whole(part.validation)[0].tolist() for part in parts]  # type: ignore[arg-type]
    test = whole(parts[0].test)[0].tolist()  # type: ignore[arg-type]
    assert len(test) == 5
    assert sorted([*test, *(example for own in held for example in own)]) == list(range(50))
    for part, own in zip(parts, held, strict=True):
        assert sorted(whole(part.train)[0].tolist() + own + test) == list(range(50))
        assert whole(part.test)[0].tolist() == test  # type: ignore[arg-type]
    again = open_dataset(ArraysConfig(**given, split_seed=1), seed=0)
    assert whole(again.validation)[0].tolist() != held[0]  # type: ignore[arg-type]


def test_a_group_of_a_table_is_in_one_fold(tmp_path: Path) -> None:
    rows = [f"{row},{row % 2},patient {row % 7}" for row in range(70)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,patient", *rows]))
    (tmp_path / "test.csv").write_text("x,y\n1,0\n2,1\n")
    given: dict[str, Any] = {"path": str(tmp_path / "t.csv"), "classes": ["y"], "group": "patient", "folds": 3}
    held = []
    for fold in range(3):
        data = open_dataset(TableConfig(**given, fold=fold, test_path=str(tmp_path / "test.csv")), seed=0)
        assert data.columns == ("x",)
        train, own = (set(whole(part)[0].ravel() % 7) for part in (data.train, data.validation))  # type: ignore[arg-type]
        assert not train & own
        held += whole(data.validation)[0].ravel().tolist()  # type: ignore[arg-type]
    assert sorted(held) == list(range(70))
    with pytest.raises(DataError, match=r"data.folds: 8 folds of 7 groups; at most 7"):
        open_dataset(TableConfig(**given | {"folds": 8}), seed=0)


def test_the_digits_have_folds() -> None:
    parts = [open_dataset(DigitsConfig(folds=5, fold=fold), seed=0) for fold in range(5)]
    assert sum(part.validation.size for part in parts if part.validation) == 1797
    assert {part.train.size for part in parts} == {1437, 1438}


def test_folds_of_data_with_a_validation_part_are_refused(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val", count=1)
    with pytest.raises(DataError, match=r"data.folds: the data has a validation part of its own"):
        open_dataset(ImageFolderConfig(root=str(tmp_path), folds=3), seed=0)
