"""Stock Keras on one device as the oracle of a training on two replicas, in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import nameplate

# Two programs in float32, in which sums are taken in another order: 1e-7 a sum, a few hundred of them in a row.
TOLERANCE: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-5}


def same_as_keras(
    strategy: Any,
    build: Callable[[], keras.Model],
    data: tuple[Any, ...],
    *,
    batch_size: int = 8,
    epochs: int = 2,
    validation: bool = True,
    **options: Any,
) -> keras.Model:
    """Train what `build` compiles by `model.fit` alone and by `nameplate.fit` on two replicas; assert one history.

    Weights, history and evaluation are compared. Returns the model of the two replicas. Where the sizes of batches
    differ among each other, every share does too: 21 examples in eights give 4 + 4, 4 + 4 and 3 + 2.
    """
    keras.utils.set_random_seed(3)
    alone = build()
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    held_out = data if validation else None
    expected = alone.fit(
        x,
        y,
        sample_weight=weight,
        validation_data=held_out,
        batch_size=batch_size,
        validation_batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    ).history
    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = build()
    history = nameplate.fit(
        model, data, validation_data=held_out, batch_size=batch_size, epochs=epochs, shuffle=False, **options
    ).history
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(np.array(history[name]), np.array(values), err_msg=name, **TOLERANCE)
    for here, there in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_allclose(here.numpy(), there.numpy(), err_msg=there.path, **TOLERANCE)
    if validation:
        measured = nameplate.evaluate(model, data, batch_size=batch_size)
        told = alone.evaluate(x, y, sample_weight=weight, batch_size=batch_size, verbose=0, return_dict=True)
        assert measured.keys() == told.keys()
        for name, value in told.items():
            np.testing.assert_allclose(measured[name], np.array(value), err_msg=name, **TOLERANCE)
    return model
