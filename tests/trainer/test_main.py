"""`python -m trainer` as a user meets it: exit codes, one screen, no traceback, and real kills."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.jobs import run_module
from tests.long import cases
from tests.trainer.running import QUICK, assert_same, command, content, records


@pytest.mark.parametrize(
    "flags", [["--cfg", "job"], ["--help"], ["--list", "model"], ["fit.epoch=1"], ["data=image_folder", "data.root=/x"]]
)
def test_tensorflow_is_not_imported_before_a_job_starts(flags: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["trainer", *{flags!r}]
from trainer.__main__ import main
try:
    main()
finally:
    assert not {{"tensorflow", "keras"}} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "imported" not in done.stderr
    assert done.stdout or done.stderr


def test_help_names_the_groups_and_their_options() -> None:
    done = command("--help")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())  # lines are as wide as the terminal
    assert "applications, convnet, custom, file, mlp, one_tower, resnet, subclassed, two_tower" in words
    assert "fit.global_batch=64" in done.stdout
    assert command("--list", "modl").returncode == 2


def test_a_mistake_is_one_screen_without_traceback_and_exit_code_2(tmp_path: Path) -> None:
    done = command("fit.epoch=3", "model=convent", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "Did you mean fit.epochs" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_main_job_reaches_98_percent_and_says_how_to_go_on(tmp_path: Path) -> None:
    done = run_module(["trainer", "run=digits"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = re.search(r"done: 276 steps in runs/digits, best val_accuracy ([\d.]+)", done.stdout)
    assert best is not None
    assert float(best[1]) >= 0.98
    assert "python -m trainer run=digits" in done.stdout
    assert "tensorboard --logdir runs/digits/tensorboard" in done.stdout
    assert "ckpt ls runs/digits" in done.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "trainer.ckpt", "ls", "runs/digits"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert listed.returncode == 0
    assert "276" in listed.stdout


LONG = [*QUICK, "model=mlp", "model.dropout=0.2", "fit.epochs=400", "data.limit=64", "checkpoint.every_epochs=10"]


def started(runs: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start a long run and return when it has saved its first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", f"runs={runs}", "run=job", *LONG, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not store.checkpoints(runs / "job" / "checkpoints"):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_kill_9_and_the_same_command_end_where_an_uninterrupted_run_does(tmp_path: Path) -> None:
    killed = started(tmp_path / "killed", "fit.epochs=40")
    killed.kill()
    killed.communicate()
    for runs in (tmp_path / "killed", tmp_path / "whole"):
        assert run_module(["trainer", f"runs={runs}", "run=job", *LONG, "fit.epochs=40"]).returncode == 0
    assert_same(content(tmp_path / "killed" / "job"), content(tmp_path / "whole" / "job"))
    assert records(tmp_path / "killed" / "job") == records(tmp_path / "whole" / "job")


# The sweep below ends by SIGTERM, and runs in this process by each of the three (`test_interrupting`).
SIGNALS = cases([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], short=[signal.SIGINT])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_ends_with_its_code(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number is signal.SIGINT else 143), output
    step = re.search(rf"stopped by {number.name} after step (\d+)", output)
    assert step is not None
    saved = store.checkpoints(tmp_path / "job" / "checkpoints")[-1]
    assert saved.name == f"step_{int(step[1]):08d}"
    assert store.verify(saved) == []
    assert "Traceback" not in output


def test_a_second_job_in_the_same_run_is_refused_at_once(tmp_path: Path) -> None:
    first = started(tmp_path)
    second = command(f"runs={tmp_path}", "run=job", *LONG)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert f"process {first.pid} on host" in second.stderr


def test_a_loss_that_is_not_finite_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    options = ["run=a", *QUICK, "model=mlp", "optimizer=sgd", "optimizer.learning_rate=1e30"]
    done = run_module(["trainer", f"runs={tmp_path}", *options])
    assert done.returncode == 3
    assert "the loss of step" in done.stderr


def test_a_directory_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_module(["trainer", f"runs={tmp_path / 'file'}", "run=a", *QUICK, "model=mlp"])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "epoch 1" not in done.stdout


def test_a_signal_ends_the_whole_sweep(tmp_path: Path) -> None:
    """goodfire spd#741: one that is heard by one job only starts the next."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "-m", f"runs={tmp_path}", "seed=1,2,3", *LONG, "checkpoint.every_epochs=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("sweep/*/checkpoints/step_*/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(list(tmp_path.glob("sweep/*/checkpoints"))) == 1
