"""The ledger: a record a job, whole or not there, and `running` only while somebody holds the job."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nameplate.checkpoint import lock
from nameplate.checkpoint.errors import DamagedError
from tests.trainer.sweep.jobs import job
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State, decode, encode

FULL = job("a", best=math.nan, seed=1, model__hidden=[1, 2], values={"loss": math.inf}, exit_code=-9, error="é\n")


def test_a_record_comes_back_as_it_was_also_what_is_no_number() -> None:
    again = decode(encode(FULL))
    assert again.best is not None
    assert math.isnan(again.best)
    assert replace(again, best=None) == replace(FULL, best=None)


def test_a_field_of_a_later_version_is_left_out() -> None:
    text = encode(job("a")).partition(b"\n")[0]
    from xxhash import xxh3_128_hexdigest

    later = text[:-1] + b',"cost":3}'
    assert decode(later + b"\n" + xxh3_128_hexdigest(later).encode() + b"\n") == job("a")


def test_an_architecture_under_its_former_name_is_read_as_todays() -> None:
    former = replace(job("a"), settings={"model._target_": "models.zoo.mlp.build", "seed": 1}, usual={"seed": "x"})
    assert decode(encode(former)).settings == {"model._target_": "trainer.models.mlp.build", "seed": 1}
    own = replace(former, settings={"model._target_": "models.zoo.mine.build"})
    assert decode(encode(own)) == own


@pytest.mark.parametrize("bit", [3, 200, 4000])
def test_one_flipped_bit_is_damage_and_the_job_counts_as_unknown(tmp_path: Path, bit: int) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(FULL)
    path = tmp_path / "ledger" / "a.job"
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        decode(bytes(data))
    assert ledger.record("a") is None
    assert ledger.records() == []


def test_a_job_that_says_it_runs_and_that_nobody_holds_was_interrupted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.hold("a"):
        ledger.commit(job("a", State.running))
        assert _state(ledger) is State.running
        assert ledger.try_hold("a") is None
    assert _state(ledger) is State.interrupted


def test_the_process_that_was_handed_a_lock_holds_it_when_the_first_is_gone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.hold("a") as descriptor:
        ledger.commit(job("a", State.running))
        command = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[descriptor])
    assert _state(ledger) is State.running
    child.kill()
    child.wait()
    assert _state(ledger) is State.interrupted
    assert child.stdin is not None
    child.stdin.close()


def test_whoever_waits_for_a_lock_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SILENCE", 0.0)
    monkeypatch.setattr(lock, "PAUSE", 0.001)
    holder = lock.take(tmp_path / "lock")
    assert holder is not None
    said = []

    def waiting() -> None:
        said.append(1)
        os.close(holder)

    with lock.held(tmp_path / "lock", waiting=waiting):
        assert said == [1]


def test_the_ledger_is_in_the_order_of_the_plan(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for name, planned in (("b", "2026-01-01"), ("a", "2026-01-02")):
        ledger.commit(job(name, State.planned, planned=planned))
    assert [each.job for each in ledger.records()] == ["b", "a"]


def _state(ledger: Ledger) -> State:
    found: JobRecord | None = ledger.record("a")
    assert found is not None
    return found.state


def test_what_a_dead_writer_left_is_deleted_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(job("a"))
    old, fresh = (tmp_path / "ledger" / f".new-{name}" for name in ("old", "fresh"))
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    ledger.tidy()
    assert (old.exists(), fresh.exists(), [each.job for each in ledger.records()]) == (False, True, ["a"])
