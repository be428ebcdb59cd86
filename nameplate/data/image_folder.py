"""Images in folders or in a zip file: a folder a class, or a table that says which class each image has."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from nameplate.data.config import ImageFolderConfig
from nameplate.data.damage import decoding_error
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.errors import DataError, refuse
from nameplate.data.image_tree import Archive, Tree, tree_of
from nameplate.data.images import decode_all
from nameplate.data.sanity import respelling_problems, typos
from nameplate.data.source import Example
from nameplate.data.specs import IMAGES
from nameplate.data.splits import split
from nameplate.data.table_files import CsvFile, TableFile, table_file
from nameplate.data.tables import distinct
from nameplate.naming.names import did_you_mean

PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

_SHOWN = 10  # files that a message lists
_HINTED = 10_000  # files among which the nearest name is looked for


class ImageFiles:
    """A source of images in files, or in the members of a zip file, without targets."""

    def __init__(
        self, names: Sequence[Path | str], shape: tuple[int, int, int], archive: Archive | None = None
    ) -> None:
        self._names, self._shape, self._archive = [str(name) for name in names], shape, archive
        self.size = len(self._names)

    def spec(self) -> Example:
        """Return the structure of one example."""
        return (tf.TensorSpec(self._shape, tf.float32),)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the images at `indices` (n,), float32 in 0..1; an error names damaged files."""
        names = tf.gather(self._tensor, indices)
        shown = names if self._archive is None else tf.strings.join([f"{self._archive.path}/", names])
        images = decode_all(
            names if self._archive is None else self._members(names),
            read=tf.io.read_file if self._archive is None else tf.identity,
            names_of=lambda positions: tf.gather(shown, positions),
            shape=self._shape,
        )
        return (images,)

    def arrays(self) -> None:
        """Return None: images are decoded when they are needed."""

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self._names[index] if self._archive is None else f"{self._archive.path}/{self._names[index]}"

    def why(self, index: int) -> str:
        """Return why an image cannot be read or decoded; empty if it can."""
        name, archive = self._names[index], self._archive
        return decoding_error(lambda: Path(name).read_bytes() if archive is None else archive.read(name))

    def _members(self, names: tf.Tensor) -> tf.Tensor:
        archive = self._archive
        assert archive is not None

        def read(batch: np.ndarray) -> np.ndarray:
            return np.array([*archive.read_all(batch.tolist()), None], object)[:-1]  # of objects, of any number

        contents = tf.numpy_function(read, [names], tf.string, stateful=False)
        return tf.ensure_shape(contents, names.shape)

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._names, tf.string)


