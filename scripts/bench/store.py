"""Saving and loading, compared with the same bytes raw and with other libraries.

    python -m scripts.bench.store --megabytes 500 --rounds 7 [--keras]

Every round times each contender once, in turn, so that other load on the machine disturbs all alike; the minimum over
the rounds counts. Raw is one file, written and fsynced, and read into arrays of the same sizes. The files of the others
are fsynced for them, which they do not do themselves; what they load is not verified.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from nameplate import checkpoint as store

Arrays = Mapping[str, np.ndarray]
Contender = tuple[Callable[[Path, Arrays], object], Callable[[Path, Arrays], object]]  # (save, load)

LIMITS = {"save": 1.15, "load": 1.2}  # times raw
MOST_MEMORY = 64  # MB besides the arrays, in a synchronous save


def main() -> int:
    """Run the rounds, print the table, and return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Time saving and loading.")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="a directory on the disk to measure; default: a temporary one")
    parser.add_argument("--keras", action="store_true", help="also .weights.h5, .keras and tf.train.Checkpoint")
    arguments = parser.parse_args()
    arrays = _arrays(arguments.megabytes)
    contenders: dict[str, Contender] = {"raw": (raw_save, raw_load), "nameplate": (_save, _load), **_SAFETENSORS}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        extra = _extra_memory(Path(place), arrays)
        if arguments.keras:
            contenders |= {name: (_synced(save), load) for name, (save, load) in _keras(arrays).items()}
        contenders |= _orbax()
        times = _rounds(Path(place), arrays, contenders, arguments.rounds)
    return _report(times, extra)


def raw_save(path: Path, arrays: Arrays) -> None:
    """Write the arrays' bytes to one file, and fsync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for array in arrays.values():
        view = array.reshape(-1).view(np.uint8).data
        while view:
            view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
    os.close(descriptor)


def raw_load(path: Path, arrays: Arrays) -> dict[str, np.ndarray]:
    """Read the file of `raw_save` into arrays of the same shapes."""
    loaded = {}
    with path.open("rb", buffering=0) as file:
        for name, array in arrays.items():
            loaded[name] = np.empty(array.shape, array.dtype)
            file.readinto(loaded[name].reshape(-1).view(np.uint8).data)
    return loaded


def peak_memory(*, reset: bool = False) -> float:
    """Return the peak memory of this process in MB, since its start or since the last `reset`."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024 / 1e6


def _arrays(megabytes: int) -> dict[str, np.ndarray]:
    """Return float32 kernels and biases of a deep network with two slots each, `megabytes` in all."""
    draw = np.random.default_rng(0)
    layers = max(1, round(megabytes * 1e6 / (3 * 4 * 2048 * 2049)))
    arrays: dict[str, np.ndarray] = {}
    for layer in range(layers):
        for suffix in ("", "@m", "@v"):
            arrays[f"layer_{layer}/kernel{suffix}"] = draw.standard_normal((2048, 2048), dtype=np.float32)
            arrays[f"layer_{layer}/bias{suffix}"] = draw.standard_normal(2048, dtype=np.float32)
    return arrays


def _rounds(
    place: Path, arrays: Arrays, contenders: Mapping[str, Contender], rounds: int
) -> dict[str, dict[str, float]]:
    """Return the minimum seconds of each contender: {"save": {name: seconds}, "load": {...}}."""
    times: dict[str, dict[str, float]] = {"save": {}, "load": {}}
    for _ in range(rounds):
        for name, (save, load) in contenders.items():
            path = place / name
            for what, action in (("save", save), ("load", load)):
                started = time.perf_counter()
                kept = action(path, arrays)
                seconds = time.perf_counter() - started
                del kept
                times[what][name] = min(seconds, times[what].get(name, seconds))
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
    return times


