"""The batches of a source in the order of training, for a loop that asks for one batch after the other."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from nameplate.data.batches import Batches, Epochs
from nameplate.data.feeds import Order
from nameplate.data.source import Source, mapped


class OrderedBatches(keras.utils.PyDataset):
    """The batches of one pass after another, in the order that the graph's own loop has them in."""

    def __init__(self, source: Source, batches: Batches, order: Order, epochs: Epochs | None = None) -> None:
        super().__init__()
        self._source, self._batches, self._order = source, batches, order
        self._epochs = epochs or Epochs(batches.steps)
        self._epoch = self._epochs.first - 1  # the first has not begun

    def __len__(self) -> int:
        """Return the number of batches of a pass."""
        return self._batches.steps

    def __getitem__(self, index: int) -> Any:
        """Return a batch of the current epoch's pass, or of the first before it has begun."""
        first = index * self._batches.batch
        positions = tf.range(first, min(first + self._batches.batch, self._batches.size), dtype=tf.int64)
        of_pass = self._epochs.number(max(self._epoch, self._epochs.first)).of_pass
        examples = self._source.load(self._order(positions, of_pass))
        return mapped(lambda leaf: leaf.numpy(), examples)

    def on_epoch_begin(self) -> None:
        """Take the order of the next epoch's pass."""
        self._epoch += 1
