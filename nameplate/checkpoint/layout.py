"""The layout of a directory of checkpoints and of one checkpoint: strings and directory listings only.

::

    checkpoints/
        step_00001200/              complete: it appeared by one rename
            weights.safetensors     or weights-00001-of-00003.safetensors, ...
            optimizer.safetensors
            state.safetensors
            model.json  config.yaml
            manifest.json           written last
        latest  best                pointers
        .saving-step_00001300-...   temporaries of a writer, or leftovers of a dead one
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nameplate.checkpoint.errors import StoreError, explained
from nameplate.checkpoint.files import patiently

MANIFEST = "manifest.json"
MODEL = "model.json"
CONFIG = "config.yaml"
GROUPS = ("weights", "optimizer", "state")

SAVING = ".saving-"
DELETING = ".deleting-"
REPLACED = ".replaced-"
POINTING = ".pointing-"
PROBING = ".probing-"
TEMPORARIES = (SAVING, DELETING, REPLACED, POINTING, PROBING)

_LISTINGS = 100  # attempts at a directory in which every listed checkpoint is deleted before it is examined

_STEP = re.compile(r"step_(\d{8,18})\Z", re.ASCII)
_SHARD = re.compile(r"(weights|optimizer|state)(?:-(\d{5})-of-(\d{5}))?\.safetensors\Z", re.ASCII)
_POINTER = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")


def step_name(step: int) -> str:
    """Return the name of the checkpoint of `step`: `step_00001200`."""
    return f"step_{step:08d}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint called `name`, or None where it is not a checkpoint's name."""
    match = _STEP.match(name)
    if not match or step_name(int(match[1])) != name:
        return None
    return int(match[1])


def checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints in `directory` by step, the newest last; none where it does not exist.

    While a run saves and deletes there, at least one of those that existed at some moment of the call is returned.
    """
    for _ in range(_LISTINGS):
        listed = {step: directory / name for name in listing(directory) if (step := step_of(name)) is not None}
        complete = [listed[step] for step in sorted(listed) if has_manifest(listed[step])]
        if complete or all(os.path.lexists(path) for path in listed.values()):
            break  # otherwise all that was listed has been deleted, and a newer one exists
    return complete


def has_manifest(path: Path) -> bool:
    """Return whether `path` is a directory with a manifest. Raises `StoreError` when that cannot be determined."""
    try:
        with explained("Looking for", path / MANIFEST):
            patiently(lambda: os.lstat(path / MANIFEST))
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return False
        raise
    return True


def listing(directory: Path) -> list[str]:
    """Return the names in `directory`, sorted; none where it does not exist."""
    try:
        with explained("Listing", directory):
            return sorted(patiently(lambda: os.listdir(directory)))
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return []
        raise


def shard_name(group: str, index: int, count: int) -> str:
    """Return the name of file `index` (from 0) of the `count` files that hold the tensors of `group`."""
    return f"{group}.safetensors" if count == 1 else f"{group}-{index + 1:05d}-of-{count:05d}.safetensors"


def group_of(name: str) -> str | None:
    """Return the group whose tensors a file called `name` holds, or None for another file."""
    match = _SHARD.match(name)
    return match[1] if match else None


def is_pointer_name(name: str) -> bool:
    """Return whether a pointer may be called `name`: short, lower case, and not a checkpoint's name."""
    return bool(_POINTER.match(name)) and step_of(name) is None
