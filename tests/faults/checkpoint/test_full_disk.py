"""File systems that are really full, really small and really read-only; only root can mount them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_does_not_fit_leaves_the_old_one_and_no_growth(disk: Path) -> None:
    path = store.save(disk / "checkpoints", snapshot(1))
    for step in range(2, 12):
        with pytest.raises(store.StoreError, match="the disk is full"):
            store.save(disk / "checkpoints", snapshot(step, weights={"large": np.zeros(500_000)}))
        assert os.listdir(disk / "checkpoints") == [path.name]
    assert store.verify(path) == []
    store.save(disk / "checkpoints", snapshot(20))


def test_a_full_disk_is_found_by_the_probe(disk: Path) -> None:
    (disk / "checkpoints").mkdir()
    assert subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler"], capture_output=True, check=False).returncode
    with pytest.raises(store.StoreError, match="the disk is full"):
        store.probe(disk / "checkpoints")
    assert os.listdir(disk / "checkpoints") == []


def test_a_read_only_disk_is_found_by_the_probe_and_can_be_read(disk: Path) -> None:
    path = store.save(disk / "checkpoints", snapshot(1))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(store.StoreError, match="the file system is read-only"):
        store.probe(disk / "checkpoints")
    with pytest.raises(store.StoreError, match="the file system is read-only"), store.RunLock(disk):
        pytest.fail("locked a read-only directory")
    assert store.verify(path) == []
