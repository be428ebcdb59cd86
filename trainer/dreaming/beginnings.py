"""A start image by what it is called: a file, a pattern that is computed, a photograph of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.dreaming.files import read_image
from trainer.dreaming.starts import CREDITS, PATTERNS, PHOTOGRAPHS, start_image


def pixels_of(name: str, size: tuple[int, int], *, channels: int, own: bool) -> np.ndarray:
    """Return a start image as uint8 (height, width, channels); at `size`, or where `own` a file at its own.

    Raises:
        ImageFileError, StartError: there is no such image, or it cannot be read.
    """
    if name in PATTERNS or _is_photograph(name):
        pixels = start_image(name, size)
        pixels = pixels if channels == 3 else np.round(pixels.mean(axis=-1, keepdims=True)).astype(np.uint8)
    else:
        pixels = read_image(name, channels=channels)
    if own or pixels.shape[:2] == size:
        return pixels
    image = tf.image.resize(pixels.astype(np.float32), size, method="bicubic", antialias=True)
    return np.clip(np.round(np.asarray(image)), 0, 255).astype(np.uint8)


def credited(name: str) -> str:
    """Return what a picture's recipe says of its start: a photograph's licence asks for its author."""
    return f"{name} ({CREDITS[name]})" if _is_photograph(name) else name


def _is_photograph(name: str) -> bool:
    return name in PHOTOGRAPHS and not Path(name).exists()
