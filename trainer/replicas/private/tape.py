"""A gradient of one's own, which lasts as long as the tape that it is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record


def with_gradient(
    outputs: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], gradient: Callable[..., Sequence[Any]]
) -> list[tf.Tensor]:
    """Return tensors as computed from the inputs by something whose gradient is `gradient`.

    It is called with the gradients by the outputs and returns those by the inputs. In a graph `tf.custom_gradient`
    keeps such a function, and with it the graph and the data that it holds, until the process ends; and it looks
    through the graph behind the outputs for variables (ops/custom_gradient.py).
    """
    with record.stop_recording():
        found = [tf.identity(each) for each in outputs]
    record.record_operation("WithGradient", found, list(inputs), gradient)
    return found
