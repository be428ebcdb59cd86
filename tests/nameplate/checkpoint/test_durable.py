from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nameplate.checkpoint import durable, lock


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files and directories that are fsynced, and the renames, in their order."""
    seen: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append(f"fsync {kind}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        seen.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    return seen


def test_a_replacement_is_synced_before_its_rename_and_the_directory_after(tmp_path: Path, events: list[str]) -> None:
    with durable.replacement(tmp_path / "m.keras") as draft:
        assert draft.name.endswith("m.keras")
        draft.write_text("new")
    assert events == ["fsync file", "rename to m.keras", "fsync directory"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_replaced_data_is_synced_before_its_rename_and_the_directory_after(tmp_path: Path, events: list[str]) -> None:
    durable.replace_file(tmp_path / "a.txt", b"new")
    assert events == ["fsync file", "rename to a.txt", "fsync directory"]


def test_a_directory_is_put_in_place_after_all_in_it_is_synced(tmp_path: Path, events: list[str]) -> None:
    (tmp_path / "draft" / "inner").mkdir(parents=True)
    (tmp_path / "draft" / "inner" / "a").write_text("a")
    durable.put_in_place(tmp_path / "draft", tmp_path / "made")
    assert events == ["fsync file", "fsync directory", "fsync directory", "rename to made", "fsync directory"]
    assert (tmp_path / "made" / "inner" / "a").read_text() == "a"


@pytest.mark.parametrize("written", [True, False])
def test_a_block_that_raises_leaves_the_old_file_and_no_draft(written: bool, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def write(path: Path) -> None:
        with durable.replacement(path) as draft:
            if written:
                draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "a")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_directory_can_be_locked_itself(tmp_path: Path) -> None:
    for _ in range(2):
        with lock.directory_held(tmp_path):
            pass
    assert not list(tmp_path.iterdir())
