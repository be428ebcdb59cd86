"""Logs that were damaged, or have something else in their place, do not keep a run from going on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.running import content, records, train

pytestmark = pytest.mark.usefixtures("strategy")

OPTIONS = ["model=mlp", "data.limit=16", "run=a", "strategy=single", "log.every_steps=1", "log.tensorboard=true"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"step")] ^= 0x80  # no UTF-8 any more
    path.write_bytes(bytes(data))


def odd(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    strange = [b"[1, 2]", b'{"step": "many"}', b'{"step": 1e999}', b"[" * 10_000, b"", b'{"step": [1]}', b"\x00" * 9]
    path.write_bytes(b"\n".join([*strange, *lines, b'{"step": 1, "ep']))


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, tuple[str, Callable[[Path], None], int]] = {
    "a flipped bit": ("line 1 cannot be read", flip, 1),
    "odd lines": ("lines 1, 2, 3, 4, 5 and 2 more cannot be read", odd, 0),
    "a directory": ("metrics.jsonl is not a file; it is set aside as metrics.aside-3.jsonl", replaced(Path.mkdir), 99),
    "a pipe": ("metrics.jsonl is not a file", replaced(lambda path: os.mkfifo(path)), 99),
    "a link to nowhere": ("metrics.jsonl is not a file", replaced(lambda path: path.symlink_to("/nowhere/x")), 99),
}


def test_f6_a_damaged_log_does_not_keep_a_run_from_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, *OPTIONS, "fit.steps=1")
    steps = 1
    for damage, (words, action, lost) in DAMAGES.items():
        before = len(records(tmp_path / "a"))
        action(tmp_path / "a" / "metrics.jsonl")
        capsys.readouterr()
        steps += 1
        train(tmp_path, *OPTIONS, f"fit.steps={steps}")
        said = capsys.readouterr().out
        assert words in said, damage
        kept = [record for record in records(tmp_path / "a") if record["step"] < steps]
        assert len(kept) == max(before - lost, 0), damage
        assert any(record["step"] == steps for record in records(tmp_path / "a")), damage
    assert len(list((tmp_path / "a").glob("metrics.aside-*.jsonl"))) >= 4
    assert int(content(tmp_path / "a")["state:optimizer/iteration"]) == steps


def test_f6_other_files_of_a_run_are_set_aside_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, *OPTIONS, "fit.steps=1")
    run = tmp_path / "a"
    for name in ("config.yaml", "requeue.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()
    events = next((run / "tensorboard" / "train").glob("events.*"))
    data = bytearray(events.read_bytes())
    data[14:30] = b"\xff" * 16  # inside the first event
    events.write_bytes(bytes(data))
    capsys.readouterr()
    train(tmp_path, *OPTIONS, "fit.steps=2")
    said = capsys.readouterr().out
    assert "config.yaml is not a file; it is set aside as config.aside-1.yaml" in said
    assert "requeue.json is not a file" in said
    assert (run / "config.yaml").is_file()
    assert [record["step"] for record in records(run) if record["kind"] == "epoch"][-1] == 2
    os.rename(run / "tensorboard", run / "elsewhere")
    (run / "tensorboard").write_text("not a directory")
    train(tmp_path, *OPTIONS, "fit.steps=3")
    assert "tensorboard is not a directory" in capsys.readouterr().out
    assert (run / "tensorboard" / "train").is_dir()
