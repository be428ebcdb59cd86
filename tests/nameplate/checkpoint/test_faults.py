"""Kills and errors at the system calls of a save, in short; all calls in all scenarios are in tests/faults."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.nameplate.checkpoint.faults import OLD, prepare, sweep
from tests.nameplate.checkpoint.injection import Injector


@pytest.mark.parametrize(
    ("scenario", "call"),
    [
        ("following", "write"),
        ("following", "fsync"),
        ("following", "rename"),
        ("following", "unlinkat"),
        ("replacing", "rename"),
        ("first", "mkdir"),
    ],
)
def test_a_kill_at_any_call_leaves_old_or_new(inject: Injector, tmp_path: Path, scenario: str, call: str) -> None:
    outcomes = dict(sweep(inject, tmp_path / "run", scenario, call, "signal=SIGKILL:when={number}"))
    assert len(outcomes) >= 3
    assert {outcome.code for outcome in outcomes.values()} == {-signal.SIGKILL}


@pytest.mark.parametrize(("call", "error"), [("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "EROFS")])
def test_an_error_at_any_call_is_told_and_leaves_old_or_new(
    inject: Injector, tmp_path: Path, call: str, error: str
) -> None:
    for _, outcome in sweep(inject, tmp_path / "run", "following", call, f"error={error}:when={{number}}"):
        assert outcome.code in (0, 1)
        if "saved" in outcome.said and outcome.code == 0:
            assert outcome.said[-1] == "kept, 1 failed"  # the error was one of deleting, which only warns
        else:
            assert f"({error})" in outcome.said[-1]


def test_a_disk_that_stays_full_leaves_the_old_one(inject: Injector, tmp_path: Path) -> None:
    for _, outcome in sweep(inject, tmp_path / "run", "following", "write", "error=ENOSPC:when={number}+"):
        assert outcome.code == 1
        assert "the disk is full" in outcome.said[-1]


@pytest.mark.parametrize("call", ["openat", "pread64", "preadv,preadv2", "newfstatat", "getdents64"])
def test_a_stale_handle_while_reading_is_tried_again(inject: Injector, tmp_path: Path, call: str) -> None:
    prepare(tmp_path / "run", "reading")
    hits = 0
    while True:
        outcome = inject.run(tmp_path / "run", "reading", f"{call}:error=ESTALE:when={hits + 1}")
        assert (outcome.code, outcome.said) == (0, [f"read 1 {OLD!r} 29"])
        if not outcome.hit:
            break
        hits += 1
    assert hits


def test_an_unreadable_sector_of_the_newest_sends_the_reader_to_the_one_before(
    inject: Injector, tmp_path: Path
) -> None:
    from nameplate import checkpoint as store
    from tests.nameplate.checkpoint.samples import snapshot

    prepare(tmp_path / "run", "reading")
    store.save(tmp_path / "run" / "checkpoints", snapshot(2))
    number = 0
    while True:
        number += 1
        outcome = inject.run(tmp_path / "run", "reading", f"preadv,preadv2:error=EIO:when={number}")
        if not outcome.hit:
            break
        assert outcome.code in (0, 1)
        assert "(EIO)" in outcome.said[0]
        assert "step_00000002" in outcome.said[0]
