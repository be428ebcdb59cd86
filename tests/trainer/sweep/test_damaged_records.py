"""Records of a sweep that were damaged, or say what no record says: reported wherever they are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh3_128_hexdigest

from nameplate.checkpoint.errors import DamagedError
from nameplate.training.config import From
from tests.trainer.sweep.jobs import job
from trainer.ledger.leaderboard import SweepError, locate
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import decode, encode
from trainer.sweep.__main__ import main

JOBS = [job("abc1", best=0.5, seed=1), job("abd2", best=0.75, seed=2)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "tried")
    for each in JOBS:
        found.commit(each)
        found.home(each.job).mkdir()
    return found


def flip(ledger: Ledger, name: str) -> Path:
    path = ledger.directory / "ledger" / f"{name}.job"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return path


def sealed(**changed: Any) -> bytes:
    """Return a record with other contents and a hash that is right."""
    values = json.loads(encode(JOBS[0]).partition(b"\n")[0]) | changed
    text = json.dumps({name: value for name, value in values.items() if value != "gone"}).encode()
    return text + b"\n" + xxh3_128_hexdigest(text).encode() + b"\n"


@pytest.mark.parametrize("command", [["best", "tried", "--path"], ["best", "tried"], ["best", "tried", "--json"]])
def test_f4_a_sweep_whose_winner_is_damaged_names_no_other(
    command: list[str], ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(ledger, "abd2")
    assert main([*command, "--runs", str(ledger.directory.parent)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "the record of abd2 is damaged" in said.err
    with pytest.raises(SweepError, match="the record of abd2 is damaged"):
        locate("tried", which=From.best, runs=str(ledger.directory.parent))


@pytest.mark.parametrize(
    "command", [["ls"], ["ls", "tried"], ["show", "tried"], ["ls", "--json"], ["show", "tried", "--json"]]
)
def test_f4_a_damaged_record_is_reported_wherever_it_is_read(
    command: list[str], ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--runs", str(ledger.directory.parent)]) == 0
    flip(ledger, "abd2")
    assert main([*command, "--runs", str(ledger.directory.parent)]) == 1
    assert "the record of abd2 is damaged" in capsys.readouterr().err
    assert main(["show", "tried", "abd2", "--runs", str(ledger.directory.parent)]) == 2
    assert "the record of abd2 is damaged" in capsys.readouterr().err


ODD: list[dict[str, Any]] = [
    {"job": "../../.."},
    {"job": ".."},
    {"job": "a/b"},
    {"job": ""},
    {"job": 3},
    {"state": "won"},
    {"state": None},
    {"overrides": "seed=1"},
    {"overrides": [1]},
    {"settings": [1]},
    {"usual": None},
    {"started": "yesterday"},
    {"started": "2026-01-01T00:00:00"},
    {"ended": 3},
    {"seconds": "9"},
    {"seconds": -1.0},
    {"attempts": 1.5},
    {"best": "0.9"},
    {"best": True},
    {"values": {"loss": "low"}},
    {"upwards": 1},
    {"monitor": ["val_loss"]},
    {"error": 3},
    {"exit_code": "1"},
    {"overrides": "gone"},
]


@pytest.mark.parametrize("changed", ODD, ids=str)
def test_f4_a_record_with_a_right_hash_and_odd_contents_is_damaged(
    changed: dict[str, Any], ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DamagedError):
        decode(sealed(**changed))
    (ledger.directory / "ledger" / "abc1.job").write_bytes(sealed(**changed))
    for command in (["ls"], ["ls", "tried"], ["show", "tried"]):
        assert main([*command, "--runs", str(ledger.directory.parent)]) == 1
    assert main(["best", "tried", "--path", "--runs", str(ledger.directory.parent)]) == 2
    assert "the record of abc1 is damaged" in capsys.readouterr().err


def test_f4_a_record_of_another_job_is_not_followed(ledger: Ledger) -> None:
    (ledger.directory / "ledger" / "abc1.job").write_bytes(sealed(job="elsewhere"))
    assert ledger.record("abc1") is None
    assert "belongs to another job, 'elsewhere'" in ledger.damaged()["abc1"]


@pytest.mark.parametrize("content", [b"", b"[1]\n", b"\xff" * 20, b"{}\n" + xxh3_128_hexdigest(b"{}").encode() + b"\n"])
def test_f4_what_is_no_record_is_damaged(content: bytes, ledger: Ledger) -> None:
    (ledger.directory / "ledger" / "abc1.job").write_bytes(content)
    assert list(ledger.damaged()) == ["abc1"]
    assert [each.job for each in ledger.records()] == ["abd2"]


def test_f4_what_is_no_file_is_damaged_and_waited_for_by_nobody(ledger: Ledger) -> None:
    path = ledger.directory / "ledger" / "abc1.job"
    path.unlink()
    os.mkfifo(path)
    assert list(ledger.damaged()) == ["abc1"]
    path.unlink()
    path.mkdir()
    assert list(ledger.damaged()) == ["abc1"]


@pytest.mark.parametrize("command", ["python -c evil", ["python", "-c", "evil"], [1, 2, 3], {"a": 1}, ["python"]])
def test_f4_a_sweep_is_run_again_by_this_program_alone(
    command: Any, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.write_about({"command": command})
    assert main(["rerun", "tried", "--runs", str(ledger.directory.parent)]) == 2
    assert "does not have the command that made it" in capsys.readouterr().err
    assert main(["show", "tried", "--runs", str(ledger.directory.parent)]) == 0


@pytest.mark.parametrize("trust", ["trust=[os]", "+trust=[os]", "trust=['os','sys']", "++trust=[os]", "trust=os"])
def test_f1_a_sweep_from_elsewhere_does_not_bring_its_trust(
    trust: str, ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = tmp_path / "ran"
    evil = ["model=custom", "model._target_=os.system", f"model.arguments={{command: 'touch {ran}'}}", trust]
    ledger.write_about({"command": ["python", "-m", "trainer", "-m", "seed=1", *evil]})
    assert main(["rerun", "tried", "--runs", str(ledger.directory.parent)]) == 2
    assert "trust it again: --trust os" in capsys.readouterr().err
    assert not ran.exists()
