"""The cost of naming, in units of Keras' own `clone_model` in the same run, and its growth with the model.

    python -m scripts.bench.naming [--rounds 7] [--layers 400 1600]

Every round times each contender once, in turn; the minimum over the rounds counts. `clone_model` copies no weights,
`rename` does. At the end a model of 2000 layers in a row is renamed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers

import nameplate
from nameplate.graph.global_state import deep_graphs
from scripts.bench.figures import verdict

MOST = {"check / clone_model": 0.05, "rename / clone_model": 1.2, "check growth": 4.4, "rename growth": 4.4}


def main() -> int:
    """Print the ratios; return 1 if one is too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, nargs=2, default=(400, 1600), metavar=("SMALL", "LARGE"))
    arguments = parser.parse_args()
    small, large = (measured(count, rounds=arguments.rounds) for count in arguments.layers)
    ratios = {
        "check / clone_model": large["check"] / large["clone_model"],
        "rename / clone_model": large["rename"] / large["clone_model"],
        "check growth": large["check"] / small["check"],
        "rename growth": large["rename"] / small["rename"],
    }
    print(f"clone_model growth    {large['clone_model'] / small['clone_model']:.2f}")
    rename_deep(2000)
    return verdict(ratios, MOST)


def measured(count: int, *, rounds: int) -> dict[str, float]:
    """Return the seconds of each contender on a model of this many layers, the best of `rounds`."""
    model = row(count)
    with deep_graphs(count):
        contenders: dict[str, Callable[[], object]] = {
            "clone_model": lambda: keras.models.clone_model(model),
            "check": lambda: nameplate.check(model, "strict"),
            "rename": lambda: nameplate.rename(model, lambda layer: f"x_{layer.name}"),
        }
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(rounds):
            for name, run in contenders.items():
                best[name] = min(best[name], seconds(run))
    times = "  ".join(f"{name} {1000 * value:.0f} ms" for name, value in best.items())
    print(f"{count} layers: {times}", flush=True)
    return best


def row(count: int) -> keras.Model:
    """Return dense layers in a row, each followed by a normalization or an activation."""
    with deep_graphs(count):
        x = first = keras.Input((8,), name="features")
        for index in range((count - 1) // 2):
            x = layers.Dense(8, name=f"fc{index}")(x)
            kind = (layers.BatchNormalization, layers.ReLU, layers.LayerNormalization)[index % 3]
            x = kind(name=f"then{index}")(x)
        return keras.Model(first, x, name="row")


def rename_deep(count: int) -> None:
    """Rename a model of this many dense layers in a row, and print how long it took."""
    with deep_graphs(count):
        x = first = keras.Input((4,), name="features")
        for index in range(count):
            x = layers.Dense(4, name=f"fc{index}")(x)
        model = keras.Model(first, x, name="deep")
    taken = seconds(lambda: nameplate.rename(model, [(r"fc(\d+)", r"layer\1")]))
    print(f"{count} layers in a row renamed in {taken:.1f} s")


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
