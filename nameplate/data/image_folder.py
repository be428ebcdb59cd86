"""Images in folders, a class a folder."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from nameplate.data.config import ImageFolderConfig
from nameplate.data.dataset import Dataset, Kind, Output, describe
from nameplate.data.errors import refuse
from nameplate.data.images import decode_all
from nameplate.data.source import Example
from nameplate.data.splits import split

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

_SHOWN = 10  # of the images that cannot be read

Listing = dict[str, list[Path]]  # the images of each class, both sorted


class Images:
    """A source of image files and their class numbers."""

    def __init__(self, listing: Listing, shape: tuple[int, int, int]) -> None:
        self._paths = [str(path) for paths in listing.values() for path in paths]
        counts = [len(paths) for paths in listing.values()]
        self._labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        self._shape = shape
        self.size = len(self._paths)

    def spec(self) -> Example:
        """Return the structure of one example: an image and its class number."""
        return tf.TensorSpec(self._shape, tf.float32), tf.TensorSpec((), tf.int64)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the images and class numbers at `indices` (n,); a damaged file is named in the error."""
        every_path, every_label = self._tensors
        paths = tf.gather(every_path, indices)
        images = decode_all(
            paths,
            read=tf.io.read_file,
            told=lambda positions: tf.gather(paths, positions),
            shape=self._shape,
        )
        return images, tf.gather(every_label, indices)

    def arrays(self) -> None:
        """Return None: images are decoded as they are needed."""

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._paths, tf.string), tf.constant(self._labels)


def open_image_folder(config: ImageFolderConfig) -> Dataset:
    """Return `image` float32 (height, width, channels) in 0..1 and `label`, the number of the class's folder.

    The classes are the folders of `data.root`, sorted by name. Where `data.root` has a folder `train`, the
    classes are in that, and in `val` or `validation` and in `test` where there are such.

    Raises:
        DataError: folders without images, fewer than two classes, or other classes than those of `train`.
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
        # Numbered as in train, also where a held-out part lacks a class.
        part: Images({name: listing.get(name, []) for name in classes}, shape)
        for part, listing in listings.items()
    }
    parts = split(sources["train"], config, validation=sources.get("validation"), test=sources.get("test"))
    return describe(parts, inputs=["image"], outputs={"label": Output(len(classes), Kind.CLASSES, classes)})


def _parts(root: Path) -> dict[str, Path]:
    """Return the folder of each part; the root alone where it holds the classes."""
    if not (root / "train").is_dir():
        return {"train": root}
    return {part: root / name for name, part in PARTS.items() if (root / name).is_dir()}


def _listing(folder: Path) -> Listing:
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    return {each.name: [path for path in _files(each) if _is_image(path)] for each in classes}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _files(folder: Path) -> list[Path]:
    """Return all under a folder that is no folder, however deep, sorted."""
    return sorted(Path(entry.path) for entry in _entries(folder))


def _entries(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """Yield all under a folder that is no folder; what begins with a dot is left out, and links are followed."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if _leads(entry, os.DirEntry.is_dir):
                    yield from _entries(entry.path)
                elif not entry.name.startswith("."):
                    yield entry
    except OSError as error:
        refuse([f"{os.fspath(folder)} cannot be read: {error.strerror}"])


def _leads(entry: os.DirEntry[str], there: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return there(entry)
    except OSError:  # a link that leads in a circle
        return False


def _unreadable(folder: Path) -> list[str]:
    """Return the images that are no files, in words: a pipe would be waited for without end."""
    found = sorted(
        entry.path
        for entry in _entries(folder)
        if not _leads(entry, os.DirEntry.is_file) and _is_image(Path(entry.path))
    )
    words = {True: "a link that leads nowhere", False: "a pipe, a socket or a device, not a file"}
    lines = [f"{path} is {words[os.path.islink(path) and not os.path.exists(path)]}" for path in found]
    return lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more such images"] if len(lines) > _SHOWN else [])


def _listing_problems(part: str, folder: Path, listing: Listing) -> list[str]:
    if not listing:
        return [f"{folder} has no folders, and so no classes; it has {_held(folder)}"]
    found = [
        f"{folder / name} has no image ({', '.join(EXTENSIONS)}); it has {_held(folder / name)}"
        for name, paths in listing.items()
        if not paths
    ]
    found += _unreadable(folder)
    if part == "train" and len(listing) == 1:
        found.append(f"{folder} has one class only, {next(iter(listing))!r}; there is nothing to tell apart")
    return found


def _class_problems(part: str, listing: Listing, listings: dict[str, Listing]) -> list[str]:
    other = sorted(set(listing) - set(listings["train"]))
    return [f"the class {name!r} of {part} is not among the classes of train" for name in other]


def _held(folder: Path) -> str:
    """Say what lies in a folder, as kinds of file and how many."""
    kinds = Counter(path.suffix.lower() or "no extension" for path in _files(folder))
    return ", ".join(f"{count} files {kind}" for kind, count in sorted(kinds.items())) or "no files"
