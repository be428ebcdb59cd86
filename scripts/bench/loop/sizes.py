"""A step against the number of replicas and the size of the model: what is host time gives way to computing."""

from __future__ import annotations

from scripts.bench.figures import Figure
from scripts.bench.loop.contenders import by_fit, by_us
from scripts.bench.loop.host import Times
from scripts.bench.loop.subjects import BATCH, dense, numbers, pipeline, strategy_over
from scripts.bench.loop.timing import marginal

WIDTHS = (16, 256, 1024)


def replicas_1(rounds: int) -> tuple[list[Figure], Times]:
    """A step of models of three sizes on one device."""
    return _by_size(1, rounds)


def replicas_2(rounds: int) -> tuple[list[Figure], Times]:
    """A step of models of three sizes on two replicas."""
    return _by_size(2, rounds)


def replicas_4(rounds: int) -> tuple[list[Figure], Times]:
    """A step of models of three sizes on four replicas."""
    return _by_size(4, rounds)


def _by_size(replicas: int, rounds: int) -> tuple[list[Figure], Times]:
    strategy = strategy_over(replicas)
    arrays = numbers()
    dataset = pipeline(arrays)
    figures: list[Figure] = []
    times: Times = {}
    for width in WIDTHS:
        with strategy.scope():
            models = [dense(width, layers=2) for _ in range(2)]
        size = f"{models[0].count_params()} parameters"
        contenders = {
            f"fit, {size}": by_fit(models[0], dataset),
            f"ours, {size}": by_us(models[1], arrays, batch_size=BATCH),
        }
        times |= marginal(contenders, few=10, many=110, rounds=rounds)
        figures.append(Figure(f"ours / fit, {size}", times[f"ours, {size}"].wall / times[f"fit, {size}"].wall))
    return figures, times
