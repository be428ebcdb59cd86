"""A step's batch in one piece on every replica, for what cannot be put together from the replicas' shares.

Each replica puts its rows in their place among zeros, and the sum over the replicas is the batch, exactly; gradients
flow back to the replica whose rows they are of.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.errors import NameplateError
from trainer.data.batches import Share
from trainer.replicas.part import current
from trainer.replicas.private.compiled import masks, set_masks
from trainer.replicas.sums import over_several, sums_over_replicas


def in_one_piece(structure: Any, what: str) -> Any:
    """Return the rows of all replicas for those of this one, tensors of (rows, ...) in a structure; None stays None.

    Masks of Keras' go with their tensors. `what` is what they are for, in words. Scalars stay as they are.

    Raises:
        NameplateError: rows that are no numbers, or not as many for each example.
        CrossesReplicasError: where the trace is for one replica alone.
    """
    part = current()
    if part is None or part.share is None or part.copies > 1 or not over_several():
        return structure
    flat = tf.nest.flatten(structure)
    held = masks(structure)
    rows = [each for each in [*flat, *held] if _has_rows(each)]
    sums = sums_over_replicas([_among_zeros(each, part.share, what) for each in rows])
    found = {id(row): _as(row, total) for row, total in zip(rows, sums, strict=True)}
    whole = tf.nest.pack_sequence_as(structure, [found.get(id(each), each) for each in flat])
    set_masks(whole, [found.get(id(mask), mask) for mask in held])
    return whole


def _has_rows(value: Any) -> bool:
    return value is not None and len(value.shape) > 0


def _among_zeros(rows: Any, share: Share, what: str) -> tf.Tensor:
    if not isinstance(rows, tf.Tensor) or not (rows.dtype.is_floating or rows.dtype.is_integer or rows.dtype.is_bool):
        raise NameplateError(
            f"{what} needs the batch of all replicas at once, and a {type(rows).__name__} of "
            f"{getattr(rows.dtype, 'name', rows.dtype)} cannot be exchanged; give it dense numbers, or use one replica"
        )
    each = 1
    if rows.shape[0] is not None and isinstance(share.length, int):
        each, left = divmod(rows.shape[0], share.length)
        if left:
            raise NameplateError(
                f"{what} needs the batch of all replicas at once, and gets {rows.shape[0]} rows of {share.length} "
                "examples: as many for each example are needed, or one replica"
            )
    before, after = share.start * each, (share.step - share.start - share.length) * each
    numbers = rows if rows.dtype.is_floating or rows.dtype.size >= 4 else tf.cast(rows, tf.int32)
    return tf.pad(numbers, [[before, after], *[[0, 0]] * (len(rows.shape) - 1)])


def _as(rows: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    return total if total.dtype == rows.dtype else tf.cast(total, rows.dtype)
