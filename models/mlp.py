"""A multilayer perceptron over inputs of any shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from trainer.models import checks, ports
from trainer.models.checks import Activation


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    hidden: Sequence[int] = (128, 64),
    activation: str = Activation.relu,
    dropout: float = 0.0,
) -> keras.Model:
    """Return dense layers of `hidden` units each over the flattened input, then the logits.

    Without hidden layers this is a linear model. `dropout` follows every hidden layer. Raises BuildError for data with
    several inputs or outputs.
    """
    problems = [
        *checks.at_least(1, hidden=hidden),
        *checks.choices(Activation, activation=activation),
        *checks.rates(dropout=dropout),
    ]
    port = ports.single("mlp", inputs, outputs, problems=problems)
    examples = ports.source(port.name, port.shape)
    x = keras.layers.Flatten(name="flat")(examples)
    for number, units in enumerate(hidden, start=1):
        x = keras.layers.Dense(units, activation=str(activation), name=f"hidden{number}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"hidden{number}_dropout")(x)
    return ports.assemble("mlp", examples, ports.logits(x, label=port.label, units=port.units))
