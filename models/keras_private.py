"""The private parts of Keras that the architectures rely on, of keras 3.15.1.

tests/models/test_keras_private.py says which one has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from keras.src.backend import config
from keras.src.utils import file_utils


def cache_folder() -> Path:
    """Return the folder in which Keras keeps what it downloads (`keras_home`, backend/config.py)."""
    return Path(config.keras_home()).expanduser()


@contextlib.contextmanager
def downloads_answered(answer: Callable[..., str]) -> Iterator[None]:
    """Let `answer` say where the file is that an architecture of `keras.applications` asks for.

    It gets the arguments of `keras.utils.get_file`, which the architectures look up in utils/file_utils.py.
    """
    before = file_utils.get_file
    file_utils.get_file = answer
    try:
        yield
    finally:
        file_utils.get_file = before
