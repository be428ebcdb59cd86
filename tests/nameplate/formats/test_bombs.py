"""A file that would expand out of proportion to its size is refused at once."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

import nameplate
from nameplate.errors import FileFormatError
from nameplate.formats import open_weights
from nameplate.formats.registry import read_table
from tests.nameplate.formats import bombs
from tests.nameplate.formats.files import sharded


def measured(read: Callable[[], object]) -> tuple[float, int]:
    """Return the processor seconds and the peak memory in bytes that a refusal took."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(FileFormatError, match=r"m\.|n\.keras|MiB|refused"):
            read()
        return time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", bombs.BOMBS)
def test_a_bomb_is_refused_at_once_and_before_it_grows(bomb: str, tmp_path: Path) -> None:
    path = bombs.BOMBS[bomb](tmp_path)
    seconds, most = measured(lambda: open_weights(path))
    assert seconds < 10  # under 1 s without the tracing of every allocation
    assert most < 64 << 20


@pytest.mark.parametrize("bomb", ["repeated", "empty_sets", "shared_keys", "hundred_axes", "assets"])
def test_no_other_reader_lets_a_bomb_in(bomb: str, tmp_path: Path) -> None:
    path = bombs.BOMBS[bomb](tmp_path)
    for read in (lambda: nameplate.load(path, only=["*"]), lambda: nameplate.load(path), lambda: read_table(path)):
        with pytest.raises(FileFormatError):
            read()


def test_shards_that_are_one_file_are_refused(tmp_path: Path) -> None:
    save_file({"a/kernel": np.ones(2, "float32")}, tmp_path / "a.safetensors")
    os.link(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    index.write_text('{"weight_map": {"a/kernel": "a.safetensors", "b": "b.safetensors"}}')
    with pytest.raises(FileFormatError, match=r"a\.safetensors and b\.safetensors are one file"):
        open_weights(index)


def test_honest_files_that_share_or_compress_are_read(tmp_path: Path) -> None:
    tied = bombs.tensor("0", [4, 4], [4, 1])
    path = bombs.pytorch(tmp_path / "m.pt", bombs.dictionary({f"block{each}.kernel": tied for each in range(24)}))
    with open_weights(path) as arrays:
        assert len(arrays) == 24
        assert np.array_equal(arrays["block23.kernel"], np.arange(16, dtype="float32").reshape(4, 4))

    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "dense"
        group.create_dataset("0", data=np.zeros((1024, 1024), "f4"), compression="gzip")
    with open_weights(tmp_path / "m.weights.h5") as arrays:
        assert arrays[next(iter(arrays))].shape == (1024, 1024)

    tensors = {f"layer{each}/kernel": np.full(3, each, "float32") for each in range(10)}
    sharded(tmp_path, tensors, shards=5)
    with open_weights(tmp_path / "model.safetensors.index.json") as arrays:
        assert {name: array[0] for name, array in arrays.items()} == {f"layer{each}/kernel": each for each in range(10)}


def test_a_large_honest_model_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for each in range(1000):
            group = file.create_group(f"layers/dense_{each}/vars")
            group.attrs["name"] = f"block{each}"
            group["0"] = np.zeros(3, "float32")
    with open_weights(tmp_path / "m.weights.h5") as arrays:
        assert len(arrays) == 1000

    code = bombs.dictionary({f"block{each}.weight": bombs.tensor(str(each), [16], [1]) for each in range(5000)})
    with open_weights(bombs.pytorch(tmp_path / "m.pt", code, storages=5000)) as arrays:
        assert len(arrays) == 5000


def test_a_large_honest_checkpoint_of_tensorflows_is_read(tmp_path: Path) -> None:
    import tensorflow as tf

    variables = [tf.Variable(np.full(4, each, "float32"), name=f"block{each}") for each in range(500)]
    tf.train.Checkpoint(all=variables).write(str(tmp_path / "c"))
    with open_weights(tmp_path / "c.index") as arrays:
        assert len(arrays) == 500
        assert arrays["block499"][0] == 499
