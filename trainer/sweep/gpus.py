"""The GPUs that a process may use, found without TensorFlow: by what is visible, and by what the driver says."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"

_UUID = re.compile(r"\(UUID: ([\w/-]+)\)")


def visible_gpus() -> list[str]:
    """Return the GPUs, as `CUDA_VISIBLE_DEVICES` may name them; by their own names where the driver tells."""
    there = _listed()
    given = os.environ.get(VISIBLE)
    if given is None:
        return list(there)
    found = []
    for each in filter(None, map(str.strip, given.split(","))):
        if each == "-1":
            break  # CUDA reads no further
        index = int(each) if each.isdigit() else -1
        found.append(there[index] if 0 <= index < len(there) else each)
    return found


@cache
def _listed() -> tuple[str, ...]:
    """Return every GPU of the machine, or its parts where it is divided (MIG)."""
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return tuple(str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))
    found: list[str] = []
    for line in said.splitlines():
        if match := _UUID.search(line):
            if line.lstrip().startswith("MIG") and found and found[-1].startswith("GPU"):
                found.pop()  # a divided GPU is used by its parts alone
            found.append(match[1])
    return tuple(found)
