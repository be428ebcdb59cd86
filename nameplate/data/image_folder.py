"""Images in folders, one folder a class."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from nameplate.data.config import ImageFolderConfig
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.errors import refuse
from nameplate.data.images import decode_all
from nameplate.data.source import Example
from nameplate.data.specs import IMAGES
from nameplate.data.splits import split

PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

_SHOWN = 10  # unreadable images that a message lists

Listing = dict[str, list[Path]]  # the images of each class, both sorted


class ImageFiles:
    """A source of image files, without targets."""

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int]) -> None:
        self._paths, self._shape = [str(path) for path in paths], shape
        self.size = len(self._paths)

    def spec(self) -> Example:
        """Return the structure of one example."""
        return (tf.TensorSpec(self._shape, tf.float32),)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the images at `indices` (n,), float32 in 0..1; an error names damaged files."""
        paths = tf.gather(self._tensor, indices)
        images = decode_all(
            paths,
            read=tf.io.read_file,
            names_of=lambda positions: tf.gather(paths, positions),
            shape=self._shape,
        )
        return (images,)

    def arrays(self) -> None:
        """Return None: images are decoded when they are needed."""

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._paths, tf.string)


class Images:
    """A source of image files and the indices of their classes."""

    def __init__(self, listing: Listing, shape: tuple[int, int, int]) -> None:
        self._files = ImageFiles([path for paths in listing.values() for path in paths], shape)
        counts = [len(paths) for paths in listing.values()]
        self._labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        self.size = self._files.size

    def spec(self) -> Example:
        """Return the structure of one example: an image and the index of its class."""
        return *self._files.spec(), tf.TensorSpec((), tf.int64)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the images and class indices at `indices` (n,); an error names damaged files."""
        return *self._files.load(indices), tf.gather(self._label_tensor, indices)

    def arrays(self) -> None:
        """Return None: images are decoded when they are needed."""

    @functools.cached_property
    def _label_tensor(self) -> tf.Tensor:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._labels)


def open_image_folder(config: ImageFolderConfig) -> Dataset:
    """Return `image` float32 (height, width, channels) in 0..1 and `label`, the index of the folder of its class.

    The classes are the folders in `data.root`, sorted by name; if it has a folder `train`, the folders in that, and
    `val` or `validation` and `test` are held out if they exist.

    Raises:
        DataError: folders without images, fewer than two classes, or classes that `train` does not have.
    """
    root = Path(config.root).expanduser()
    folders = _parts(root)
    listings = {part: _listing(folder) for part, folder in folders.items()}
    refuse(
        problem
        for part, listing in listings.items()
        for problem in (*_listing_problems(part, folders[part], listing), *_class_problems(part, listing, listings))
    )
    classes = tuple(listings["train"])
    shape = (config.height, config.width, config.channels)
    sources = {
        # In the order of `train`, also if a held-out part has no images of a class.
        part: Images({name: listing.get(name, []) for name in classes}, shape)
        for part, listing in listings.items()
    }
    parts = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    return describe(parts, inputs=["image"], outputs={"label": Output(len(classes), TargetKind.CLASSES, classes)})


def _parts(root: Path) -> dict[str, Path]:
    """Return the folder of each part; only the root if it holds the classes."""
    if not (root / "train").is_dir():
        return {"train": root}
    return {part: root / name for name, part in PARTS.items() if (root / name).is_dir()}


def images_in(folder: Path) -> list[Path]:
    """Return the images under a folder, at any depth, sorted.

    Raises:
        DataError: images that are not files, or a folder that cannot be read.
    """
    refuse(_unreadable(folder))
    return [path for path in _files(folder) if _is_image(path)]


def _listing(folder: Path) -> Listing:
    classes = sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    return {inner.name: [path for path in _files(inner) if _is_image(path)] for inner in classes}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGES


def _files(folder: Path) -> list[Path]:
    """Return everything under a folder that is not itself a folder, at any depth, sorted."""
    return sorted(Path(entry.path) for entry in _entries(folder))


def _entries(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """Yield everything under a folder that is not itself a folder; links are followed, hidden files are not listed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _holds(entry, os.DirEntry.is_dir):
                    yield from _entries(entry.path)
                elif not entry.name.startswith("."):
                    yield entry
    except OSError as error:
        refuse([f"{os.fspath(folder)} cannot be read: {error.strerror}"])


def _holds(entry: os.DirEntry[str], test: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return test(entry)
    except OSError:  # a circular link
        return False


def _unreadable(folder: Path) -> list[str]:
    """Return a message for each image that is not a file: reading a pipe would block forever."""
    paths = sorted(
        entry.path
        for entry in _entries(folder)
        if not _holds(entry, os.DirEntry.is_file) and _is_image(Path(entry.path))
    )
    kinds = {True: "a broken link", False: "a pipe, a socket or a device, not a file"}
    lines = [f"{path} is {kinds[os.path.islink(path) and not os.path.exists(path)]}" for path in paths]
    return lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more such images"] if len(lines) > _SHOWN else [])


def _listing_problems(part: str, folder: Path, listing: Listing) -> list[str]:
    if not listing:
        return [f"{folder} has no folders, and so no classes; it has {_content(folder)}"]
    problems = [
        f"{folder / name} has no image ({', '.join(IMAGES)}); it has {_content(folder / name)}"
        for name, paths in listing.items()
        if not paths
    ]
    problems += _unreadable(folder)
    if part == "train" and len(listing) == 1:
        problems.append(f"{folder} has only one class, {next(iter(listing))!r}; there is nothing to learn")
    return problems


def _class_problems(part: str, listing: Listing, listings: dict[str, Listing]) -> list[str]:
    other = sorted(set(listing) - set(listings["train"]))
    return [f"the class {name!r} of {part} is not among the classes of train" for name in other]


def _content(folder: Path) -> str:
    """Return how many files of each kind a folder has."""
    kinds = Counter(path.suffix.lower() or "no extension" for path in _files(folder))
    return ", ".join(f"{count} files {kind}" for kind, count in sorted(kinds.items())) or "no files"
