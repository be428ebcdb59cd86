"""`python -m trainer.doctor`: checks on this machine's devices and disk that the installation keeps the guarantees."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import numpy as np

from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.training.console import Screen, import_tensorflow, interruptible


class Unhealthy(NameplateError):  # noqa: N818 - the result of a check, not an error of the program
    """What is wrong with the installation, and what to do."""


@dataclass(frozen=True)
class Check:
    """One thing that an installation can break."""

    name: str
    run: Callable[[Path], str]  # directory of runs -> result in one line; raises Unhealthy


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Run every check, print a line for each, and return 0 if all hold, else 1."""
    parser = argparse.ArgumentParser(prog="python -m trainer.doctor", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the directory of runs; its disk is checked")
    runs = parser.parse_args(arguments).runs
    screen = Screen()
    import_tensorflow()
    rows = [(check.name, *_tried(check, runs)) for check in CHECKS]
    screen.table("doctor", ("check", "holds", "found"), rows)
    return int(any(holds == "no" for _, holds, _ in rows))


def _tried(check: Check, runs: Path) -> tuple[str, str]:
    try:
        return "yes", check.run(runs)
    except NameplateError as error:
        return "no", str(error)
    except Exception as error:  # any error is this check's result; the other checks go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "no", f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"


def _versions(_: Path) -> str:
    """The installed versions are those that the project is tested with."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in requires("nameplate") or [] if "extra ==" not in line]
    wrong = [
        f"{package.name} {version(package.name)}, needed {package.specifier}"
        for package in wanted
        if not package.specifier.contains(version(package.name), prereleases=True)
    ]
    if wrong:
        raise Unhealthy("; ".join(wrong) + ". Install again from constraints.txt: make setup")
    return ", ".join(f"{package.name} {version(package.name)}" for package in wanted[:3])


def _devices(_: Path) -> str:
    """Every device computes, and the replicas reduce over all of them."""
    import tensorflow as tf

    from nameplate.engine.strategy import describe

    strategy = _strategy()

    @tf.function
    def total() -> Any:
        return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.ones(())))

    sums = [float(value) for value in strategy.experimental_local_results(total())]
    if sums != [float(strategy.num_replicas_in_sync)] * len(sums):
        raise Unhealthy(f"a sum of ones over the replicas gave {sums}; see the collectives of this TensorFlow build")
    return describe(strategy)


def _same_as_one_device(_: Path) -> str:
    """Mirrored training with batch statistics and an uneven last step gives one device's weights."""
    import tensorflow as tf

    alone = _trained(tf.distribute.get_strategy())
    mirrored = _trained(_strategy())
    apart = max(float(np.max(np.abs(alone[name] - mirrored[name]))) for name in alone)
    if not apart < 1e-4:
        raise Unhealthy(f"after 6 steps the weights are {apart:.2g} apart from one device's; float rounding is 1e-6")
    return f"weights at most {apart:.1g} apart after 6 steps"


def _random_apart(_: Path) -> str:
    """Random layers draw differently on each replica."""
    import keras
    import tensorflow as tf

    from nameplate.engine.one_device import as_one_device

    strategy = _strategy()
    with strategy.scope():
        generator = keras.random.SeedGenerator(1)

        @tf.function
        def draw() -> Any:
            with as_one_device():
                return strategy.run(lambda: keras.random.uniform((8,), seed=generator))

        drawn = [numbers.numpy().tobytes() for numbers in strategy.experimental_local_results(draw())]
    if len(set(drawn)) != len(drawn):
        raise Unhealthy("two replicas drew the same numbers; Keras' SeedGenerator works differently from 3.15.1")
    return f"{len(drawn)} replicas, {len(drawn)} different draws"


def _order(_: Path) -> str:
    """An epoch is a permutation, computed from the position."""
    import tensorflow as tf

    from nameplate.data.batches import shuffled

    order = shuffled(tf.range(997, dtype=tf.int64), epoch=1, seed=0, size=997).numpy()
    if sorted(order) != list(range(997)):
        raise Unhealthy("the order of an epoch is not a permutation; tf.raw_ops.RandomIndexShuffle has changed")
    return "every index once"


def _names(_: Path) -> str:
    """A rename moves everything, and a file keeps the names."""
    import keras

    import nameplate

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="first")], name="doctor")
    renamed = nameplate.rename(model, {"first": "second"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        nameplate.save(renamed, path)
        back = nameplate.load(path)
    names = [*nameplate.variables(back), *(variable.path for variable in back.variables)]
    if names[:2] != ["second/kernel", "second/bias"] or any("first" in name for name in names):
        raise Unhealthy(f"after a rename and a reload the variables are {names}; Keras works differently from 3.15.1")
    return "renamed, saved, loaded"


def _store(_: Path) -> str:
    """A flipped bit in a checkpoint is detected."""
    with tempfile.TemporaryDirectory() as folder:
        path = store.save(Path(folder), _snapshot())
        weights = path / "weights.safetensors"
        data = bytearray(weights.read_bytes())
        data[-3] ^= 4
        weights.write_bytes(data)
        damages = store.verify(path)
    if not damages:
        raise Unhealthy("a flipped bit was not detected; is xxhash broken?")
    return str(damages[0])[:60]


def _disk(runs: Path) -> str:
    """The disk of the runs supports what a save does, and locks."""
    existing = next((path for path in [runs, *runs.absolute().parents] if path.exists()), Path())
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=existing) as folder:
        run = Path(folder) / "run"
        store.probe(run / "checkpoints")
        with store.RunLock(run):
            try:
                with store.RunLock(run):
                    raise Unhealthy(f"two locks of one run in {existing}: flock does not hold on this file system")
            except store.LockedError:
                pass
        step = store.save(run / "checkpoints", _snapshot())
        store.point(run / "checkpoints", "latest", step)
    return f"{existing.absolute()}: write, fsync, rename and lock work"


CHECKS = (
    Check("versions", _versions),
    Check("devices", _devices),
    Check("replicas change nothing", _same_as_one_device),
    Check("replicas draw differently", _random_apart),
    Check("order of the data", _order),
    Check("names", _names),
    Check("damage is detected", _store),
    Check("disk of the runs", _disk),
)


@functools.cache
def _strategy() -> Any:
    """Return the strategy of a run on this machine; one for all checks, as a process can hold one."""
    from nameplate.engine.config import StrategyConfig
    from nameplate.engine.strategy import make_strategy

    return make_strategy(StrategyConfig())


def _trained(strategy: Any) -> dict[str, np.ndarray]:
    """Return the weights after two epochs of 25 examples, 8 a step: the last step has one example."""
    import keras

    import nameplate
    from nameplate.graph.model_weights import read

    _strategy()  # configures the devices, which must come before any computation
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(25, 6)).astype("float32"), numbers.normal(size=(25, 2)).astype("float32")
    with strategy.scope():
        layers = [
            keras.layers.Dense(5, use_bias=False, name="body", kernel_initializer=keras.initializers.GlorotNormal(1)),
            keras.layers.BatchNormalization(name="norm", synchronized=True),
            keras.layers.Dense(2, name="head", kernel_initializer=keras.initializers.GlorotNormal(2)),
        ]
        model = keras.Sequential([keras.Input((6,)), *layers], name="doctor")
        model.compile(keras.optimizers.SGD(0.05), "mse")
    size = 8 * strategy.num_replicas_in_sync if strategy.num_replicas_in_sync > 8 else 8
    nameplate.fit(model, (x, y), batch_size=size, epochs=2, shuffle=False, verbose=0)
    return read(model)


def _snapshot() -> store.Snapshot:
    return store.Snapshot(
        step=1,
        epoch=0,
        position=1,
        weights={"layer/kernel": np.ones((3, 2), "float32")},
        optimizer={},
        state={},
        metrics={},
        model="{}",
        config="",
        about={},
    )


if __name__ == "__main__":
    sys.exit(main())
