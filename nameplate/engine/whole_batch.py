"""A step's batch in one piece on every replica, for what cannot be put together from the replicas' shares.

Each replica puts its rows in their place among zeros, and the sum over the replicas is the batch, exactly; gradients
flow back to the replica whose rows they are of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.batches import Share
from nameplate.engine.collectives import over_several, sums_over_replicas
from nameplate.engine.loss_scaling import alone, current, times
from nameplate.engine.private.compiled import (
    adds_up,
    falls_apart,
    has_own_call,
    masks,
    measured_metrics,
    read_on_first_replica,
    replaced_losses,
    set_masks,
)
from nameplate.engine.scalars import TRIALS, Kind, examples, found_kind, require_known, same
from nameplate.errors import NameplateError


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


Result = tuple[keras.metrics.Metric, str | None]  # a metric, and the name of one of its results where it has several


@contextmanager
def over_the_step(model: keras.Model) -> Iterator[None]:
    """While steps are traced, let the model's losses and metrics be those of the whole step's examples."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(replaced_losses(model, _over_the_step))
        stack.enter_context(results_known(model))
        for metric in measured_metrics(model):
            if not adds_up(metric):
                stack.enter_context(_whole_updates(metric))
        yield


def _over_the_step(loss: Any) -> Any:
    """Return a loss whose value on each replica is its part of the step's."""
    if falls_apart(loss):
        return loss
    known: list[Kind] = []  # found when it is first traced

    def of_replica(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        part = current()
        if part is None or part.alone:
            return loss(y_true, y_pred, sample_weight)
        if not known:
            known.append(_kind(loss, y_true, y_pred, sample_weight))
        if known[0] is Kind.ROWS:
            if has_own_call(loss):
                raise NameplateError(
                    f"the loss {loss.name!r} gives a number an example, and a step is trained by one number; "
                    "let its __call__ return their mean"
                )
            return loss(y_true, y_pred, sample_weight)
        given = (y_true, y_pred, sample_weight)
        if known[0] is Kind.OTHER:
            given = in_one_piece(given, f"the loss {loss.name!r}")
        with alone():
            value = tf.convert_to_tensor(loss(*given))
        return times(value, part.scale_of_sum if known[0] is Kind.SUM else part.scale)

    return of_replica


def _kind(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> Kind:
    with tf.init_scope(), alone():
        if not has_own_call(loss) and found_kind(loss.call, (y_true, y_pred)) is Kind.ROWS:
            return Kind.ROWS
        if any(mask is not None for mask in masks(y_pred)):
            return Kind.OTHER
        return found_kind(loss, (y_true, y_pred, sample_weight))


@contextmanager
def _whole_updates(metric: keras.metrics.Metric) -> Iterator[None]:
    """Let a metric of the user's see the whole batch, if its state over two parts is not the sum of both states."""
    update: Callable[..., Any] = metric.update_state
    adding: list[bool] = []

    def of_replica(*arguments: Any, **keywords: Any) -> Any:
        part, given = current(), (list(arguments), keywords)
        if part is None or part.alone:
            return update(*arguments, **keywords)
        if not has_rows(given):
            require_known()
            return update(*arguments, **keywords)
        if not adding:
            adding.append(_states_add_up(metric, update, given))
        if adding[0]:
            return update(*arguments, **keywords)
        read_on_first_replica(metric)
        arguments, keywords = in_one_piece(given, f"the metric {metric.name!r}")
        with alone():
            return update(*arguments, **keywords)

    with shadowed(metric, "update_state", of_replica):
        yield


@contextmanager
def results_known(model: keras.Model) -> Iterator[None]:
    """Inside, what the model's metrics give as results is known again when a step returns it: see `result_behind`."""

    def remembering(metric: keras.metrics.Metric, result: Callable[[], Any]) -> Callable[[], Any]:
        def of_replica() -> Any:
            value = result()
            for key, each in value.items() if isinstance(value, dict) else [(None, value)]:
                _results.behind[id(each)] = (each, metric, key)
            return value

        return of_replica

    with ExitStack() as stack:
        for metric in {id(metric): metric for metric in (*measured_metrics(model), *model.metrics)}.values():
            stack.enter_context(shadowed(metric, "result", remembering(metric, metric.result)))
        yield


def result_behind(value: Any) -> Result | None:
    """Return which metric's result a value is, of those that this thread has asked for."""
    found = _results.behind.get(id(value))
    return None if found is None else (found[1], found[2])


class _Results(threading.local):
    """The results that a replica's step has asked for; the values are held, so that their identities stay theirs."""

    def __init__(self) -> None:
        self.behind: dict[int, tuple[Any, keras.metrics.Metric, str | None]] = {}


_results = _Results()


@contextmanager
def shadowed(what: Any, method: str, replaced: Any) -> Iterator[None]:
    """Give one object another method, past what Keras does when attributes change."""
    before = vars(what).get(method)
    vars(what)[method] = replaced
    try:
        yield
    finally:
        if before is None:
            del vars(what)[method]
        else:
            vars(what)[method] = before


def has_rows(given: Any) -> bool:
    """Say whether there is a tensor among arguments that has rows, and not just numbers."""
    return any(each is not None and len(each.shape) > 0 for each in map(_tensor, tf.nest.flatten(given)))


def _tensor(value: Any) -> Any:
    return value if value is None or hasattr(value, "shape") else np.asarray(value)


def _states_add_up(metric: keras.metrics.Metric, update: Callable[..., Any], given: Any) -> bool:
    """Say whether a metric that begins at zero has the sum of its parts' states, by trying it."""
    if any(mask is not None for mask in masks(given)):
        return False

    def state(begin: list[Any], arguments: list[Any], keywords: dict[str, Any]) -> list[np.ndarray]:
        with keras.StatelessScope(state_mapping=list(zip(metric.variables, begin, strict=True))) as scope:
            update(*arguments, **keywords)
        return [np.asarray(scope.get_current_value(variable), np.float64) for variable in metric.variables]

    with tf.init_scope(), alone():
        try:
            begin = metric.stateless_reset_state()
            if any(np.any(np.asarray(value)) for value in begin):
                return False
            for trial in range(TRIALS):
                first, second, both = (state(begin, *part) for part in examples(given, seed=trial))
                states = zip(first, second, both, strict=True)
                if not all(same(one + other, whole) for one, other, whole in states):
                    return False
        except Exception:  # a user's function may raise anything of numbers that it was not made for
            return False
    return True
