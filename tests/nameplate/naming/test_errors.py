"""A message shows the root cause of a Keras error."""

from __future__ import annotations

import pytest

from nameplate.errors import cause

_CONFIG = "config={'name': 'a', " + "'dtype': {'module': 'keras'}, " * 40 + "}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n  and simple", "plain and simple"),
        ("", "ValueError"),
        (
            f"<class 'm.Net'> could not be deserialized properly. {_CONFIG}.\n\nException encountered: Error when "
            f"deserializing class 'Gate' using {_CONFIG}.\n\nException encountered: Gate.__init__() got an unexpected "
            "keyword argument 'trainable'",
            "Gate: Gate.__init__() got an unexpected keyword argument 'trainable'",
        ),
        (
            "Exception encountered when calling Gate.call().\n\n\x1b[1mShapes (3,) and (7,)\x1b[0m\n\n"
            "Arguments received by Gate.call():\n  x=tf.Tensor(shape=(2, 3))",
            "Shapes (3,) and (7,)",
        ),
        (
            "Could not automatically infer the output shape of 'a'. Error encountered:\n\nDimensions must be equal",
            "Dimensions must be equal",
        ),
        ("Please implement `get_config()`.\n\nExample:\n\nclass CustomLayer: ...", "Please implement `get_config()`."),
        (f"Could not locate class 'Gate'. Full object config: {_CONFIG}", "Could not locate class 'Gate'."),
    ],
)
def test_the_cause_of_a_keras_error_is_its_innermost_message(text: str, shown: str) -> None:
    assert cause(ValueError(text)) == shown


def test_a_long_cause_keeps_its_end() -> None:
    shown = cause(ValueError("begins " + "x" * 2000 + " ends"))

    assert len(shown) < 700
    assert shown.startswith("begins")
    assert shown.endswith("ends")