def _report(times: Mapping[str, Mapping[str, float]], extra: float) -> int:
    print(f"{'':24}{'save s':>9}{'x raw':>8}{'load s':>9}{'x raw':>8}")
    for name in times["save"]:
        cells = "".join(
            f"{times[what][name]:9.3f}{times[what][name] / times[what]['raw']:8.2f}" for what in ("save", "load")
        )
        print(f"{name:24}{cells}")
    print(f"memory besides the arrays in a save: {extra:.1f} MB")
    missed = [what for what, limit in LIMITS.items() if times[what]["nameplate"] > limit * times[what]["raw"]]
    missed += ["memory"] if extra > MOST_MEMORY else []
    print(f"limits exceeded: {', '.join(missed)}" if missed else "within all limits")
    return 1 if missed else 0


def _save(path: Path, arrays: Arrays) -> None:
    weights = {name: array for name, array in arrays.items() if "@" not in name}
    slots = {name: array for name, array in arrays.items() if "@" in name}
    store.save(path, store.Snapshot(1, 0, 0, weights, slots, {}, {}, "{}", "", {}))


def _load(path: Path, arrays: Arrays) -> list[dict[str, np.ndarray]]:
    with store.open(store.checkpoints(path)[-1]) as checkpoint:
        return [group.load() for group in checkpoint.groups().values()]


def _safetensors_load(path: Path, arrays: Arrays) -> dict[str, np.ndarray]:
    return load_file(path)


def _synced(save: Callable[[Path, Arrays], object]) -> Callable[[Path, Arrays], None]:
    """Return `save` followed by an fsync of everything it wrote."""

    def save_and_sync(path: Path, arrays: Arrays) -> None:
        save(path, arrays)
        for file in [path, *path.rglob("*")]:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    return save_and_sync


def _safetensors_save(path: Path, arrays: Arrays) -> None:
    save_file(dict(arrays), path)


_SAFETENSORS: dict[str, Contender] = {"safetensors": (_synced(_safetensors_save), _safetensors_load)}


def _keras(arrays: Arrays) -> dict[str, Contender]:
    """Return Keras' and TensorFlow's own files, for one model with as many bytes: kernels, biases, two slots each."""
    import keras
    import tensorflow as tf

    layers = sum(name.endswith("/kernel") for name in arrays)
    model = keras.Sequential([keras.layers.Dense(2048, name=f"layer_{layer}") for layer in range(layers)])
    model.build((None, 2048))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    return {
        ".weights.h5": (
            lambda path, _: model.save_weights(_named(path, ".weights.h5")),
            lambda path, _: model.load_weights(_named(path, ".weights.h5")),
        ),
        ".keras": (
            lambda path, _: model.save(_named(path, ".keras")),
            lambda path, _: keras.saving.load_model(_named(path, ".keras")),
        ),
        "tf.train.Checkpoint": (
            lambda path, _: checkpoint.write(_named(path, "")),
            lambda path, _: checkpoint.read(_named(path, "")).expect_partial(),
        ),
    }


def _named(directory: Path, suffix: str) -> str:
    directory.mkdir(exist_ok=True)
    return str(directory / f"model{suffix}")


def _orbax() -> dict[str, Contender]:
    """Return Orbax's checkpointer if it is installed (the extra `bench`); else print a note."""
    try:
        from orbax.checkpoint import PyTreeCheckpointer
    except ImportError:
        print("orbax-checkpoint is not installed (the extra `bench`): not shown")
        return {}
    checkpointer = PyTreeCheckpointer()
    return {
        "orbax": (
            _synced(lambda path, arrays: checkpointer.save(path.absolute(), dict(arrays))),
            lambda path, _: checkpointer.restore(path.absolute()),
        )
    }


def _extra_memory(place: Path, arrays: Arrays) -> float:
    """Return by how many MB a save raises the peak memory of the process."""
    before = peak_memory(reset=True)
    _save(place / "memory", arrays)
    extra = peak_memory() - before
    shutil.rmtree(place / "memory")
    return extra


if __name__ == "__main__":
    sys.exit(main())
