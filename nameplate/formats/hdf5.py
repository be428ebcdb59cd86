"""An HDF5 file, read by a process of its own under limits: names, shapes and text attributes, and arrays on demand.

Refused are links that leave the file, external and virtual data (CVE-2026-1669), arrays that would expand without bound
(CVE-2026-0897), and more objects than any model has.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from nameplate.checkpoint import dtypes
from nameplate.errors import FileFormatError
from nameplate.formats.hdf5_process import SECONDS
from nameplate.formats.limits import Budget, budget_of

_TIMEOUT = SECONDS  # seconds without a byte before the process is killed
_PIECE = 1 << 20  # bytes
_MOST_PIECES = 4096  # in one answer, each at most what a pipe holds, usually 64 KiB


@dataclass(frozen=True)
class Contents:
    """What an HDF5 file holds by path, in file order: text attributes, and the (shape, dtype) of datasets."""

    attributes: dict[str, dict[str, Any]]
    datasets: dict[str, tuple[tuple[int, ...], str]]


class Hdf5File:
    """An open HDF5 file; close it with `close` or a `with` block.

    Args:
        path: the file.
        budget: what may come out, when the file is part of another or one of several; its label is used in messages.
    """

    def __init__(self, path: Path, *, budget: Budget | None = None) -> None:
        if not Path(path).is_file():
            raise FileFormatError(f"{budget.label if budget else path}: there is no such file")
        budget = budget or budget_of(Path(path))
        self._label = budget.label
        self._ahead = b""  # bytes already read after a line of JSON
        self._process = _started(Path(path), budget)
        self._end = weakref.finalize(self, _stop, self._process)
        try:
            answer = self._ask("contents")
        except BaseException:
            self.close()
            raise
        try:
            budget.spend(answer["bytes"], items=len(answer["datasets"]) + len(answer["attributes"]))
        except BaseException:
            self.close()
            raise
        datasets = {name: (tuple(shape), dtype) for name, (shape, dtype) in answer["datasets"].items()}
        self.contents = Contents(answer["attributes"], datasets)

    def read(self, path: str) -> np.ndarray:
        """Return the array at a path of `contents.datasets`.

        Raises:
            FileFormatError: when it does not hold numbers, or cannot be read.
        """
        shape, name = self.contents.datasets[path]
        dtype = dtypes.of_name(name)
        if dtype is None:
            raise FileFormatError(f"{self._label}: {path} holds {name}, not numbers")
        nbytes = self._ask("read", path)["nbytes"]
        data = np.empty(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, np.uint8)
        if nbytes != data.nbytes:
            raise FileFormatError(f"{self._label}: {path} has {nbytes} bytes instead of {data.nbytes}")
        view = memoryview(data.data)
        view[: len(self._ahead)] = self._ahead
        view, self._ahead = view[len(self._ahead) :], b""
        while view:
            view = view[self._wait().readinto(view) or self._raise_ended() :]
        return data.view(dtype).reshape(shape)

    def close(self) -> None:
        """End the process."""
        self._end()

    def __enter__(self) -> Hdf5File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, *request: str) -> dict[str, Any]:
        if not self._end.alive:
            raise FileFormatError(f"{self._label} is closed")
        try:
            stdin: IO[bytes] = self._process.stdin  # type: ignore[assignment]
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except OSError:
            pass  # the process has ended; its error is read below
        pieces = [b""]
        while b"\n" not in pieces[-1]:
            pieces.append(self._wait().read(_PIECE) or self._raise_ended())
            if len(pieces) > _MOST_PIECES:
                self.close()
                raise FileFormatError(f"{self._label} is refused: its names and texts are larger than any model's")
        line, _, self._ahead = b"".join(pieces).partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FileFormatError(f"{self._label}: {answer['error']}")
        return answer

    def _wait(self) -> Any:
        """Return the output of the process once there is something to read."""
        stdout: Any = self._process.stdout
        if not select.select([stdout], [], [], _TIMEOUT)[0]:
            self.close()
            raise FileFormatError(f"{self._label}: reading it took longer than {_TIMEOUT} s and was given up")
        return stdout

    def _raise_ended(self) -> Any:
        """Raise what the process printed before it ended."""
        self._process.wait(_TIMEOUT)
        stderr: Any = self._process.stderr
        lines = stderr.read(1 << 16).decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"its reader ended with {self._process.returncode}"
        raise FileFormatError(f"{self._label}: {reason}")


def read_contents(path: Path) -> Contents:
    """Return the contents of an HDF5 file.

    Raises:
        FileFormatError: when it is not an HDF5 file, refers to other files, or is larger than any model.
    """
    with Hdf5File(path) as file:
        return file.contents


def _started(path: Path, budget: Budget) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HDF5_", "PYTHON"))},
        "HDF5_PLUGIN_PATH": os.devnull,
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
    }
    limits = [str(budget.stored), str(budget.allowed)]
    command = [sys.executable, "-m", "nameplate.formats.hdf5_process", str(path.resolve()), *limits]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # a request that the process did not read
                stream.close()
    process.wait()