class Images:
    """A source of images and the indices of their classes."""

    def __init__(self, files: ImageFiles, labels: np.ndarray) -> None:
        """Take the images, and a class index for each, int64 (images,)."""
        self._files, self._labels = files, labels
        self.size = files.size

    def spec(self) -> Example:
        """Return the structure of one example: an image and the index of its class."""
        return *self._files.spec(), tf.TensorSpec((), tf.int64)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the images and class indices at `indices` (n,); an error names damaged files."""
        return *self._files.load(indices), tf.gather(self._label_tensor, indices)

    def arrays(self) -> None:
        """Return None: images are decoded when they are needed."""

    def labels(self) -> np.ndarray:
        """Return the class index of every image, int64 (images,), without reading any."""
        return self._labels

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self._files.name(index)

    def why(self, index: int) -> str:
        """Return why an image cannot be read or decoded; empty if it can."""
        return self._files.why(index)

    @functools.cached_property
    def _label_tensor(self) -> tf.Tensor:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._labels)


@dataclass(frozen=True)
class Listing:
    """The images of a part of the data, with the class of each."""

    tree: Tree
    files: list[str]  # paths inside the tree
    classes: list[str]  # one each
    unlisted: int = 0  # images that the table does not have


def open_image_folder(config: ImageFolderConfig) -> Dataset:
    """Return `image` float32 (height, width, channels) in 0..1 and `label`, the index of its class.

    The classes are the folders in `data.root`, a folder or a zip file, sorted by name; if it has a folder `train`, the
    folders in that, and `val` or `validation` and `test` are held out if they exist. With `data.labels` they are what a
    table says of each file, sorted as numbers if all are whole, else as text.

    Raises:
        DataError: folders without images, fewer than two classes, classes that `train` does not have, or a table with
            files that do not exist.
    """
    whole = tree_of(Path(config.root).expanduser())
    parts = _parts(whole)
    listings = _labelled(config, whole, parts) if config.labels else _by_folder(parts)
    every = sorted({name for listing in listings.values() for name in listing.classes})
    refuse(respelling_problems(config.spelling, every))
    listings = {
        part: replace(listing, classes=[config.spelling.get(name, name) for name in listing.classes])
        for part, listing in listings.items()
    }
    names = sorted({*listings["train"].classes}) if not config.labels else distinct({*listings["train"].classes})
    if len(names) == 1:
        refuse([f"data.spelling: only the class {names[0]!r} is left; there is nothing to learn"])
    refuse(_class_problems(listings, names))
    shape = (config.height, config.width, config.channels)
    sources = {part: _images(listing, names, shape) for part, listing in listings.items()}
    divided = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    outputs = {"label": Output(len(names), TargetKind.CLASSES, tuple(names))}
    notes = [
        f"{listing.unlisted:,} images in {listing.tree.place} are not in {config.labels} and not used"
        for listing in listings.values()
        if listing.unlisted
    ]
    notes += typos(Counter(listings["train"].classes), "the class", confirmed=config.spelling)
    return replace(describe(divided, inputs=["image"], outputs=outputs), notes=tuple(notes))


def images_in(folder: Path) -> list[Path]:
    """Return the images under a folder, at any depth, sorted.

    Raises:
        DataError: images that are not files, or a folder that cannot be read.
    """
    tree = tree_of(folder)
    refuse(tree.problems())
    return [folder / name for name in tree.images()]


def _parts(whole: Tree) -> dict[str, Tree]:
    """Return the tree of each part; only the whole if it holds the classes."""
    if "train" not in whole.folders:
        return {"train": whole}
    return {part: whole.within(name) for name, part in PARTS.items() if name in whole.folders}


def _images(listing: Listing, names: Sequence[str], shape: tuple[int, int, int]) -> Images:
    number = {name: place for place, name in enumerate(names)}
    archive, tree = listing.tree.archive, listing.tree
    inside = "" if archive is None else tree.place.relative_to(archive.path).as_posix()
    prefix = "" if inside in ("", ".") else f"{inside}/"
    files = [tree.place / file if archive is None else f"{prefix}{file}" for file in listing.files]
    labels = np.array([number[name] for name in listing.classes], np.int64)
    return Images(ImageFiles(files, shape, archive), labels)


# ---- a folder a class ------------------------------------------------------------------------------------------


def _by_folder(parts: dict[str, Tree]) -> dict[str, Listing]:
    refuse(problem for part, tree in parts.items() for problem in _tree_problems(part, tree))
    return {
        part: Listing(
            tree,
            [f"{name}/{file}" for name, inner in branches.items() for file in inner.images()],
            [name for name, inner in branches.items() for _ in inner.images()],
        )
        for part, tree in parts.items()
        for branches in [tree.branches()]
    }


def _tree_problems(part: str, tree: Tree) -> Iterator[str]:
    branches = tree.branches()
    if not branches:
        table = next((f"; data.labels={name} reads its classes" for name in tree.files if name.endswith(".csv")), "")
        yield f"{tree.place} has no folders, and so no classes; it has {tree.content()}{table}"
    for inner in branches.values():
        if not inner.images():
            yield f"{inner.place} has no image ({', '.join(IMAGES)}); it has {inner.content()}"
    yield from tree.problems()
    if part == "train" and len(branches) == 1:
        yield f"{tree.place} has only one class, {next(iter(branches))!r}; there is nothing to learn"


def _class_problems(listings: dict[str, Listing], names: Sequence[str]) -> Iterator[str]:
    for part, listing in listings.items():
        for name in sorted(set(listing.classes) - set(names)):
            yield f"the class {name!r} of {part} is not among the classes of train"


# ---- a table of classes ----------------------------------------------------------------------------------------


def _labelled(config: ImageFolderConfig, whole: Tree, parts: dict[str, Tree]) -> dict[str, Listing]:
    """Return the images of each part by a table for all, or by a table in the folder of each part."""
    assert config.labels is not None
    refuse(whole.problems())
    tables = {part: table for part, tree in parts.items() if (table := _table(config.labels, tree))}
    if "train" in tables and parts["train"] is not whole:
        missing = [str(tree.place / config.labels) for part, tree in parts.items() if part not in tables]
        refuse(f"{path}: no such table; each of {', '.join(parts)} needs one" for path in missing)
        listings = {part: _rows(config, tables[part], tree) for part, tree in parts.items()}
    else:
        table = _table(config.labels, whole) or _beside(config.labels)
        if table is None:
            raise DataError(f"data.labels: no table {config.labels!r} in {whole.place}; it has {whole.content()}")
        listing = _rows(config, table, whole)
        listings = {"train": listing} if parts["train"] is whole else _divided(listing, whole)
    names = set(listings["train"].classes)
    if len(names) < 2:
        refuse(
            [f"data.labels: {config.labels} has only the class {next(iter(names), '')!r}; there is nothing to learn"]
        )
    return listings


def _table(name: str, tree: Tree) -> TableFile | None:
    if name not in tree.files:
        return None
    if tree.archive is None:
        return table_file(tree.place / name)
    inside = (tree.place / name).relative_to(tree.archive.path).as_posix()
    return CsvFile(tree.place / name, ",", content=tree.archive.read(inside))


def _beside(name: str) -> TableFile | None:
    path = Path(name).expanduser()
    return table_file(path) if path.is_file() else None


def _rows(config: ImageFolderConfig, table: TableFile, tree: Tree) -> Listing:
    columns = [config.file_column, config.label_column]
    refuse(table.faults)
    read, problems = table.read(numbers=[], texts=columns)
    refuse(problems)
    texts = [read.texts[column] for column in columns]
    files, classes = ([column.values[code] for code in column.codes] for column in texts)
    files = [name.removeprefix("./") for name in files]
    refuse(_file_problems(table.path, files, tree))
    return Listing(tree, files, classes, len(tree.images()) - len(files))


def _file_problems(table: Path, files: list[str], tree: Tree) -> Iterator[str]:
    known = set(tree.images())
    missing = [name for name in files if name not in known]
    for name in missing[:_SHOWN]:
        near = did_you_mean(name, known) if len(known) <= _HINTED else ""
        yield f"{table}: {tree.place} has no image {name!r}.{near}"
    if len(missing) > _SHOWN:
        yield f"{table}: and {len(missing) - _SHOWN} more images that do not exist"
    if len(set(files)) < len(files):
        twice = sorted({name for name in files if files.count(name) > 1}) if len(files) <= _HINTED else []
        yield f"{table}: {len(files) - len(set(files))} images are listed twice" + (f": {twice[0]!r}" if twice else "")


def _divided(listing: Listing, whole: Tree) -> dict[str, Listing]:
    """Return the rows of each part, by the folder `train`, `val` or `test` that a file lies in."""
    found: dict[str, Listing] = {}
    for folder, part in PARTS.items():
        rows = [row for row, name in enumerate(listing.files) if name.startswith(f"{folder}/")]
        if rows:
            files, classes = [listing.files[row] for row in rows], [listing.classes[row] for row in rows]
            found[part] = Listing(whole, files, classes)
    outside = [name for name in listing.files if name.split("/")[0] not in PARTS]
    refuse(f"{name!r} lies in none of the folders {', '.join(PARTS)}" for name in outside[:_SHOWN])
    if "train" not in found:
        refuse([f"the table of {whole.place} has no image in the folder train"])
    return found
