"""What TensorFlow writes for TensorBoard: event files, and profiles of steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from nameplate.errors import NameplateError


class EventFile:
    """A new event file in a directory; what is written in it has a step."""

    def __init__(self, directory: Path | str) -> None:
        self._writer = tf.summary.create_file_writer(str(directory))

    def write_text(self, name: str, text: str, *, step: int) -> None:
        """Write a text in Markdown."""
        with self._writer.as_default(step=step):
            tf.summary.text(name, text)

    def write_image(self, name: str, picture: np.ndarray, *, step: int) -> None:
        """Write a picture, (height, width, channels), from 0 to 1."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, picture[None])

    def write_summary(self, serialized: bytes, *, step: int) -> None:
        """Write a `Summary` of TensorBoard's protocol."""
        with self._writer.as_default(step=step):
            tf.summary.experimental.write_raw_pb(serialized)

    def flush(self) -> None:
        """Hand what has been written to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        self._writer.close()


class ProfileError(NameplateError):
    """TensorFlow cannot profile, e.g. because another profiler runs in this process."""


def start_profile(directory: Path) -> None:
    """Profile what TensorFlow computes from here on, to be written in a directory.

    Raises:
        ProfileError: TensorFlow cannot.
    """
    try:
        tf.profiler.experimental.start(str(directory))
    except tf.errors.OpError as error:
        raise ProfileError(error.message) from error


def stop_profile() -> None:
    """Stop the profile that runs, and write it.

    Raises:
        ProfileError: TensorFlow cannot.
    """
    try:
        tf.profiler.experimental.stop()
    except tf.errors.OpError as error:
        raise ProfileError(error.message) from error
