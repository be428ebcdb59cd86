"""`nameplate.fit(run=)` in a script of two workers: one is killed, both end, the same script resumes bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.launch import free_ports
from tests.trainer.running import assert_same, content, records

BOUND = 180.0  # seconds in which both workers end, on a busy machine
SCRIPT = """
import json, os, signal, sys
import numpy as np, tensorflow as tf, keras
import nameplate

strategy = tf.distribute.MultiWorkerMirroredStrategy()
worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
draw = np.random.default_rng(0)
x, y = draw.normal(size=(200, 16)).astype("float32"), draw.integers(0, 4, 200)
keras.utils.set_random_seed(0)
with strategy.scope():
    hidden = keras.layers.Dense(32, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((16,), name="x"), hidden, keras.layers.Dense(4, name="logits")], name="net")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if [worker, int(self.model.optimizer.iterations.numpy())] == json.loads(os.environ.get("AT", "[]")):
            os.kill(os.getpid(), signal.SIGKILL)


nameplate.fit(
    model, x, y, batch_size=20, epochs=3, verbose=0, validation_split=0.2, run=sys.argv[1], callbacks=[Kill()],
    checkpoint=nameplate.Checkpoint(every_steps=3, keep_last=99), log=nameplate.Log(every_steps=1),
)
"""


def codes_of(script: Path, run: Path, at: tuple[int, int] | None = None) -> tuple[list[int], list[str]]:
    """Run the script in two workers and return their exit codes and what they wrote to standard error.

    `at` is the worker that kills itself, and its step.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(cluster), "CUDA_VISIBLE_DEVICES": "-1"}
        environment |= {"AT": json.dumps(at)} if at else {}
        command = [sys.executable, str(script), str(run)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        written = [process.communicate(timeout=BOUND)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], written


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workers") / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def untouched(script: Path) -> Path:
    """Return the run that nothing happened to."""
    run = script.parent / "untouched"
    codes, written = codes_of(script, run)
    assert codes == [0, 0], written
    return run


@pytest.mark.timeout(900)
@pytest.mark.parametrize("worker", [0, 1], ids=["the chief", "another"])
def test_a_worker_of_a_script_is_killed_and_the_same_script_ends_as_if_it_had_not_been(
    script: Path, untouched: Path, worker: int
) -> None:
    run = script.parent / f"killed_{worker}"
    codes, written = codes_of(script, run, at=(worker, 13))
    assert codes[worker] == -9
    assert codes[1 - worker] == 143, written
    assert "another worker is gone" in written[1 - worker]
    assert str(script) not in written[1 - worker]  # no traceback of the script
    codes, written = codes_of(script, run)
    assert codes == [0, 0], written
    assert_same(content(run), content(untouched))
    assert records(run) == records(untouched)
