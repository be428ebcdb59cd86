"""A model from a `.keras` file, or built again from a run or checkpoint, with the weights that were saved there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import keras

import models
from models import bridge, store
from models.building import within_budget
from models.errors import NameplateError
from trainer import places
from trainer.build import REPAIR, build_model
from trainer.compose import stored_config
from trainer.data.dataset import Dataset
from trainer.data.opening import open_dataset
from trainer.data.shapes import stored_shapes
from trainer.targets import resolver


@dataclass(frozen=True)
class Rebuilt:
    """A model, and where it came from."""

    model: keras.Model
    origin: str  # path of the file or checkpoint
    step: int | None  # of a checkpoint
    data: Callable[[], Dataset] | None  # opens the data of a run; raises as `open_dataset`


def rebuild(path: str, *, trust: Sequence[str] = ()) -> Rebuilt:
    """Return the model at `path`: a `.keras` file, a run (its newest checkpoint), or one checkpoint.

    What a checkpoint says of its model is read as data: only the project's own architectures are built, and what
    `trust` names on this command line. Weights go where their names say. The run's data is opened only where its
    checkpoint does not tell the shapes of the model, as those of earlier versions with a class for a model.

    Of a `.keras` file the packages in `trust` are imported, so that classes that they register are known.

    Raises:
        NameplateError: there is nothing at `path`; its model may not be built, or its weights do not fit it.
    """
    if Path(path).is_file() and Path(path).suffix:  # a pointer such as `latest` is a file too
        return Rebuilt(_loaded(path, trust), path, None, None)
    place = places.find_one(path)
    with store.open(place) as checkpoint:
        config = stored_config(checkpoint.config, unchecked="data")
        resolve = resolver(tuple(trust), stored=True)

        def data() -> Dataset:
            return open_dataset(config.check().data, seed=config.seed, allow=resolve)

        shapes = stored_shapes(checkpoint) or _shapes_of_data(data, place)
        with within_budget(place):
            model = build_model(config.model, shapes, precision=config.fit.precision, seed=config.seed, resolve=resolve)
        model = models.enforce(model, config.naming, remedy=REPAIR)
        bridge.write(model, bridge.read(model) | checkpoint.weights.load())
        return Rebuilt(model, str(place), checkpoint.step, data)


def _shapes_of_data(data: Callable[[], Dataset], place: Path) -> Dataset:
    try:
        return data()
    except NameplateError as error:
        raise NameplateError(
            f"{place} does not tell the shapes of its model. They come from the run's data, which cannot be opened "
            f"here: {error}\n"
            "Where the data is, write the model with checkpoint.export_keras=best and use that .keras file."
        ) from error


def _loaded(path: str, trust: Sequence[str]) -> keras.Model:
    for package in trust:
        try:
            import_module(package)
        except ImportError as error:
            raise NameplateError(f"--trust {package}: cannot be imported: {error}") from None
    found = models.load(path, trust=bool(trust))
    if not isinstance(found, keras.Model):
        raise NameplateError(f"{path} holds weights without a model; name a .keras file, a run or a checkpoint")
    return found
