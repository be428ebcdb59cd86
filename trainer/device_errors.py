"""What goes wrong inside a graph, in words: damaged data, memory that is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from models.errors import NameplateError
from trainer.data.errors import data_error


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn an error of TensorFlow's that the user can do something about into one of ours."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise NameplateError(
            f"out of memory on a device: {str(error).splitlines()[0]} "
            "A smaller fit.global_batch, fit.precision=mixed_bfloat16 or data.resident=never needs less."
        ) from error
    except tf.errors.OpError as error:
        found = data_error(error)
        if found is None:
            raise
        raise found from None
