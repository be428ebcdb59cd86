"""`open_dataset`: the data that a configuration describes."""

from __future__ import annotations

from dataclasses import replace

from nameplate.data.arrays import open_arrays
from nameplate.data.config import (
    ArraysConfig,
    CustomDataConfig,
    DataConfig,
    DigitPairsConfig,
    DigitsConfig,
    ImageFolderConfig,
    RecordsConfig,
    SyntheticConfig,
    TableConfig,
)
from nameplate.data.custom import open_custom
from nameplate.data.dataset import Allow, Dataset, TargetKind
from nameplate.data.digits import open_digit_pairs, open_digits
from nameplate.data.errors import DataError, refuse
from nameplate.data.image_folder import open_image_folder
from nameplate.data.source import Stream
from nameplate.data.splits import first
from nameplate.data.synthetic import open_synthetic
from nameplate.data.tables import open_table
from nameplate.data.tfrecords import open_records
from nameplate.data.user_data import balanced


def open_dataset(config: DataConfig, *, seed: int, allow: Allow | None = None) -> Dataset:
    """Return the data that a configuration without problems describes; none of it is on a device yet.

    `seed` is the run's; synthetic data is generated from it. `allow` resolves a dotted name to its object, and is
    required for custom data.

    Raises:
        DataError: the content of the data cannot be used; the message lists every problem.
    """
    dataset = _open(config, seed=seed, allow=allow or _refuse_all)
    train, validation = dataset.train, dataset.validation
    if config.limit is not None:
        train = first(train, config.limit)
    if config.validation_limit is not None and validation is not None:
        validation = first(validation, config.validation_limit)
    return replace(dataset, train=train, validation=validation)


def balanced_classes(config: DataConfig, dataset: Dataset) -> Dataset:
    """Return the dataset with `data.balance`: every class as frequent in the training part as the largest.

    Raises:
        DataError: the data has several outputs or none of classes, or no random access.
    """
    if not config.balance:
        return dataset
    if list(dataset.kinds.values()) != [TargetKind.CLASSES]:
        shown = ", ".join(f"{name} of {kind}" for name, kind in dataset.kinds.items())
        refuse([f"data.balance: needs one output, of classes; the data has {shown}"])
    if isinstance(dataset.train, Stream):
        refuse(["data.balance: the training examples come one after another; random access is needed"])
    return replace(dataset, train=balanced(dataset.train))


def _open(config: DataConfig, *, seed: int, allow: Allow) -> Dataset:
    match config:
        case DigitsConfig():
            return open_digits(config)
        case DigitPairsConfig():
            return open_digit_pairs(config)
        case ArraysConfig():
            return open_arrays(config)
        case ImageFolderConfig():
            return open_image_folder(config)
        case RecordsConfig():
            return open_records(config)
        case TableConfig():  # CSV too
            return open_table(config)
        case SyntheticConfig():
            return open_synthetic(config, seed=seed)
        case CustomDataConfig():
            return open_custom(config, allow=allow)
    raise TypeError(f"no source for {type(config).__name__}")


def _refuse_all(name: str) -> None:
    raise DataError(f"data._target_: {name!r} cannot be called here; no package is trusted")
