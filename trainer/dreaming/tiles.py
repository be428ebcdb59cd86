"""Large images in pieces: a grid of tiles, each small enough for a forward and backward pass, and back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Grid:
    """Tiles of one size over an image whose edges meet: what goes over the right edge begins again at the left."""

    size: tuple[int, int]  # (height, width) of the image
    tile: tuple[int, int]  # (height, width) of a tile
    rows: int
    columns: int

    @property
    def single(self) -> bool:
        """Say whether the image is one tile."""
        return self.tile == self.size

    def split(self, images: tf.Tensor) -> tf.Tensor:
        """Return (rows * columns, n, *tile, channels) of images (n, *size, channels)."""
        padded = tf.gather(tf.gather(images, self._wrapped(0), axis=1), self._wrapped(1), axis=2)
        (height, width), channels = self.tile, images.shape[-1]
        cells = tf.reshape(padded, [-1, self.rows, height, self.columns, width, channels])
        cells = tf.transpose(cells, [1, 3, 0, 2, 4, 5])
        return tf.reshape(cells, [self.rows * self.columns, -1, height, width, channels])

    def joined(self, tiles: tf.Tensor) -> tf.Tensor:
        """Return the images whose tiles these are; of a pixel that is in two tiles the sum."""
        (height, width), channels = self.tile, tiles.shape[-1]
        cells = tf.reshape(tiles, [self.rows, self.columns, -1, height, width, channels])
        padded = tf.transpose(cells, [2, 0, 3, 1, 4, 5])
        padded = tf.reshape(padded, [-1, self.rows * height, self.columns * width, channels])
        return _folded(_folded(padded, 1, self.size[0]), 2, self.size[1])

    def _wrapped(self, axis: int) -> tf.Tensor:
        count = (self.rows, self.columns)[axis] * self.tile[axis]
        return tf.range(count) % self.size[axis]


def grid(size: Sequence[int], tile: int | None, *, exact: Sequence[int | None] = (None, None)) -> Grid:
    """Return the grid over an image of this size with tiles of at most `tile` pixels a side.

    Tiles are all of one size, and as even as they can be; along a side where `exact` says one, just `tile`. None: one
    tile.
    """
    counts = [1 if tile is None else -(-side // tile) for side in size]
    sides = [
        tile if tile is not None and only == tile <= side else -(-side // count)
        for side, count, only in zip(size, counts, exact, strict=True)
    ]
    return Grid((size[0], size[1]), (sides[0], sides[1]), counts[0], counts[1])


def _folded(images: tf.Tensor, axis: int, size: int) -> tf.Tensor:
    """Add what lies beyond `size` along an axis to the beginning, where it was taken from; it is less than `size`."""
    beyond = images.shape[axis] - size
    if not beyond:
        return images
    kept, over = tf.split(images, [size, beyond], axis=axis)
    room = [[0, 0] for _ in images.shape]
    room[axis][1] = size - beyond
    return kept + tf.pad(over, room)
