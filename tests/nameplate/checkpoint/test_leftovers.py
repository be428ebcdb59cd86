from __future__ import annotations

from pathlib import Path

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot


def test_the_next_save_removes_what_a_dead_writer_left(tmp_path: Path) -> None:
    for name in (
        ".saving-step_00000001-12345678",
        ".deleting-step_00000002-12345678",
        ".probing-step_1000000000-12345678",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"half")
    (tmp_path / ".pointing-latest-12345678").write_bytes(b"step")
    path = store.save(tmp_path, snapshot(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_moved_aside_for_one_that_never_came_gets_its_name_back(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(3))
    path.rename(tmp_path / ".replaced-step_00000003-12345678")
    assert store.checkpoints(tmp_path) == []
    assert store.sweep_leftovers(tmp_path) == []
    assert store.checkpoints(tmp_path) == [path]
    assert store.verify(path) == []


def test_a_checkpoint_moved_aside_for_one_that_came_is_removed(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(3))
    path.rename(tmp_path / ".replaced-step_00000003-12345678")
    store.sweep_leftovers(tmp_path)
    (tmp_path / ".replaced-step_00000003-87654321").mkdir()
    assert len(store.sweep_leftovers(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_among_the_leftovers_is_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    (directory / ".saving-step_00000001-12345678").symlink_to(outside)
    store.sweep_leftovers(directory)
    assert (outside / "canary").read_text() == "alive"
    assert list(directory.iterdir()) == []


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden", "step_7", "step_0000000x"):
        (tmp_path / name).write_text("mine")
    path = store.save(tmp_path, snapshot(3))
    store.keep(tmp_path, last=1)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "notes.txt",
        ".hidden",
        "step_7",
        "step_0000000x",
        path.name,
    }
