from __future__ import annotations

from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot


def test_a_pointer_leads_to_where_it_was_last_set(tmp_path: Path) -> None:
    one, two = (store.save(tmp_path, snapshot(step)) for step in (1, 2))
    assert store.resolve(tmp_path, "latest") is None
    store.point(tmp_path, "latest", one)
    store.point(tmp_path, "best", one)
    store.point(tmp_path, "latest", two)
    assert store.pointers(tmp_path) == {"best": one, "latest": two}
    assert len(list(tmp_path.iterdir())) == 4


def test_a_pointer_still_leads_after_its_directory_moved(tmp_path: Path) -> None:
    store.point(tmp_path / "a", "best", store.save(tmp_path / "a", snapshot(1)))
    (tmp_path / "a").rename(tmp_path / "b")
    assert store.resolve(tmp_path / "b", "best") == tmp_path / "b" / "step_00000001"


@pytest.mark.parametrize("name", ["", "Best", "../up", "a b", "step_00000001", ".hidden", "x" * 33])
def test_a_pointer_has_a_plain_name(tmp_path: Path, name: str) -> None:
    path = store.save(tmp_path, snapshot(1))
    with pytest.raises(store.StoreError, match="cannot be called"):
        store.point(tmp_path, name, path)


def test_a_pointer_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(store.StoreError, match="has no such checkpoint"):
        store.point(tmp_path, "latest", tmp_path / "step_00000001")


def test_a_pointer_to_something_deleted_is_damage(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(1))
    store.point(tmp_path, "latest", path)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(store.DamagedError, match="leads to step_00000001, which is gone"):
        store.resolve(tmp_path, "latest")
    assert store.pointers(tmp_path) == {}


def test_a_pointer_of_one_name_copied_over_another_is_damage(tmp_path: Path) -> None:
    store.point(tmp_path, "latest", store.save(tmp_path, snapshot(1)))
    (tmp_path / "best").write_bytes((tmp_path / "latest").read_bytes())
    with pytest.raises(store.DamagedError, match="damaged"):
        store.resolve(tmp_path, "best")
