"""What lies where a file is expected: pipes, links and devices neither hang a command nor lead it elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate import checkpoint as store
from nameplate.checkpoint.lock import is_free, take
from nameplate.data.config import ImageFolderConfig
from nameplate.data.errors import DataError
from nameplate.data.image_folder import open_image_folder
from nameplate.data.specs import array_headers
from nameplate.errors import NameplateError
from nameplate.formats import open_weights
from nameplate.formats.registry import read_table
from nameplate.interpret.image_files import read_image
from nameplate.training.console import INTERRUPTED
from nameplate.training.run_directory import require_free
from trainer.config import refuse_places, run_config


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def at_once(action: Callable[[], object]) -> None:
    """Refused in words; a reader that waits for a pipe is let go by a writer, and fails the test."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(60), "it waits for the pipe"
    assert failures
    assert isinstance(failures[0], NameplateError | ValueError), failures


def images(root: Path) -> Path:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(root / label / f"{number}.png")
    return root


def test_f7_a_lock_that_is_a_link_overwrites_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    for kind in ("symbolic", "hard"):
        run = tmp_path / kind
        run.mkdir()
        (os.symlink if kind == "symbolic" else os.link)(precious, run / ".lock")
        with pytest.raises(store.StoreError, match="link"):
            store.RunLock(run).__enter__()
        with pytest.raises(store.StoreError, match="link"):
            require_free(tmp_path / kind)
        with pytest.raises(store.StoreError, match="link"):
            take(run / ".lock")
    assert precious.read_text() == "mine"


def test_f7_a_lock_that_leads_nowhere_makes_no_file_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(store.StoreError, match="link"):
        store.RunLock(tmp_path / "run").__enter__()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m.safetensors", "m.pt", "m.index"])
def test_f7_a_pipe_in_the_place_of_a_model_is_refused(name: str, tmp_path: Path) -> None:
    path = pipe(tmp_path / name)
    at_once(lambda: open_weights(path))
    at_once(lambda: read_table(path))


def test_f7_a_pipe_in_a_run_is_refused(tmp_path: Path) -> None:
    at_once(lambda: store.RunLock(pipe(tmp_path / "run" / ".lock").parent).__enter__())
    at_once(lambda: store.resolve(pipe(tmp_path / "checkpoints" / "best").parent, "best"))
    at_once(lambda: take(pipe(tmp_path / "ledger" / "a.lock")))
    at_once(lambda: is_free(tmp_path / "ledger" / "a.lock"))


def test_f7_a_pipe_among_data_is_refused(tmp_path: Path) -> None:
    at_once(lambda: array_headers(pipe(tmp_path / "data.npz")))
    at_once(lambda: array_headers(pipe(tmp_path / "arrays" / "x.npy").parent))
    at_once(lambda: read_image(pipe(tmp_path / "start.png"), channels=3))
    names = ["data.inputs=[x]", "data.targets=[y]"]
    at_once(lambda: run_config(["data=arrays", f"data.path={tmp_path / 'data.npz'}", *names]))
    at_once(lambda: run_config(["data=csv", f"data.path={pipe(tmp_path / 't.csv')}", "data.values=[y]"]))
    records = ["data=records", "data.features={x: float32[2], y: int64}", *names]
    at_once(lambda: run_config([*records, f"data.files=[{pipe(tmp_path / 't.tfrecord')}]"]))


def test_f7_what_is_no_file_among_images_is_named(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    pipe(root / "a" / "pipe.png")
    (root / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "b" / "deep").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "b" / "deep" / "s.bmp"))
    (root / "b" / "notes").symlink_to(root / "b")  # a circle
    config = ImageFolderConfig(root=str(root), height=4, width=4)
    with pytest.raises(DataError) as error:
        open_image_folder(config)
    for name in ("pipe.png is a pipe", "gone.jpg is a broken link", "s.bmp is a pipe, a socket"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.a._target_=tests.trainer.test_hostile_places.ran",
        "+hydra.callbacks={a: {_target_: tests.trainer.test_hostile_places.ran}}",
        "hydra.launcher._target_=tests.trainer.test_hostile_places.ran",
        "+hydra.job_logging.handlers.a.class=tests.trainer.test_hostile_places.ran",
        "+hydra.callbacks.a._target_=logging.config.fileConfig",
        "+hydra.callbacks.a._target_=hydra.utils.call",
        "--experimental-rerun=config.pickle",
        "--config-path=/elsewhere",
        "-cn=other",
    ],
)
def test_f7_hydra_imports_nothing_that_a_command_line_names_without_trust(override: str) -> None:
    """Not even to compose: it asks nobody."""
    with pytest.raises(NameplateError, match=r"may not be imported by Hydra|not accepted|conf/train.yaml"):
        run_config([override])


def test_f7_hydra_own_and_trusted_callbacks_are_taken() -> None:
    assert run_config(["hydra.job.chdir=false"]).seed == 0
    for option in ("hydra/sweeper=optuna", "hydra/launcher=joblib", "hydra/launcher=submitit_local"):
        refuse_places([option, "hydra.job.name=other"])
    assert run_config(["+hydra.callbacks.a._target_=my_package.Callback", "trust=[my_package]"]).trust == ["my_package"]


PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background ignores it
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
{preparation}
sys.argv = ["trainer", "run=a", "runs=" + {runs!r}]
from trainer.__main__ import main
sys.exit(main())
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
MOMENTS = {
    "a class is made": "import trainer.config.composing as at; at.readable = lambda _: exec(INTERRUPT)",
    "Hydra is imported": "import trainer.config.composing as at; at.readable = lambda _: " + INTERRUPT,
    "the directory is made": "import nameplate.training.run_directory as at; at.require_free = lambda *_: " + INTERRUPT,
    "TensorFlow is imported": "import nameplate.training.console as at; at.import_tensorflow = lambda: " + INTERRUPT,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_f7_an_interrupt_during_start_up_is_a_line_and_130(moment: str, tmp_path: Path) -> None:
    program = PROGRAM.format(preparation=MOMENTS[moment], runs=str(tmp_path / "runs"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == INTERRUPTED == 128 + signal.SIGINT
    assert done.stderr == "stopped by SIGINT\n"
    assert list(tmp_path.iterdir()) == []


def ran(*_: object, **__: object) -> None:
    """Never called."""
    raise AssertionError("code ran without trust")
