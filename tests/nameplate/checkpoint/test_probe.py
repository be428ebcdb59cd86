from __future__ import annotations

from pathlib import Path

import pytest

from nameplate import checkpoint as store


def test_a_good_place_is_left_as_it_was(tmp_path: Path) -> None:
    store.probe(tmp_path / "run" / "checkpoints")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(store.StoreError, match="is a file, not a directory"):
        store.probe(tmp_path / "run" / "checkpoints")
    with pytest.raises(store.StoreError, match="is a file, not a directory"):
        store.probe(tmp_path / "run")


@pytest.mark.parametrize("length", [256, 5000])
def test_a_name_that_is_too_long_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(store.StoreError, match="the path is too long"):
        store.probe(tmp_path / ("x" * length))


def test_a_directory_in_which_only_the_name_of_a_save_would_be_too_long_is_refused(tmp_path: Path) -> None:
    deep = tmp_path
    while len(str(deep)) < 4096 - 200 - 60:
        deep = deep / ("x" * 199)
    deep = deep / ("y" * (4096 - 50 - len(str(deep))))
    with pytest.raises(store.StoreError, match="the path is too long"):
        store.probe(deep)


def test_a_link_that_leads_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(store.StoreError, match="failed"):
        store.probe(tmp_path / "loop")


def test_a_place_where_nobody_may_write_is_refused() -> None:
    with pytest.raises(store.StoreError, match="failed"):
        store.probe(Path("/proc/nameplate"))
