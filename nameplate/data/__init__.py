"""Where the examples come from, in which order, and how they reach the devices."""

from importlib import import_module
from typing import Any

_PLACES = {
    "DataError": "errors",
    "Dataset": "dataset",
    "Field": "dataset",
    "Kind": "dataset",
    "Source": "source",
    "Stream": "source",
    "augmentation": "images",
    "data_error": "errors",
    "open_dataset": "registry",
    "shuffled": "batches",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    # Lazily, so that what needs the errors alone does not import TensorFlow.
    if name not in _PLACES:
        raise AttributeError(f"module 'nameplate.data' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"nameplate.data.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
