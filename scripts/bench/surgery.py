"""The cost of an edit, in units of Keras' own `clone_model` in the same run, and its growth with what is downstream.

    python -m scripts.bench.surgery [--rounds 7] [--layers 400 1600]

Every round times each contender once, in turn; the minimum over the rounds counts. `clone_model` copies no weights; an
edit does, and shares none with the original. With `share=True` layers upstream are not copied, so the cost grows only
with what is downstream. The proof by saving and loading (`verify`) is not included.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers

import nameplate
from nameplate.graph.global_state import deep_graphs
from scripts.bench.figures import verdict
from scripts.bench.naming import row, seconds

MOST = {"first / clone_model": 1.1, "last / clone_model": 1.1, "last, shared / first": 0.25, "first growth": 4.4}


def main() -> int:
    """Print the ratios; return 1 if one is too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, nargs=2, default=(400, 1600), metavar=("SMALL", "LARGE"))
    arguments = parser.parse_args()
    small, large = (measured(count, rounds=arguments.rounds) for count in arguments.layers)
    ratios = {
        "first / clone_model": large["first"] / large["clone_model"],
        "last / clone_model": large["last"] / large["clone_model"],
        "last, shared / first": large["last, shared"] / large["first"],
        "first growth": large["first"] / small["first"],
    }
    return verdict(ratios, MOST)


def measured(count: int, *, rounds: int) -> dict[str, float]:
    """Return the seconds of each contender on a model of this many layers, the best of `rounds`."""
    model = row(count)
    dense = [layer.name for layer in model.layers if isinstance(layer, layers.Dense)]
    with deep_graphs(count):
        contenders: dict[str, Callable[[], object]] = {
            "clone_model": lambda: keras.models.clone_model(model),
            "first": lambda: replaced(model, dense[0]),
            "last": lambda: replaced(model, dense[-1]),
            "last, shared": lambda: replaced(model, dense[-1], share=True),
            "extract": lambda: nameplate.extract(model, dense[-1], inputs=[dense[-9]], verify=False),
        }
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(rounds):
            for name, run in contenders.items():
                gc.collect()  # so that no contender pays for the garbage of the one before
                best[name] = min(best[name], seconds(run))
    times = "  ".join(f"{name} {1000 * value:.0f} ms" for name, value in best.items())
    print(f"{count} layers: {times}", flush=True)
    return best


def replaced(model: keras.Model, name: str, *, share: bool = False) -> keras.Model:
    """Replace one dense layer with another of the same shape."""
    return nameplate.replace(model, {name: layers.Dense(8, activation="relu")}, verify=False, share=share)


if __name__ == "__main__":
    sys.exit(main())
