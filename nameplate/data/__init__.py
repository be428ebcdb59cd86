"""Examples: where they come from, in which order, and how they reach the devices.

Read `source` first: a `Source` has random access, a `Stream` does not. `config` has the settings of each kind of data,
`common_config` those of all (`specs` parses their values), `registry` opens what they describe: `arrays`, `tables`
(`table_files` reads them), `image_folder` (`image_tree`, `images`), `tfrecords`, `digits`, `synthetic`, `custom`. They
give a `dataset`, divided by `splits`; `sanity` says what looks wrong with it, `damage` finds what cannot be read.
`adapters` turns the data that users pass to `fit` into the same sources (`sparse` its sparse parts, `indexed` objects
with `__getitem__`); `user_data` chooses inputs and targets in it, and makes folds; `standardize` scales inputs in
layers of the model. `batches` has the order of an epoch and each replica's share of a step, `feeds` brings the shares
to the replicas, and `ordered_batches` whole steps to a loop in Python. `targets` resolves a `_target_` that is trusted.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "Damage": "damage",
    "DataError": "errors",
    "Dataset": "dataset",
    "Field": "dataset",
    "Source": "source",
    "Stream": "source",
    "TargetKind": "dataset",
    "augmentation": "images",
    "balanced": "user_data",
    "damaged": "damage",
    "data_error": "errors",
    "examples": "user_data",
    "folds": "user_data",
    "open_dataset": "registry",
    "shuffled": "batches",
    "standardized": "standardize",
    "without": "damage",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    # Lazy, so that code which needs only the errors does not import TensorFlow.
    if name not in _PLACES:
        raise AttributeError(f"module 'nameplate.data' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"nameplate.data.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
