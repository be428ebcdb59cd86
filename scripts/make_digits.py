"""Writes nameplate/data/digits.npz from scikit-learn's copy of the digits: `python -m scripts.make_digits`.

Only this script needs scikit-learn, which is not a dependency of the project.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).resolve().parent.parent / "nameplate" / "data" / "digits.npz"


def main() -> None:
    """Write the file, with the same arrays every time."""
    digits = load_digits()
    order = interleaved(digits.target)
    images = digits.images.astype(np.uint8)[order]
    np.savez_compressed(TARGET, images=images, labels=digits.target.astype(np.uint8)[order])
    print(f"{TARGET}: {len(order)} digits, {TARGET.stat().st_size} bytes")


def interleaved(labels: np.ndarray) -> np.ndarray:
    """Return an order in which every stretch has the ten digits in equal parts."""
    random = np.random.RandomState(0)
    place = np.empty(len(labels))
    for label in range(10):
        (rows,) = np.nonzero(labels == label)
        place[random.permutation(rows)] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


if __name__ == "__main__":
    main()
