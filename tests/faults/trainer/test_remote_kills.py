"""A run in a store whose process is killed in the middle of its uploads, each time continued by another machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from nameplate.checkpoint import lease, remote
from tests.stores import serving
from tests.trainer.running import QUICK, assert_same, command, content, records

JOB = [*QUICK, "model=mlp", "data.limit=64", "fit.epochs=12", "checkpoint.every_steps=3", "log.every_steps=1"]
RUN = "runs/killed"


@pytest.mark.timeout(3600)
def test_kills_in_mid_upload_change_nothing(tmp_path: Path) -> None:
    assert command(f"runs={tmp_path}", *JOB, "run=whole").returncode == 0
    with serving() as server:
        kills = 0
        for number in range(100):
            cache = tmp_path / f"machine{number}"
            job = [sys.executable, "-m", "trainer", "runs=s3://bucket/runs", "run=killed", *JOB]
            process = subprocess.Popen(job, env={**os.environ, remote.CACHE: str(cache)}, stdout=subprocess.DEVNULL)
            before, wanted = server.objects(RUN), number % 17 + 2
            while process.poll() is None:
                now = server.objects(RUN)
                if sum(before.get(name) != data for name, data in now.items()) >= wanted:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.001)
            if process.wait() == 0:
                break
            held = server.objects(RUN).get(lease.NAME)
            if held is not None:  # instead of a minute of silence
                server.put(f"{RUN}/{lease.NAME}", held.replace(b'"released": false', b'"released": true'))
    run = remote.cache_of(f"s3://bucket/{RUN}", cache)
    assert kills > 3
    assert_same(content(run), content(tmp_path / "whole"))
    assert records(run) == records(tmp_path / "whole")
    assert [store.verify(path) for path in store.checkpoints(run / "checkpoints")].count([]) >= 3
