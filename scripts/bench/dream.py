"""The cost of a step of a dream, in units of a forward and backward pass of the truncated model in the same run.

    python -m scripts.bench.dream [--rounds 7] [--steps 16] [--size 128]

Every round times each contender once, in turn; the minimum over the rounds counts. The reference is a graph of the same
number of passes through a model that Keras itself truncates at the layer, and nothing else. The layer is in the middle,
so that a dream that runs the whole model is noticed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from nameplate.interpret.ascent import Ascent
from nameplate.interpret.objectives import layer
from nameplate.interpret.settings import Parameters, Settings

MOST = 1.1  # times a pass


def main() -> int:
    """Print the ratios; return 1 if one is too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    model, name = backbone(arguments.size)
    images = np.random.default_rng(0).random((1, arguments.size, arguments.size, 3)).astype(np.float32)
    contenders: dict[str, Callable[[], object]] = {"pass": passes(model, name, images, steps=arguments.steps)}
    for parameters in Parameters:
        ascent = Ascent(model, layer(name), Settings(parameters=parameters, steps=arguments.steps))
        contenders[parameters.value] = lambda ascent=ascent: ascent.climb(images)  # type: ignore[misc]
    best = measured(contenders, rounds=arguments.rounds)
    ratios = {name: taken / best["pass"] for name, taken in best.items() if name != "pass"}
    for name, ratio in ratios.items():
        print(f"{name:<8} step / pass  {ratio:.3f}  at most {MOST}  {'ok' if ratio <= MOST else 'TOO MUCH'}")
    return int(any(ratio > MOST for ratio in ratios.values()))


def backbone(size: int) -> tuple[keras.Model, str]:
    """Return a ResNet-50 with random weights, and the name of a layer in its middle."""
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3))
    return model, "conv3_block4_out"


def passes(model: keras.Model, name: str, images: np.ndarray, *, steps: int) -> Callable[[], object]:
    """Return a call with `steps` forward and backward passes through Keras' own truncated model."""
    cut = keras.Model(model.inputs[0], model.get_layer(name).output, name="cut")

    @tf.function(autograph=False)
    def run(given: tf.Tensor) -> tf.Tensor:
        def body(step: tf.Tensor, current: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(current)
                value = tf.reduce_mean(tf.square(cut(current, training=False)))
            return step + 1, current + 1e-9 * tape.gradient(value, current)

        return tf.while_loop(lambda step, _: step < steps, body, (tf.constant(0), given))[1]

    return lambda: run(tf.constant(images)).numpy()


def measured(contenders: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Return the seconds of each contender: the best of `rounds`, after a warm-up round."""
    best = dict.fromkeys(contenders, float("inf"))
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            if turn:
                best[name] = min(best[name], time.perf_counter() - begin)
    print("  ".join(f"{name} {1000 * value:.0f} ms" for name, value in best.items()), flush=True)
    return best


if __name__ == "__main__":
    sys.exit(main())
