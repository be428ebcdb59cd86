"""A data configuration becomes data."""

from __future__ import annotations

from trainer.config.data import (
    ArraysConfig,
    DataConfig,
    DigitPairsConfig,
    DigitsConfig,
)
from trainer.data.arrays import open_arrays
from trainer.data.dataset import Allow, Dataset
from trainer.data.digits import open_digit_pairs, open_digits


def open_dataset(config: DataConfig, *, seed: int, allow: Allow | None = None) -> Dataset:
    """Return the data that a sound configuration describes; nothing of it is on a device yet.

    `seed` is the run's: synthetic data comes from it. `allow` gives the object of a dotted name, and is needed
    for data of the user's own alone.

    Raises:
        DataError: what the data holds cannot be used; the message lists every problem found.
    """
    match config:
        case DigitsConfig():
            return open_digits(config)
        case DigitPairsConfig():
            return open_digit_pairs(config)
        case ArraysConfig():
            return open_arrays(config)
    raise TypeError(f"no source for {type(config).__name__}")
