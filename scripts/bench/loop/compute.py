"""A ResNet, whose step is mostly computation: the loop must not add to it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from scripts.bench.figures import Figure
from scripts.bench.loop.contenders import BATCH, by_fit, by_us, convolutional, images, pipeline, strategy_over
from scripts.bench.loop.host import Times, ratios
from scripts.bench.loop.timing import marginal
from trainer.job.model import synchronise_batch_norm


def compute(rounds: int) -> tuple[list[Figure], Times]:
    """A step of a ResNet-18 on two replicas, with batch statistics per replica and synchronised."""
    strategy = strategy_over(2)
    with strategy.scope():
        models = [convolutional() for _ in range(4)]
    for model in models[2:]:
        synchronise_batch_norm(model, synchronised=True)
    dataset = pipeline(images(8 * BATCH))
    contenders = {
        "fit": by_fit(models[0], dataset),
        "ours": by_us(models[1], dataset, steps_per_epoch=64),
        "fit, synchronised": by_fit(models[2], dataset),
        "ours, synchronised": by_us(models[3], dataset, steps_per_epoch=64),
    }
    times = marginal(contenders, few=1, many=5, rounds=rounds)
    return [
        *ratios(times, "ours", "fit", 1.0),
        *ratios(times, "ours, synchronised", "fit, synchronised", 1.0),
    ], times


def compute_alone(rounds: int) -> tuple[list[Figure], Times]:
    """A step of a ResNet-18 on one device."""
    strategy_over(1)
    dataset = pipeline(images(8 * BATCH))
    contenders = {
        "fit": by_fit(convolutional(), dataset),
        "ours": by_us(convolutional(), dataset, steps_per_epoch=64),
    }
    times = marginal(contenders, few=1, many=5, rounds=rounds)
    return ratios(times, "ours", "fit", 1.0), times


def on_gpus(rounds: int) -> tuple[list[Figure], Times]:
    """A small step and a ResNet-18's on every GPU of this machine."""
    from scripts.bench.loop.contenders import dense, numbers

    if not tf.config.list_physical_devices("GPU"):
        print("  no GPU here: not measured")
        return [], {}
    strategy = tf.distribute.MirroredStrategy()
    batch = 64 * strategy.num_replicas_in_sync
    arrays, pictures = numbers(), images(8 * batch)
    datasets: list[Any] = [pipeline(arrays), pipeline(pictures, batch=batch)]
    with strategy.scope():
        small, large = [dense() for _ in range(3)], [convolutional(64) for _ in range(3)]
    tiny = marginal(
        {
            "fit": by_fit(small[0], datasets[0]),
            "ours": by_us(small[1], datasets[0], steps_per_epoch=512),
            "ours, arrays": by_us(small[2], arrays, batch_size=BATCH),
        },
        few=50,
        many=450,
        rounds=rounds,
    )
    heavy = marginal(
        {
            "ResNet: fit": by_fit(large[0], datasets[1]),
            "ResNet: ours": by_us(large[1], datasets[1], steps_per_epoch=64),
            "ResNet: ours, arrays": by_us(large[2], pictures, batch_size=batch, steps_per_epoch=8),
        },
        few=2,
        many=8,
        rounds=rounds,
    )
    return [
        *ratios(tiny, "ours", "fit", 0.25),
        *ratios(tiny, "ours, arrays", "fit", 0.15),
        *ratios(heavy, "ResNet: ours", "ResNet: fit", 1.0),
        *ratios(heavy, "ResNet: ours, arrays", "ResNet: fit", 1.0),
    ], tiny | heavy
