from __future__ import annotations

import dataclasses
import math
import os
import stat
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from nameplate import checkpoint as store
from nameplate.checkpoint import dtypes
from tests.nameplate.checkpoint.samples import array, same, snapshot


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = snapshot(1200)
    path = store.save(tmp_path, saved)
    assert path == tmp_path / "step_00001200"
    with store.open(path) as opened:
        for group, arrays in saved.groups().items():
            back = opened.groups()[group]
            assert set(back) == set(arrays)
            assert all(same(back[name], arrays[name]) for name in arrays)
        assert (opened.model, opened.config) == (saved.model, saved.config)
        assert dict(opened.manifest.metrics) == saved.metrics
        assert opened.manifest.about == saved.about
        assert (opened.step, opened.manifest.epoch, opened.manifest.position) == (1200, 3, 640)


def test_a_loaded_array_is_the_callers_own(tmp_path: Path) -> None:
    with store.open(store.save(tmp_path, snapshot())) as opened:
        first = opened.weights["stem_conv/bias"]
        first += 1
        assert not same(first, opened.weights["stem_conv/bias"])


def test_the_manifest_tells_class_role_and_place_of_every_tensor(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    with store.open(path) as opened:
        slot = opened.optimizer.records["stem_conv/kernel@momentum"]
    assert (slot.layer_class, slot.role, slot.file) == ("Conv2D", "momentum", "optimizer.safetensors")
    data = (path / slot.file).read_bytes()[slot.offset : slot.offset + slot.nbytes]
    assert data == snapshot().optimizer["stem_conv/kernel@momentum"].tobytes()


@pytest.mark.parametrize("name", ["weights", "optimizer", "state"])
def test_any_safetensors_reader_opens_the_files(tmp_path: Path, name: str) -> None:
    saved = snapshot(weights={"a/kernel": array(4, 3), "a/scalar": np.float64(2).reshape(())})
    path = store.save(tmp_path, saved)
    back = load_file(path / f"{name}.safetensors")
    assert all(same(back[key], value) for key, value in saved.groups()[name].items())
    assert set(back) == set(saved.groups()[name])


def test_bfloat16_is_bfloat16_to_other_readers(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    with safetensors.safe_open(path / "weights.safetensors", framework="np") as file:
        assert file.get_slice("head/kernel").get_dtype() == "BF16"


@pytest.mark.parametrize("name", dtypes.KNOWN)
def test_every_dtype_comes_back(tmp_path: Path, name: str) -> None:
    dtype = dtypes.of_name(name)
    assert dtype is not None
    value = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = store.save(tmp_path, snapshot(weights={"a": value}))
    with store.open(path) as opened:
        assert same(opened.weights["a"], value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("transposed", array(300, 700).T),
        ("strided", array(64, 6)[::2, ::3]),
        ("reversed", array(1000)[::-1]),
        ("fortran", np.asfortranarray(array(5, 6, 7))),
        ("broadcast", np.broadcast_to(array(1, 4), (300, 4))),
        ("transposed bfloat16", array(30, 40, dtype=ml_dtypes.bfloat16).T),
        ("transposed complex", (array(3, 4) + 1j * array(3, 4, seed=1)).astype(np.complex64).T),
        ("read-only", np.frombuffer(array(9).tobytes(), np.float32)),
        ("scalar of a view", array(3, 3)[1, 1:2].reshape(())),
        ("larger than a piece, not contiguous", array(1500, 1000).T),
    ],
)
def test_an_array_of_any_layout_is_written_as_what_it_shows(tmp_path: Path, kind: str, value: np.ndarray) -> None:
    path = store.save(tmp_path, snapshot(weights={"a": value}))
    with store.open(path) as opened:
        assert same(opened.weights["a"], np.ascontiguousarray(value).reshape(value.shape)), kind


@pytest.mark.skipif(sys.byteorder != "little", reason="shows big-endian arrays on a little-endian machine")
def test_big_endian_arrays_are_stored_as_the_format_wants(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(weights={"a": array(5).astype(">f4"), "b": array(4, 4).astype(">f8").T}))
    with store.open(path) as opened:
        assert same(opened.weights["a"], array(5))
        assert same(opened.weights["b"], np.ascontiguousarray(array(4, 4).astype("<f8").T))


def test_tensors_start_at_a_multiple_of_their_number_size(tmp_path: Path) -> None:
    weights = {"a": np.ones(3, np.uint8), "b": np.ones(3, np.float64), "c": np.ones(1, np.float16)}
    with store.open(store.save(tmp_path, snapshot(weights=weights))) as opened:
        assert all(record.offset % record.dtype.itemsize == 0 for record in opened.weights.records.values())


def test_a_large_state_is_split_over_files_of_bounded_size(tmp_path: Path) -> None:
    weights = {f"layer_{index}/kernel": array(100, seed=index) for index in range(10)}
    path = store.save(tmp_path, snapshot(weights=weights), largest_file=1000)
    names = sorted(file.name for file in path.glob("weights*"))
    assert names == [f"weights-{index:05d}-of-00005.safetensors" for index in range(1, 6)]
    assert store.verify(path) == []
    with store.open(path) as opened:
        assert all(same(opened.weights[name], value) for name, value in weights.items())


def test_a_tensor_larger_than_a_file_may_be_has_one_to_itself(tmp_path: Path) -> None:
    weights = {"a": array(10), "b": array(1000), "c": array(10)}
    path = store.save(tmp_path, snapshot(weights=weights), largest_file=100)
    assert len(list(path.glob("weights-*"))) == 3


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.1, 1e300, -0.0, 5e-324])
def test_a_float_of_any_kind_comes_back_exactly(tmp_path: Path, value: float) -> None:
    path = store.save(tmp_path, snapshot(metrics={"m": value}, about={"x": [value]}))
    with store.open(path) as opened:
        for back in (opened.manifest.metrics["m"], opened.manifest.about["x"][0]):
            assert repr(back) == repr(value)


