"""Every single bit of every file of a checkpoint, flipped; every length it can be cut to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.test_golden import GOLDEN, NAME

FILES = sorted(file.name for file in (GOLDEN / "v1" / NAME).iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "v1" / NAME, tmp_path / NAME))


@pytest.mark.parametrize("file", FILES)
def test_a_flip_of_any_bit_is_found_and_named(path: Path, file: str) -> None:
    good = (path / file).read_bytes()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (path / file).write_bytes(bad)
        assert file in {damage.file for damage in store.verify(path)}, bit


@pytest.mark.parametrize("file", FILES)
def test_a_cut_at_any_length_is_found_and_named(path: Path, file: str) -> None:
    good = (path / file).read_bytes()
    for size in range(len(good)):
        (path / file).write_bytes(good[:size])
        assert file in {damage.file for damage in store.verify(path)}, size
