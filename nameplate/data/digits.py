"""The handwritten digits that ship with the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nameplate.data.config import DigitPairsConfig, DigitsConfig
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.source import Memory
from nameplate.data.splits import Splits, held_out, split

FILE = Path(__file__).parent / "digits.npz"
DIGITS = tuple("0123456789")


def open_digits(config: DigitsConfig) -> Dataset:
    """Return `image` float32 (8, 8, 1) in 0..1 and `label` 0 to 9. The end of the file is held out, or a fold."""
    images, labels = read_digits()
    parts = {key: Memory((images[rows], labels[rows])) for key, rows in _rows(config).items()}
    outputs = {"label": Output(10, TargetKind.CLASSES, DIGITS)}
    divided = Splits(**parts) if config.folds is None else split(Memory((images, labels)), config)
    return describe(divided, inputs=["image"], outputs=outputs)


def open_digit_pairs(config: DigitPairsConfig) -> Dataset:
    """Return inputs `left` and `right` (8, 8, 1), outputs `same` (2 classes) and `sum` (0 to 18).

    The two digits of a pair are from the same part, so no digit of a training pair is in a held-out one. About half of
    the pairs show the same digit.
    """
    images, labels = read_digits()
    parts = {}
    for key, rows in _rows(config).items():
        left, right = _pairs(labels[rows], config.pairs)
        shown, other = labels[rows][left], labels[rows][right]
        x = {"left": images[rows][left], "right": images[rows][right]}
        parts[key] = Memory((x, {"same": (shown == other).astype(np.int64), "sum": shown + other}))
    sums = tuple(map(str, range(19)))
    outputs = {
        "same": Output(2, TargetKind.CLASSES, ("different", "same")),
        "sum": Output(19, TargetKind.CLASSES, sums),
    }
    return describe(Splits(**parts), inputs=["left", "right"], outputs=outputs)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 8, 8, 1) float32 in 0..1 and labels (1797,) int64, in the order of the file."""
    with np.load(FILE, allow_pickle=False) as file:
        return file["images"][..., None].astype(np.float32) / 16, file["labels"].astype(np.int64)


def _rows(config: DigitsConfig | DigitPairsConfig) -> dict[str, slice]:
    """Return the rows of each part: first training, then test, then validation at the end of the file."""
    size = len(read_digits()[1])
    counts = held_out(size, {"validation": config.validation, "test": config.test})
    tested = size - counts["validation"] - counts["test"]
    rows = {
        "train": slice(0, tested),
        "test": slice(tested, tested + counts["test"]),
        "validation": slice(tested + counts["test"], size),
    }
    return {key: part for key, part in rows.items() if part.start < part.stop}


def _pairs(labels: np.ndarray, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right rows of all pairs; each row is the left one of `pairs` pairs."""
    random = np.random.RandomState(0)  # NumPy guarantees its stream
    left = np.tile(np.arange(len(labels)), pairs)
    right = random.randint(len(labels), size=len(left))
    same = random.rand(len(left)) < 0.5
    for label in range(10):
        (rows,) = np.nonzero(labels == label)
        chosen = same & (labels[left] == label)
        right[chosen] = random.choice(rows, size=int(chosen.sum()))
    return left, right
