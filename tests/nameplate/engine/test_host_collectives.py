"""Two workers, each a process of its own, in short: `make faults` has more of them, and kills some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.running import QUICK, train
from tests.working import assert_alike

OPTIONS = ["model=mlp", "model.hidden=[8]", "model.dropout=0.3", "data.limit=44", "data.validation=0.1", "fit.epochs=2"]


@pytest.mark.usefixtures("strategy")
def test_two_workers_do_what_two_replicas_of_one_process_do(tmp_path: Path) -> None:
    """An epoch of 44 examples ends with a step of 4; dropout draws by replica, wherever it is."""
    train(tmp_path, *OPTIONS, "run=one", "log.every_steps=1")
    command = [sys.executable, "-m", "scripts.launch", "--workers", "2", f"runs={tmp_path}", "run=two"]
    done = subprocess.run(
        [*command, *QUICK, *OPTIONS, "log.every_steps=1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 replicas on 2 workers, 1 CPU each" in done.stdout
    assert done.stdout.count("done: 12 steps") == 1  # the chief speaks
    assert_alike(tmp_path / "one", tmp_path / "two", relative=1e-4)
