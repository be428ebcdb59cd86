"""Errors that Keras and TensorFlow raise for what a user can mend, as errors of ours that say how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from nameplate.data.errors import DataError, data_error
from nameplate.errors import NameplateError, worded

_LABEL = re.compile(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")  # TensorFlow's words
_CALLING = "Exception encountered when calling"  # Keras' first words when a layer raises


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise a `NameplateError` for damaged data, a label that no unit stands for, or memory that does not suffice."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise NameplateError(
            f"out of memory on a device: {str(error).splitlines()[0]} "
            + worded(
                keys="A smaller fit.global_batch, fit.precision=mixed_bfloat16 or data.resident=never needs less.",
                arguments="A smaller batch_size needs less, and so does "
                "keras.config.set_dtype_policy('mixed_bfloat16') before the model is made.",
            )
        ) from error
    except tf.errors.OpError as error:
        known = _label_error(error) or data_error(error)
        if known is None:
            raise
        raise known from None


@contextmanager
def data_errors(model: keras.Model) -> Iterator[None]:
    """Raise a `NameplateError` if Keras finds, as it calls the model, that a layer cannot take what it gets."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if _CALLING not in str(error):
            raise
        raise misfit(f"the data does not fit {model.name!r}: {reason(error)}", error) from error


class MisfitError(NameplateError, ValueError):
    """Data or an objective that does not fit a model, where Keras raises a ValueError."""


class MisfitKeyError(NameplateError, KeyError):
    """As `MisfitError`, where Keras raises a KeyError."""

    __str__ = Exception.__str__  # of a KeyError it would be the message in quotes


def misfit(message: str, error: Exception) -> NameplateError:
    """Return the error with this message that whoever catches Keras' error catches too."""
    return MisfitKeyError(message) if isinstance(error, KeyError) else MisfitError(message)


def reason(error: Exception) -> str:
    """Return what Keras' message says, without its list of arguments; the last line if it says first where it was."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0].strip()
    if not text:
        return type(error).__name__
    return text.splitlines()[-1].strip() if _CALLING in text else " ".join(text.split())


def _label_error(error: tf.errors.OpError) -> DataError | None:
    """Return an error for a label outside of the range of a loss; None if that is not what happened."""
    match = _LABEL.search(str(error))
    if match is None:
        return None
    label, units = int(match[1]), int(match[2])
    return DataError(
        f"the target has the label {label}, and the model's output has {units} units, for the labels 0 to {units - 1}. "
        f"{'Labels count from 0' if label < 0 else f'Give the last layer at least {label + 1} units'}."
    )
