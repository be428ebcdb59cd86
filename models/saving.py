"""Saving what can be loaded again, and loading it with its names."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models import keras_private, names, renaming
from models import policy as policies
from models.bridge import read
from models.carrying import uncarried
from models.custom import custom_objects
from models.errors import NameplateError
from models.formats.errors import FileFormatError
from models.formats.keras_file import NAMES, read_config
from models.freezing import recheck
from models.policy import NamingError, Policy
from models.renaming import To
from models.settling import Told, held, take
from models.tree import named, walk

_LOADABLE = Policy(automatic=True)  # grammar and uniqueness: what no file can do without


class SavingError(NameplateError):
    """A model that could not be loaded again as it is."""


def save(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write a model to a `.keras` file, after proving that it comes back with its names and weights.

    The file appears by one rename. Names inside classes of the user's, which Keras does not store, are in it too.

    Raises:
        NamingError: for names that Keras could save but not load: duplicates, a slash, what fails in graph mode.
        SavingError: when what was saved cannot be loaded or comes back different; nothing is at `path` then.
    """
    target = _keras_path(path)
    recheck(model)
    _refuse_names(model)
    with tempfile.TemporaryDirectory(prefix=".nameplate-", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        with keras_private.deep_graphs(len(walk(model))):
            keras.saving.save_model(model, draft)
        _add_names(model, draft)
        _prove(model, draft)
        _sync(draft)
        os.replace(draft, target)
    _sync(target.parent)


def round_trip(model: keras.Model) -> keras.Model:
    """Return the model as it comes back from a file, after comparing names and weights; no file stays.

    Raises:
        NamingError, SavingError: as `save`.
    """
    recheck(model)
    _refuse_names(model)
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        draft = Path(folder) / "model.keras"
        with keras_private.deep_graphs(len(walk(model))), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are saving a model that has not yet been built")
            keras.saving.save_model(model, draft)
        _add_names(model, draft)
        return _prove(model, draft)


def load(
    path: str | os.PathLike[str],
    *,
    rename: To | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> keras.Model:
    """Return the uncompiled model of a `.keras` file, with the names it was saved with.

    Args:
        path: a `.keras` file.
        rename: as `models.rename`, for the loaded model.
        custom_objects: `{name: class or function}` for what is not Keras' own.
        trust: whether Python code in the file (a lambda) may become functions of this process.

    Raises:
        FileFormatError: when the file cannot be read, or needs custom objects or trust that it did not get.
    """
    source = _keras_path(path)
    wanted = _names_in(source)
    with keras_private.deep_graphs(len(wanted)):
        model = _loaded(source, custom_objects or {}, trust=trust)
    _take_names(model, wanted, source)
    _reserve(model)
    return model if rename is None else renaming.rename(model, rename)


def _keras_path(path: str | os.PathLike[str]) -> Path:
    found = Path(path)
    if found.suffix != ".keras":
        raise FileFormatError(f"{found}: whole models are saved to and loaded from .keras files")
    return found


def _refuse_names(model: keras.Model) -> None:
    entries = walk(model)
    found = policies.violations(_LOADABLE, named(entries)) + uncarried(entries)
    reason = names.fault(model.name)
    if reason:
        found.append(policies.Violation(str(model.name), "grammar", f"the model itself: {reason}", ""))
    if found:
        table = policies.text(found, model=str(model.name), policy=_LOADABLE)
        raise NamingError(f"not saved, since it could not be loaded again: {table}", found)


def _add_names(model: keras.Model, path: Path) -> None:
    """Write what `_names_in` reads: for the model and its tree the own name, path and variables' paths."""
    told = [
        [str(layer.name), getattr(layer, "path", None), [variable.path for variable in held(layer)]]
        for layer in [model, *(entry.layer for entry in walk(model))]
    ]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAMES, json.dumps({"version": 1, "names": told}))


def _names_in(path: Path) -> list[Told]:
    """Return what a file of ours says of each layer, the model first, in the order of the walk; else nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            if NAMES not in archive.namelist():
                return []
            found = read_config(archive, path, NAMES).get("names")
    except (OSError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{path} cannot be read as a .keras file: {error}") from None
    if not isinstance(found, list) or not all(_is_told(each) for each in found):
        raise FileFormatError(f"{path}: {NAMES} is not what `save` writes")
    return [(own, where, paths) for own, where, paths in found]


def _is_told(each: Any) -> bool:
    if not (isinstance(each, list) and len(each) == 3 and isinstance(each[2], list)):
        return False
    own, where, paths = each
    parts = [part for text in [where or "x", *paths] if isinstance(text, str) for part in text.split("/")]
    texts = all(isinstance(text, str) for text in [own, *paths]) and isinstance(where, str | None)
    return texts and not names.fault(own) and not any(names.fault(part.lstrip("_")) for part in parts)


def _loaded(path: Path, objects: Mapping[str, Any], *, trust: bool) -> keras.Model:
    try:
        with warnings.catch_warnings(), keras_private.scopes_kept():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(path, custom_objects=dict(objects), compile=False, safe_mode=not trust)
    except Exception as error:  # whatever Keras and the classes of a user raise
        reason = " ".join(str(error).split())
        raise FileFormatError(
            f"{path} cannot be loaded: {reason:.600} Pass custom_objects={{name: class}} for classes of your own, and "
            "trust=True only when you would run its author's code."
        ) from None


def _take_names(model: keras.Model, wanted: list[Told], path: Path) -> None:
    """Give a loaded model the names and paths that it had when it was saved."""
    layers = [model, *(entry.layer for entry in walk(model))]
    if not wanted:
        return
    if [len(paths) for _, _, paths in wanted] != [len(held(layer)) for layer in layers]:
        raise FileFormatError(f"{path} has names for {len(wanted) - 1} layers that are not those built from it")
    take(layers, wanted)


def _prove(model: keras.Model, path: Path) -> keras.Model:
    """Load what was saved, compare it, and return it."""
    every = [model, *(entry.layer for entry in walk(model))]
    try:
        with keras_private.undisturbed():
            copy = load(path, custom_objects=custom_objects(every), trust=True)
    except FileFormatError as error:
        raise SavingError(f"not saved, since it could not be loaded again: {error}") from None
    before, after = read(model), read(copy)
    problems = [f"{name}: not there after loading" for name in before if name not in after]
    problems += [f"{name}: there only after loading" for name in after if name not in before]
    kept = [name for name in before if name in after and not name.endswith("/state")]  # Keras files have no seeds
    problems += [f"{name}: other values after loading" for name in kept if not _equal(before[name], after[name])]
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise SavingError(f"not saved, since {model.name!r} would come back different:\n{lines}")
    return copy


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _reserve(model: keras.Model) -> None:
    """Count the automatic names of a loaded model as taken, so that new layers get others."""
    counts = keras_private.automatic_counts()
    for layer in [model, *(entry.layer for entry in walk(model))]:
        word = names.snake(type(layer).__name__)
        if names.is_automatic(str(layer.name), type(layer).__name__):
            number = str(layer.name).removeprefix(word).removeprefix("_")
            counts[word] = max(counts.get(word, 0), int(number) + 1 if number.isdigit() else 1)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
