from __future__ import annotations

from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot


def ruin(path: Path, file: str = "weights.safetensors") -> None:
    data = bytearray((path / file).read_bytes())
    data[-1] ^= 1
    (path / file).write_bytes(data)


class Reports:
    """Records the damage that is reported."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.messages: list[str] = []

    def __call__(self, path: Path, error: Exception) -> None:
        self.paths.append(path)
        self.messages.append(str(error))


def test_an_empty_or_missing_directory_has_no_newest(tmp_path: Path) -> None:
    reports = Reports()
    assert store.newest_good(tmp_path, reports) is None
    assert store.newest_good(tmp_path / "never", reports) is None
    assert reports.paths == []


def test_the_newest_has_the_highest_step_whatever_its_time(tmp_path: Path) -> None:
    for step in (900, 1000, 99_999_999, 100_000_000, 30):
        store.save(tmp_path, snapshot(step))
    opened = store.newest_good(tmp_path, Reports())
    assert opened is not None
    assert opened.step == 100_000_000
    assert [path.name for path in store.checkpoints(tmp_path)] == [
        "step_00000030",
        "step_00000900",
        "step_00001000",
        "step_99999999",
        "step_100000000",
    ]


@pytest.mark.parametrize("file", ["weights.safetensors", "config.yaml", "manifest.json"])
def test_damaged_ones_are_passed_over_and_reported(tmp_path: Path, file: str) -> None:
    paths = [store.save(tmp_path, snapshot(step)) for step in (1, 2, 3)]
    ruin(paths[2], file)
    ruin(paths[1])
    reports = Reports()
    opened = store.newest_good(tmp_path, reports)
    assert opened is not None
    assert opened.step == 1
    assert reports.paths == [paths[2], paths[1]]
    assert file in reports.messages[0]
    assert "head/none" not in reports.messages[1]
    assert "weights.safetensors: tensor " in reports.messages[1]


def test_none_good_left_is_an_error_of_its_own_that_names_them_all(tmp_path: Path) -> None:
    for step in (1, 2):
        ruin(store.save(tmp_path, snapshot(step)))
    with pytest.raises(store.NothingGoodError, match=r"step_00000002(.|\n)*step_00000001"):
        store.newest_good(tmp_path, Reports())


def test_loading_falls_back_when_the_damage_shows_only_while_loading(tmp_path: Path) -> None:
    store.save(tmp_path, snapshot(1))
    ruin(store.save(tmp_path, snapshot(2)))
    reports = Reports()
    loaded = store.load_newest(tmp_path, lambda opened: (opened.step, dict(opened.weights)), reports)
    assert loaded is not None
    assert loaded[0] == 1
    assert len(reports.paths) == 1


def test_another_error_of_the_loader_is_not_taken_for_damage(tmp_path: Path) -> None:
    store.save(tmp_path, snapshot(1))

    def refuse(opened: store.Checkpoint) -> None:
        raise store.StoreError("another model")

    with pytest.raises(store.StoreError, match="another model"):
        store.load_newest(tmp_path, refuse, Reports())


def test_a_checkpoint_deleted_under_the_reader_is_not_damage(tmp_path: Path) -> None:
    paths = [store.save(tmp_path, snapshot(step)) for step in (1, 2)]
    reports = Reports()

    def load(opened: store.Checkpoint) -> int:
        if opened.step == 2:
            store.keep(tmp_path, last=0, protect=[paths[0]])
            raise store.DamagedError("vanished")
        return opened.step

    assert store.load_newest(tmp_path, load, reports) == 1
    assert reports.paths == []


def test_an_open_checkpoint_is_read_to_the_end_though_retention_deletes_it(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot(1))
    with store.open(path) as opened:
        store.save(tmp_path, snapshot(2))
        assert store.keep(tmp_path, last=1).removed == (path,)
        assert not path.exists()
        assert len(dict(opened.weights)) == 5
        assert opened.config


def test_a_newer_format_is_refused_with_what_to_install_and_not_passed_over(tmp_path: Path) -> None:
    from xxhash import xxh3_128_hexdigest

    store.save(tmp_path, snapshot(1))
    path = store.save(tmp_path, snapshot(2))
    _, _, body = (path / "manifest.json").read_bytes().partition(b"\n")
    body = body.replace(b'"version":1', b'"version":2', 1)
    seal = f'{{"manifest_xxh3":"{xxh3_128_hexdigest(body)}",\n'.encode()
    (path / "manifest.json").write_bytes(seal + body)
    with pytest.raises(store.NewerFormatError, match=r"format version 2; .* up to 1\. Install"):
        store.newest_good(tmp_path, Reports())
