"""What goes wrong inside a graph, in words: damaged data, memory that is not enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from nameplate.data.errors import DataError, data_error
from nameplate.errors import NameplateError

_LABEL = re.compile(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")  # TensorFlow's words


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
        found = _label_error(error) or data_error(error)
        if found is None:
            raise
        raise found from None


def _label_error(error: tf.errors.OpError) -> DataError | None:
    """Return what a loss said of a label that no unit stands for, or None where the error is another one."""
    found = _LABEL.search(str(error))
    if found is None:
        return None
    label, units = int(found[1]), int(found[2])
    return DataError(
        f"the target has the label {label}, and the model's output has {units} units, for the labels 0 to {units - 1}. "
        f"{'Labels count from 0' if label < 0 else f'Give the last layer at least {label + 1} units'}."
    )
