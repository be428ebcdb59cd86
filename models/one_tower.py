"""One input through the tower of `two_tower`, and a head: a target for a tower that was trained on pairs."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from trainer.models import checks, ports
from trainer.models.two_tower import tower


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    width: int = 32,
    features: int = 64,
    hidden: int = 64,
) -> keras.Model:
    """Return a model from one input to the logits of one output.

    The tower is that of `two_tower` with the same `width` and `features`, under the same names (`tower/conv1`), so that
    its weights can be loaded by name; the head has a layer of `hidden` units. Raises BuildError for data with several
    inputs or outputs.
    """
    problems = checks.at_least(1, width=width, features=features, hidden=hidden)
    port = ports.single("one_tower", inputs, outputs, problems=problems)
    image = ports.source(port.name, port.shape)
    x = tower(port.shape, width=width, features=features)(image)
    x = keras.layers.Dense(hidden, activation="relu", name=f"{port.label}_hidden")(x)
    return ports.assemble("one_tower", image, ports.logits(x, label=port.label, units=port.units))
