"""The zoo without its random layers, each architecture with each of three optimizers."""

from __future__ import annotations

from typing import Any

import keras

from tests.models.cases import Case
from tests.nameplate.engine.replication.cases import Training
from tests.nameplate.engine.replication.data import images, pairs
from tests.nameplate.engine.replication.nets import classifying

# The bias of attention's keys has no gradient but rounding, which Adam divides by itself; a larger epsilon does not.
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01, epsilon=1e-3),
    "adamw": lambda: keras.optimizers.AdamW(0.01, epsilon=1e-3),
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [8, 4]},
    "convnet": {"width": 4, "blocks": [1]},
    "resnet": {"width": 4},
    "vit": {"width": 8, "layers": 1, "heads": 2},
    "subclassed": {"width": 8, "layers": 1},
    "one_tower": {"width": 4, "features": 8, "hidden": 4},
    "two_tower": {"width": 4, "features": 8, "hidden": 4},
}
DROPS = ("mlp", "convnet", "vit", "subclassed")


def _training(name: str, optimizer: str) -> Training:
    parameters = PARAMETERS[name] | ({"dropout": 0.0} if name in DROPS else {})
    case = Case(name, parameters=parameters)
    # In float64, since a residual network of this depth makes of 1e-7 more with each step; its logits stay float32.
    return Training(
        lambda: classifying(case.build(), OPTIMIZERS[optimizer]()),
        pairs if name == "two_tower" else images,
        size=17 if optimizer == "adam" else 21,
        rough=True,
        several=name == "two_tower",
    )


TRAININGS = {f"{name}, {optimizer}": _training(name, optimizer) for name in PARAMETERS for optimizer in OPTIMIZERS}
