"""Trainings whose numbers must not depend on the number of replicas: a model, its data, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from tests.nameplate.engine.replication import nets
from tests.nameplate.engine.replication.data import labels, two_targets, vectors, words

BATCH = 8


@dataclass(frozen=True)
class Training:
    """One training; everything in it is the same for every number of replicas."""

    build: Callable[[], keras.Model]  # compiled, in the strategy's scope
    data: Callable[[int], tuple[Any, ...]]  # number of examples -> (x, y[, weight])
    size: int = 21  # examples: the last step of an epoch has 5, which neither 2 nor 4 divide
    epochs: int = 2
    class_weight: dict[int, float] = field(default_factory=dict)
    on_disk: bool = False  # loaded through tf.data, not held on the devices
    xla: bool = False
    dtype: str = "float64"  # so that nothing hides behind rounding
    rough: bool = False  # some numbers are float32 all the same
    reports: bool = True  # false where a step of the user's own reports what each replica has seen
    several: bool = False  # outputs with losses of their own, whose means model.fit takes over batches, not examples
    draws: bool = False  # random layers: every replica draws its own, so the number of replicas counts


def _optimizer(kind: type[keras.Optimizer], **options: Any) -> Callable[[], keras.Optimizer]:
    return lambda: kind(0.05, **options)


def _dense(kind: type[keras.Optimizer], **options: Any) -> Training:
    return Training(nets.dense(_optimizer(kind, **options)), vectors)


SGD, ADAM, ADAMW = keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW
SUM = keras.losses.MeanSquaredError(reduction="sum")
TRAININGS = {
    "sgd": _dense(SGD, momentum=0.9, nesterov=True),
    "adam": _dense(ADAM),
    "adamw": _dense(ADAMW, weight_decay=0.1),
    "clipnorm": _dense(ADAM, clipnorm=0.01),
    "global_clipnorm": _dense(SGD, global_clipnorm=0.01),
    "clipvalue": _dense(SGD, clipvalue=0.01),
    "averaged weights": _dense(SGD, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "accumulated gradients": _dense(ADAM, gradient_accumulation_steps=2),
    "accumulated, clipped and averaged": _dense(ADAM, gradient_accumulation_steps=2, clipnorm=0.01, use_ema=True),
    "two examples left": Training(nets.dense(nets.adam), vectors, size=18),
    "fewer examples than replicas": Training(nets.dense(nets.adam), vectors, size=3, epochs=4),
    "one example left alone": Training(nets.dense(nets.adam), vectors, size=1, epochs=4),
    "through the pipeline": Training(nets.dense(nets.adam), vectors, on_disk=True),
    "compiled": Training(nets.dense(nets.adam), vectors, xla=True),
    "batch statistics": Training(nets.normalized, vectors, size=17),
    "batch statistics far from zero": Training(nets.normalized, lambda size: vectors(size, mean=1000.0), size=17),
    "batch statistics far from zero, in float32": Training(
        nets.normalized, lambda size: vectors(size, mean=1000.0), size=17, dtype="float32", rough=True
    ),
    "classes weighted": Training(
        nets.classifier, lambda size: (vectors(size)[0], labels(size, 3)), 17, class_weight={0: 3.0, 1: 0.0}
    ),
    "two outputs": Training(nets.two_outputs(), lambda size: two_targets(size, weighted=True), several=True),
    "two outputs, means by weight": Training(
        nets.two_outputs("mean_with_sample_weight"), lambda size: two_targets(size, weighted=True), several=True
    ),
    "two outputs, batch statistics": Training(
        nets.two_outputs(norm=True), lambda size: two_targets(size, weighted=True), several=True
    ),
    "two outputs, one example left": Training(
        nets.two_outputs(), lambda size: two_targets(size, weighted=False), size=17, several=True
    ),
    "sum": Training(nets.dense(nets.adam, SUM), vectors, size=17),
    "a loss that takes the mean": Training(nets.dense(nets.adam, nets.scalar_loss), vectors, size=17),
    "masked": Training(nets.sequences(), words, size=17),
    "masked, four examples left": Training(nets.sequences(), words, size=20),
    "embedding with an optimizer of its own": Training(nets.two_optimizers, words, size=20, reports=False),
    "masked and weighted": Training(
        nets.sequences("mean_with_sample_weight"), lambda size: words(size, weighted=True), size=21
    ),
    "masked sum": Training(nets.sequences("sum"), words, size=17),
    "a bool beside the value": Training(nets.decides, lambda size: (vectors(size)[0], {"value": vectors(size)[1]})),
    "own compute_loss": Training(nets.own(nets.OwnLoss, "mae"), vectors),
    "own compute_loss of what is kept": Training(nets.own(nets.Keeps, "mae"), vectors),
    "own train_step": Training(nets.own(nets.OwnStep, "mae"), vectors, size=16),
    "own train_step, fewer left": Training(nets.own(nets.OwnStep, "mae"), vectors, reports=False),
    "own train_step with a loss by hand": Training(nets.own(nets.ByHand, "mae"), vectors, reports=False),
    "own train_step with batch statistics": Training(nets.own(nets.Normalizes, "mae"), vectors, reports=False),
    "own train_step, one example left": Training(nets.own(nets.Normalizes, "mae"), vectors, size=17, reports=False),
    "own train_step and compute_loss": Training(nets.own(nets.OwnBoth, "mae"), vectors, reports=False),
    "own train_step that tells what it likes": Training(nets.own(nets.Tells), vectors),
    "random layers": Training(nets.noisy, vectors, draws=True),
}
# Small variables of float32 are updated together, and packed for the way between replicas.
PACKED = (
    "sgd",
    "adam",
    "adamw",
    "clipnorm",
    "accumulated, clipped and averaged",
    "two outputs",
    "masked",
    "own train_step",
)
TRAININGS |= {f"{name}, in float32": replace(TRAININGS[name], dtype="float32", rough=True) for name in PACKED}
