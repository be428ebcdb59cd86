"""Archives of arrays that would grow without measure (F3), and those that do not."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nameplate.data.config import ArraysConfig
from nameplate.data.specs import array_headers
from tests.nameplate.formats import bombs


def claiming(path: Path, shape: tuple[int, ...]) -> Path:
    """Write an archive with an array that claims a shape, and has three numbers."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.encode() + bytes(12))
    return path


def grown(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(6):
            bombs.zeros(archive, f"x{number}.npy", 60 << 20)
    return path


@pytest.mark.parametrize("make", [grown, lambda path: bombs.many_members(path, 99_990)], ids=["grown", "members"])
def test_f3_an_archive_that_is_a_bomb_is_refused_at_once(make: object, tmp_path: Path) -> None:
    assert callable(make)
    path = make(tmp_path / "x.npz")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"would grow to|more than 30000 members"):
        array_headers(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 64 << 20


@pytest.mark.parametrize("shape", [(1 << 40,), (4,), (1 << 62, 1 << 62)])
def test_f3_an_array_that_claims_more_than_it_has_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = claiming(tmp_path / "x.npz", shape)
    problems = ArraysConfig(path=str(path), inputs=["x"], targets=["x"]).problems()
    assert len(problems) == 1
    assert "claims the shape" in problems[0]


def test_f3_a_mask_that_compresses_a_hundredfold_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((20 << 20,), "uint8"), y=np.ones(3, "float32"))
    assert (tmp_path / "x.npz").stat().st_size < 1 << 20
    assert array_headers(tmp_path / "x.npz")["x"].shape == (20 << 20,)
    assert array_headers(claiming(tmp_path / "y.npz", (3,)))["x"].shape == (3,)
