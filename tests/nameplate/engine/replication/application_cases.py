"""Two networks of keras.applications on small pictures, for a few steps."""

from __future__ import annotations

from typing import Any

import keras
from keras import applications

from tests.nameplate.engine.replication.cases import Training
from tests.nameplate.engine.replication.data import draw, labels
from tests.nameplate.engine.replication.nets import classifying
from tests.nameplate.engine.replication.zoo_cases import OPTIMIZERS

SIDE = 48  # pixels: four places for each example where the network is narrowest, and statistics that mean something


def _pictures(size: int) -> tuple[Any, ...]:
    return draw(size, SIDE, SIDE, 3), labels(size)


def _training(architecture: Any, optimizer: str) -> Training:
    def build() -> keras.Model:
        model = architecture(weights=None, input_shape=(SIDE, SIDE, 3), classes=10, classifier_activation=None)
        return classifying(model, OPTIMIZERS[optimizer]())

    return Training(build, _pictures, size=13)


ARCHITECTURES = {"ResNet50": applications.ResNet50, "MobileNetV2": applications.MobileNetV2}
TRAININGS = {
    f"{name}, {optimizer}": _training(architecture, optimizer)
    for name, architecture in ARCHITECTURES.items()
    for optimizer in OPTIMIZERS
}
