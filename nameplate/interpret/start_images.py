"""Start images by name or file: patterns that are computed here, scikit-learn's photographs, and files.

The photographs are scikit-learn's sample images `china` and `flower`, under CC BY 2.0. They are not copied here; the
recipe of a dream over one names its author.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from nameplate.errors import NameplateError
from nameplate.interpret.image_files import read_image
from nameplate.naming.names import did_you_mean


class StartError(NameplateError):
    """A start image that does not exist."""


def start_image(name: str, size: tuple[int, int]) -> np.ndarray:
    """Return a start image as uint8 (height, width, 3); patterns have this size, photographs their own.

    Raises:
        StartError: no image has this name, or scikit-learn is not installed.
    """
    if name in PATTERNS:
        return np.round(255 * np.clip(PATTERNS[name](*_places(size)), 0, 1)).astype(np.uint8)
    if name in PHOTOGRAPHS:
        return _photograph(name)
    known = [*PATTERNS, *PHOTOGRAPHS]
    raise StartError(f"no start image is called {name!r}.{did_you_mean(name, known)} There are {', '.join(known)}")


def _sky(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Clouds, as waves of all sizes, between blue and white; less blue towards the ground."""
    cloud = np.zeros_like(x)
    random = np.random.default_rng(7)
    for octave in range(1, 7):
        for _ in range(6):
            angle, phase = random.uniform(0, 2 * np.pi, 2)
            wave = 2**octave * (np.cos(angle) * x + np.sin(angle) * y)
            cloud += np.sin(wave * np.pi + phase + 0.8 * cloud) / 2**octave
    white = 1 / (1 + np.exp(-2.2 * cloud))[..., None]
    blue = np.array([0.25, 0.47, 0.78]) + y[..., None] * np.array([0.25, 0.18, 0.05])
    return white * np.array([0.96, 0.95, 0.93]) + (1 - white) * blue


def _rings(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Rings around two points, as on water after two stones."""
    distances = [np.hypot(x - a, y - b) for a, b in ((0.3, 0.35), (0.75, 0.7))]
    height = sum(np.sin(40 * distance) / (1 + 3 * distance) for distance in distances)
    phases = np.array([0.0, 0.7, 1.4])
    return 0.5 + 0.3 * np.sin(2.2 * np.asarray(height)[..., None] + phases)


def _hills(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Rows of hills under an evening sky, darker the nearer they are."""
    picture = np.stack([0.95 - 0.35 * y, 0.75 - 0.35 * y, 0.55 + 0.1 * y], axis=-1)
    for row in range(6):
        ridge = 0.42 + 0.1 * row + 0.07 * np.sin(x * (5 + 3 * row) + 2 * row) + 0.02 * np.sin(x * (31 + 7 * row) + row)
        below = (y > ridge)[..., None]
        shade = 1 - row / 7
        picture = np.where(below, np.array([0.5 * shade, 0.48 * shade + 0.05, 0.42 * shade + 0.12]), picture)
    return picture


def _checks(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A soft chessboard, slightly rotated."""
    a, b = 9 * (x + 0.3 * y), 9 * (y - 0.3 * x)
    board = np.tanh(3 * np.sin(np.pi * a) * np.sin(np.pi * b))[..., None]
    return 0.5 + 0.25 * board * np.array([1.0, 0.8, 0.6])


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sky": _sky,
    "hills": _hills,
    "rings": _rings,
    "checks": _checks,
}
CREDITS = {
    "china": "photograph by danielbuechele, CC BY 2.0, flickr.com/photos/danielbuechele/6061409035",
    "flower": "photograph by vultilion, CC BY 2.0, flickr.com/photos/vultilion/6056698931",
}
PHOTOGRAPHS = tuple(CREDITS)


def _places(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the y and x coordinates of the pixels, (height, width) each; the shorter side goes from 0 to 1."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(float) / max(1, min(height, width) - 1)
    return y, x


def _photograph(name: str) -> np.ndarray:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError:
        raise StartError(
            f"the photograph {name!r} comes with scikit-learn, which is not installed: "
            "pip install 'nameplate[photos]'. "
            f"Without it, there are {', '.join(PATTERNS)}"
        ) from None
    return np.array(datasets.load_sample_image(f"{name}.jpg"), dtype=np.uint8)


def pixels_of(name: str, size: tuple[int, int], *, channels: int, own: bool) -> np.ndarray:
    """Return a start image as uint8 (height, width, channels); at `size`; with `own`, a file at its own size.

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
    """Return the start image as a recipe names it: with the author, which a photograph's licence requires."""
    return f"{name} ({CREDITS[name]})" if _is_photograph(name) else name


def _is_photograph(name: str) -> bool:
    return name in PHOTOGRAPHS and not Path(name).exists()
