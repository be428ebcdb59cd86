"""Readers without the lock, while a writer saves and its retention deletes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from nameplate.checkpoint import layout
from tests.nameplate.checkpoint.faults import prepare
from tests.nameplate.checkpoint.samples import snapshot


def test_a_reader_sees_whole_checkpoints_while_a_hundred_are_saved_and_deleted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepare(run, "following")
    damaged: list[str] = []
    steps: list[int] = []
    command = [sys.executable, "-m", "tests.nameplate.checkpoint.writer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({"run": str(run), "scenario": "many"}) + "\n")
        server.stdin.close()
        child = int(server.stdout.readline())
        os.kill(child, signal.SIGCONT)
        while server.poll() is None:
            opened = store.newest_good(run / "checkpoints", lambda path, error: damaged.append(f"{path.name}: {error}"))
            assert opened is not None
            steps.append(opened.step)
            opened.close()
        assert server.stdout.read() == "0\n"
    assert damaged == []
    assert steps == sorted(steps)
    assert len(set(steps)) > 3


def test_a_slow_reader_finds_the_newer_checkpoint_when_all_that_it_listed_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(tmp_path, snapshot(10))
    listing = layout.listing

    def overtaken(directory: Path) -> list[str]:
        names = listing(directory)
        monkeypatch.setattr(layout, "listing", listing)
        store.save(tmp_path, snapshot(20))
        store.keep(tmp_path, last=1)
        return names

    monkeypatch.setattr(layout, "listing", overtaken)
    assert [path.name for path in store.checkpoints(tmp_path)] == ["step_00000020"]
