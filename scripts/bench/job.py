"""The cost of checkpoints to a training job: the pause of an asynchronous save, its memory, and a resume.

    python -m scripts.bench.job [--megabytes 500] [--rounds 7]

The state is a model's weights and Adam's two slots, in variables on one device. The pause is compared with copying the
same bytes in memory; a resume, in which every tensor is verified and assigned, with reading the bytes raw. Every round
times each once, in turn; the minimum over the rounds counts. The memory is what an asynchronous save adds at its
peak.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from nameplate.graph.tree import layers
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.config import CheckpointConfig
from nameplate.training.progress import Progress, Texts
from nameplate.training.state import train_state
from scripts.bench.figures import verdict
from scripts.bench.naming import seconds
from scripts.bench.store import peak_memory, raw_load, raw_save

MOST = {"stop / memcpy": 2.0, "resume / raw read": 1.2, "memory / state": 1.1}


def main() -> int:
    """Print the ratios; return 1 if one is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, checkpoints(Path(place), arguments.megabytes) as saves:
        ratios = measured(Path(place), saves, rounds=arguments.rounds)
    return verdict(ratios, MOST)


@contextmanager
def checkpoints(place: Path, megabytes: int) -> Iterator[Checkpoints]:
    """Yield the checkpoints of a job whose weights and slots have about this size."""
    count = max(1, round(megabytes * 1e6 / (3 * 4 * 2048 * 2049)))
    model = keras.Sequential([keras.layers.Dense(2048, name=f"layer_{number}") for number in range(count)], name="row")
    model.build((None, 2048))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    texts = Texts(model="{}", config="", about={}, classes=dict.fromkeys(layers(model), "Dense"))
    config = CheckpointConfig(async_save=True, keep_last=1, keep_best=0)
    state = train_state(model)
    with Checkpoints(
        place / "saves", config, state=state, texts=texts, monitor="loss", callbacks=[], say=_silent
    ) as saves:
        yield saves


def measured(place: Path, saves: Checkpoints, *, rounds: int) -> dict[str, float]:
    """Return the ratios of `MOST`."""
    arrays = {name: array for part in saves._state.capture().values() for name, array in part.items()}
    raw_save(place / "raw", arrays)
    extra = extra_memory(saves)
    contenders: dict[str, Callable[[], object]] = {
        "memcpy": lambda: {name: array.copy() for name, array in arrays.items()},
        "stop": lambda: saves.save(Progress(step=1), {}),
        "raw read": lambda: raw_load(place / "raw", arrays),
        "resume": saves.restore,
    }
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, contender in contenders.items():
            best[name] = min(best[name], seconds(contender))
            saves.wait()
    return {
        "stop / memcpy": best["stop"] / best["memcpy"],
        "resume / raw read": best["resume"] / best["raw read"],
        "memory / state": extra / sum(array.nbytes for array in arrays.values()) * 1e6,
    }


def extra_memory(saves: Checkpoints) -> float:
    """Return by how many MB an asynchronous save raises the peak memory of the process."""
    before = peak_memory(reset=True)
    saves.save(Progress(step=1), {})
    saves.wait()
    return peak_memory() - before


def _silent(line: str) -> None:
    """Print nothing."""


if __name__ == "__main__":
    sys.exit(main())
