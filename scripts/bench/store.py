"""Saving and loading against the same bytes raw, and against what others write.

    python -m scripts.bench.store --megabytes 500 --rounds 7 [--keras]

Every round times each contender once, one after the other, so that what disturbs the machine disturbs all alike; the
minimum over the rounds counts. Raw is one file, written and fsynced, and read into arrays of the same sizes. What the
others wrote is fsynced for them, which they do not do themselves; what they load is not verified.
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

BARS = {"save": 1.15, "load": 1.2}  # times raw
MOST_MEMORY = 64  # MB beside the arrays, in a synchronous save


def main() -> int:
    """Run the rounds, print the table, and return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description="Time saving and loading.")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured; a temporary one when left out")
    parser.add_argument("--keras", action="store_true", help="also .weights.h5, .keras and tf.train.Checkpoint")
    arguments = parser.parse_args()
    arrays = _arrays(arguments.megabytes)
    contenders: dict[str, Contender] = {"raw": (raw_save, raw_load), "nameplate": (_save, _load), **_SAFETENSORS}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        extra = _extra_memory(Path(place), arrays)
        if arguments.keras:
            from scripts.bench.keras_files import contenders as others

            contenders |= {name: (_synced(save), load) for name, (save, load) in others(arrays).items()}
        contenders |= _orbax()
        times = _rounds(Path(place), arrays, contenders, arguments.rounds)
    return _report(times, extra)


def raw_save(path: Path, arrays: Arrays) -> None:
    """Write the arrays' bytes into one file, and make it durable."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for array in arrays.values():
        view = array.reshape(-1).view(np.uint8).data
        while view:
            view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
    os.close(descriptor)


def raw_load(path: Path, arrays: Arrays) -> dict[str, np.ndarray]:
    """Read what `raw_save` wrote into arrays of the same shapes."""
    loaded = {}
    with path.open("rb", buffering=0) as file:
        for name, array in arrays.items():
            loaded[name] = np.empty(array.shape, array.dtype)
            file.readinto(loaded[name].reshape(-1).view(np.uint8).data)
    return loaded


def peak_memory(*, anew: bool = False) -> float:
    """Return the most MB that this process held at once, since its beginning or since this was last asked `anew`."""
    if anew:
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
    """Return the least seconds of each contender: {"save": {name: seconds}, "load": {...}}."""
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
    print(f"memory beside the arrays in a save: {extra:.1f} MB")
    missed = [what for what, bar in BARS.items() if times[what]["nameplate"] > bar * times[what]["raw"]]
    missed += ["memory"] if extra > MOST_MEMORY else []
    print(f"bars missed: {', '.join(missed)}" if missed else "all bars hold")
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
    """Return `save` followed by an fsync of all that it wrote."""

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


def _orbax() -> dict[str, Contender]:
    """Return Orbax's checkpointer where it is installed (the extra `bench`); without it say so."""
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
    """Return by how many MB the peak of the process rises in a save above what it held before."""
    before = peak_memory(anew=True)
    _save(place / "memory", arrays)
    extra = peak_memory() - before
    shutil.rmtree(place / "memory")
    return extra


if __name__ == "__main__":
    sys.exit(main())
