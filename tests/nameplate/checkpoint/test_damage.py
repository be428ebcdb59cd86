from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot

FILES = ["weights.safetensors", "optimizer.safetensors", "state.safetensors", "model.json", "config.yaml"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store.save(tmp_path, snapshot(1200))


@contextmanager
def changed(file: Path, data: bytes) -> Iterator[None]:
    """Let `file` hold `data` inside the block."""
    before = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(before)


def load_everything(path: Path) -> None:
    with store.open(path) as opened:
        for group in opened.groups().values():
            for name in group:
                group[name]
        assert opened.model
        assert opened.config


def assert_found(path: Path, file: str) -> None:
    """Verifying names the file, and loading refuses."""
    assert file in {damage.file for damage in store.verify(path)}
    with pytest.raises(store.DamagedError, match=file.split(".")[0]):
        load_everything(path)


def test_every_one_of_1500_flipped_bits_is_found(path: Path) -> None:
    draw = random.Random(7)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for bit in draw.sample(range(8 * len(good)), min(250, 8 * len(good))):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            with changed(file, bytes(bad)):
                assert_found(path, file.name)
    assert store.verify(path) == []


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
@pytest.mark.parametrize(
    "ruin",
    [
        pytest.param(lambda data: data[:-1], id="last byte cut off"),
        pytest.param(lambda data: data[: len(data) // 2], id="half cut off"),
        pytest.param(lambda data: b"", id="emptied"),
        pytest.param(lambda data: data + b"\0", id="byte appended"),
        pytest.param(lambda data: data + b"\n", id="newline appended"),
        pytest.param(lambda data: bytes(min(len(data), 4096)) + data[4096:], id="first block zeroed"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 0xFF]), id="last byte inverted"),
    ],
)
def test_a_ruined_file_is_found_and_named(path: Path, file: str, ruin: Callable[[bytes], bytes]) -> None:
    good = (path / file).read_bytes()
    with changed(path / file, ruin(good)):
        assert_found(path, file)


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
def test_a_missing_file_is_found_and_named(path: Path, file: str) -> None:
    (path / file).unlink()
    assert_found(path, file)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_step_is_found(tmp_path: Path, path: Path, file: str) -> None:
    other = store.save(tmp_path, snapshot(1300, model="{}", config="x"))
    shutil.copy(other / file, path / file)
    assert_found(path, file)


def test_the_manifest_of_another_step_is_found(tmp_path: Path, path: Path) -> None:
    other = store.save(tmp_path, snapshot(1300))
    shutil.copy(other / "manifest.json", path / "manifest.json")
    assert_found(path, "manifest.json")


def test_an_extra_file_is_reported_by_verify(path: Path) -> None:
    (path / "weights-00002-of-00002.safetensors").write_bytes(b"")
    assert [damage.file for damage in store.verify(path)] == ["weights-00002-of-00002.safetensors"]


def test_a_file_that_an_nfs_client_left_is_not_ours_to_judge(path: Path) -> None:
    (path / ".nfs0000000000001").write_bytes(b"x")
    assert store.verify(path) == []


def test_all_damages_are_told_at_once_with_their_tensors(path: Path) -> None:
    with store.open(path) as opened:
        records = {**opened.weights.records, **opened.optimizer.records}
    names = ["stem_conv/bias", "head/scale", "stem_conv/kernel@momentum"]
    for name in names:
        file = path / records[name].file
        data = bytearray(file.read_bytes())
        data[records[name].offset] ^= 1
        file.write_bytes(data)
    (path / "config.yaml").unlink()
    assert {(damage.file, damage.tensor) for damage in store.verify(path)} == {
        ("weights.safetensors", "stem_conv/bias"),
        ("weights.safetensors", "head/scale"),
        ("optimizer.safetensors", "stem_conv/kernel@momentum"),
        ("config.yaml", None),
    }


def test_an_undamaged_tensor_of_a_damaged_checkpoint_can_be_read(path: Path) -> None:
    with store.open(path) as opened:
        record = opened.weights.records["head/scale"]
        data = bytearray((path / record.file).read_bytes())
        data[record.offset] ^= 1
        (path / record.file).write_bytes(data)
        opened.weights["stem_conv/bias"]
        with pytest.raises(store.DamagedError, match=r"tensor 'head/scale' in weights\.safetensors"):
            opened.weights["head/scale"]


def test_a_link_in_the_place_of_a_file_is_not_followed(path: Path) -> None:
    (path / "config.yaml").rename(path.parent / "elsewhere.yaml")
    (path / "config.yaml").symlink_to("../elsewhere.yaml")
    assert_found(path, "config.yaml")


def test_a_directory_in_the_place_of_a_file_is_found(path: Path) -> None:
    (path / "config.yaml").unlink()
    (path / "config.yaml").mkdir()
    assert_found(path, "config.yaml")


def test_one_flipped_bit_in_a_pointer_is_found(path: Path) -> None:
    store.save(path.parent, snapshot(1201))
    store.point(path.parent, "latest", path)
    pointer = path.parent / "latest"
    good = pointer.read_bytes()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with changed(pointer, bytes(bad)), pytest.raises(store.DamagedError, match="pointer"):
            store.resolve(path.parent, "latest")


def test_a_bare_directory_is_neither_a_checkpoint_nor_damage(tmp_path: Path) -> None:
    (tmp_path / "thing").mkdir()
    with pytest.raises(store.StoreError, match="is not a checkpoint") as caught:
        store.open(tmp_path / "thing")
    assert not isinstance(caught.value, store.DamagedError)


def test_a_missing_checkpoint_is_answered_with_those_there_are(tmp_path: Path, path: Path) -> None:
    with pytest.raises(store.StoreError, match=r"There is no checkpoint at .* has step_00001200"):
        store.open(tmp_path / "step_00000007")