@pytest.mark.parametrize("about", [{"x": {1, 2}}, {"x": np.float32(1)}, {1: 2}, {"$float": "inf"}, {"x": b"bytes"}])
def test_what_json_would_change_silently_is_refused(tmp_path: Path, about: dict) -> None:
    with pytest.raises(store.StoreError, match="about"):
        store.save(tmp_path, snapshot(about=about))
    assert store.checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a//b",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "a\0b",
        "a b",
        "é",
        "a\u202eb",
        "__metadata__",
        "a:0",
        "x" * 201,
    ],
)
def test_a_name_outside_the_grammar_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(store.StoreError, match="cannot be stored"):
        store.save(tmp_path, snapshot(weights={name: array(1), "fine": array(1)}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([None]), np.array([1j], np.complex128)])
def test_an_array_that_the_format_cannot_hold_is_refused(tmp_path: Path, value: np.ndarray) -> None:
    with pytest.raises(store.StoreError, match="'odd' is"):
        store.save(tmp_path, snapshot(state={"odd": value}))
    assert list(tmp_path.iterdir()) == []


def test_one_tensor_is_found_by_name_and_a_wrong_name_gets_the_nearest(tmp_path: Path) -> None:
    with store.open(store.save(tmp_path, snapshot())) as opened:
        assert same(opened.tensor("stem_conv/kernel@momentum"), snapshot().optimizer["stem_conv/kernel@momentum"])
        with pytest.raises(store.StoreError, match="Did you mean 'stem_conv/kernel'"):
            opened.tensor("stem_conv/kernl")


def test_the_same_content_saved_again_changes_nothing(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    before = os.stat(path).st_ino
    assert store.save(tmp_path, snapshot()) == path
    assert os.stat(path).st_ino == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_content_at_the_same_step_takes_its_place(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    changed = dataclasses.replace(snapshot(), config="run: other\n")
    assert store.save(tmp_path, changed) == path
    with store.open(path) as opened:
        assert opened.config == "run: other\n"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_damaged_checkpoint_is_replaced_by_a_good_one_of_its_step(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    (path / "config.yaml").write_text("run: trial\nseed: 8\n")
    store.save(tmp_path, snapshot())
    assert store.verify(path) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = store.save(tmp_path, snapshot())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o640}


@pytest.mark.parametrize("name", ["a space", "Ünïcode-дом-家", "x" * 200, "new\nline", "-dash", "nested/deeper/still"])
def test_odd_paths_work(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    store.probe(directory)
    path = store.save(directory, snapshot())
    store.point(directory, "latest", path)
    assert store.resolve(directory, "latest") == path
    assert store.verify(path) == []


def test_a_directory_reached_by_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = store.save(tmp_path / "link", snapshot())
    assert store.verify(path) == store.verify(tmp_path / "real" / path.name) == []


def test_an_empty_snapshot_is_a_checkpoint_too(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(weights={}, optimizer={}, state={}))
    assert store.verify(path) == []


def test_a_checkpoint_can_be_copied_elsewhere_under_another_name(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    path.rename(tmp_path / "my best model")
    assert store.verify(tmp_path / "my best model") == []


def test_tensors_of_many_pieces_and_write_outs_come_back(tmp_path: Path) -> None:
    saved = snapshot(weights={"large/kernel": array(3_000_000), "large/turned": array(1500, 1000).T, "small": array(3)})
    path = store.save(tmp_path, saved)
    assert store.verify(path) == []
    with store.open(path) as opened:
        loaded = opened.weights.load()
        assert list(loaded) == list(opened.weights)
        assert all(same(loaded[name], np.ascontiguousarray(value)) for name, value in saved.weights.items())


def test_damage_shows_also_when_all_are_read_together(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(weights={"large/kernel": array(3_000_000), "small": array(3)}))
    with store.open(path) as opened:
        with (path / "weights.safetensors").open("r+b") as file:
            file.seek(opened.weights.records["large/kernel"].offset + 7_000_000)
            file.write(b"\xff\xff\xff\xff")
        with pytest.raises(store.DamagedError, match="tensor 'large/kernel'"):
            opened.weights.load()
