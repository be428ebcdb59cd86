"""A step's batch whole on every replica, for losses and metrics whose value cannot be put together from the shares.

Each replica puts its rows in their place among zeros, and the sum over the replicas is the batch, exactly; gradients
flow back to the replica that holds the rows.
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
from nameplate.engine import private
from nameplate.engine.collectives import other_replicas, sums_over_replicas
from nameplate.engine.loss_scaling import Reduction, current_scale, unreplicated
from nameplate.engine.reductions import TRIALS, random_examples, reduction_of_function, require_tried, same
from nameplate.errors import NameplateError


def whole_batch(structure: Any, what: str) -> Any:
    """Return the rows of all replicas for those of this one, tensors of (rows, ...) in a structure; None stays None.

    Keras' masks go with their tensors. `what` says in an error what they are for. Scalars stay as they are.

    Raises:
        NameplateError: rows that are not numbers, or not equally many for each example.
        CrossesReplicasError: the trace is for one replica by itself.
    """
    scale = current_scale()
    if scale is None or scale.share.copies > 1 or not other_replicas():
        return structure
    flat = tf.nest.flatten(structure)
    held = private.masks(structure)
    rows = [each for each in [*flat, *held] if each is not None and len(each.shape) > 0]
    sums = sums_over_replicas([_among_zeros(each, scale.share, what) for each in rows])
    batches = {id(row): _as(row, total) for row, total in zip(rows, sums, strict=True)}
    whole = tf.nest.pack_sequence_as(structure, [batches.get(id(each), each) for each in flat])
    private.set_masks(whole, [batches.get(id(mask), mask) for mask in held])
    return whole


def _among_zeros(rows: Any, share: Share, what: str) -> tf.Tensor:
    if not isinstance(rows, tf.Tensor) or not (rows.dtype.is_floating or rows.dtype.is_integer or rows.dtype.is_bool):
        raise NameplateError(
            f"{what} needs the batch of all replicas at once, and a {type(rows).__name__} of "
            f"{getattr(rows.dtype, 'name', rows.dtype)} cannot be exchanged; give it dense numbers, or use one replica"
        )
    rows_per_example = 1
    if rows.shape[0] is not None and isinstance(share.length, int):
        rows_per_example, left = divmod(rows.shape[0], share.length)
        if left:
            raise NameplateError(
                f"{what} needs the batch of all replicas at once, and gets {rows.shape[0]} rows of {share.length} "
                "examples; give it equally many rows for each example, or use one replica"
            )
    before = share.start * rows_per_example
    after = (share.step - share.start - share.length) * rows_per_example
    # The collectives add up no integers smaller than 32 bits.
    numbers = rows if rows.dtype.is_floating or rows.dtype.size >= 4 else tf.cast(rows, tf.int32)
    return tf.pad(numbers, [[before, after], *[[0, 0]] * (len(rows.shape) - 1)])


def _as(rows: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    return total if total.dtype == rows.dtype else tf.cast(total, rows.dtype)


Result = tuple[keras.metrics.Metric, str | None]  # a metric, and the name of one of its results if it has several


@contextmanager
def over_whole_steps(model: keras.Model) -> Iterator[None]:
    """While steps are traced, let the model's losses and metrics be those of the whole step's examples."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(private.replaced_losses(model, _over_whole_step))
        stack.enter_context(remembering_results(model))
        for metric in private.measured_metrics(model):
            if not is_sum_of_states(metric):
                stack.enter_context(_updated_with_whole_batch(metric))
        yield


def _over_whole_step(loss: Any) -> Any:
    """Return a loss whose value on each replica is its part of the step's."""
    if is_mean_of_rows(loss):
        return loss
    known: list[Reduction] = []  # found when it is first traced

    def of_replica(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        scale = current_scale()
        if scale is None or scale.alone:
            return loss(y_true, y_pred, sample_weight)
        if not known:
            known.append(_reduction(loss, y_true, y_pred, sample_weight))
        (reduction,) = known
        if reduction is Reduction.ROWS:
            if has_own_call(loss):
                raise NameplateError(
                    f"the loss {loss.name!r} gives a number an example, but a step is trained by a single number; "
                    "let its __call__ return their mean"
                )
            return loss(y_true, y_pred, sample_weight)
        arguments = (y_true, y_pred, sample_weight)
        if reduction is Reduction.OTHER:
            arguments = whole_batch(arguments, f"the loss {loss.name!r}")
        with unreplicated():
            value = tf.convert_to_tensor(loss(*arguments))
        # Of the whole batch every replica has the same value, which is scaled as a mean is: the parts add up to it.
        return scale.of_sum(value) if reduction is Reduction.SUM else scale.of_mean(value)

    return of_replica


def _reduction(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> Reduction:
    with tf.init_scope(), unreplicated():
        if not has_own_call(loss) and reduction_of_function(loss.call, (y_true, y_pred)) is Reduction.ROWS:
            return Reduction.ROWS
        if any(mask is not None for mask in private.masks(y_pred)):
            return Reduction.OTHER
        return reduction_of_function(loss, (y_true, y_pred, sample_weight))


@contextmanager
def _updated_with_whole_batch(metric: keras.metrics.Metric) -> Iterator[None]:
    """Let a user's metric see the whole batch, unless its state over two parts is the sum of both parts' states."""
    update: Callable[..., Any] = metric.update_state
    sums: list[bool] = []  # found when it is first traced

    def of_replica(*arguments: Any, **keywords: Any) -> Any:
        scale, given = current_scale(), (list(arguments), keywords)
        if scale is None or scale.alone:
            return update(*arguments, **keywords)
        if not has_rows(given):
            require_tried()
            return update(*arguments, **keywords)
        if not sums:
            sums.append(_states_add_up(metric, update, given))
        if sums[0]:
            return update(*arguments, **keywords)
        _read_on_first_replica(metric)  # every replica makes the same update, so the states must not be added up
        arguments, keywords = whole_batch(given, f"the metric {metric.name!r}")
        with unreplicated():
            return update(*arguments, **keywords)

    with private.shadowed(metric, "update_state", of_replica):
        yield


@contextmanager
def remembering_results(model: keras.Model) -> Iterator[None]:
    """Inside, results of the model's metrics are recognised when a step returns them: see `result_behind`."""

    def remembering(metric: keras.metrics.Metric, result: Callable[[], Any]) -> Callable[[], Any]:
        def of_replica() -> Any:
            value = result()
            for key, each in value.items() if isinstance(value, dict) else [(None, value)]:
                _results.behind[id(each)] = (each, metric, key)
            return value

        return of_replica

    with ExitStack() as stack:
        for metric in {id(metric): metric for metric in (*private.measured_metrics(model), *model.metrics)}.values():
            stack.enter_context(private.shadowed(metric, "result", remembering(metric, metric.result)))
        yield


def result_behind(value: Any) -> Result | None:
    """Return the metric whose result a value is, of those that this thread has asked for; None if it is not one."""
    remembered = _results.behind.get(id(value))
    return None if remembered is None else (remembered[1], remembered[2])


class _Results(threading.local):
    """The results that a replica's step has asked for; the values are held, so that their identities stay theirs."""

    def __init__(self) -> None:
        self.behind: dict[int, tuple[Any, keras.metrics.Metric, str | None]] = {}


_results = _Results()


def has_rows(structure: Any) -> bool:
    """Say whether a structure of arguments holds a tensor with rows, and not only single numbers."""
    return any(each is not None and len(each.shape) > 0 for each in map(_tensor, tf.nest.flatten(structure)))


def _tensor(value: Any) -> Any:
    return value if value is None or hasattr(value, "shape") else np.asarray(value)


def _states_add_up(metric: keras.metrics.Metric, update: Callable[..., Any], given: Any) -> bool:
    """Say whether the state of a metric that starts at zero is the sum of its states over parts, by trying it."""
    if any(mask is not None for mask in private.masks(given)):
        return False

    def state(first: list[Any], arguments: list[Any], keywords: dict[str, Any]) -> list[np.ndarray]:
        with keras.StatelessScope(state_mapping=list(zip(metric.variables, first, strict=True))) as scope:
            update(*arguments, **keywords)
        return [np.asarray(scope.get_current_value(variable), np.float64) for variable in metric.variables]

    with tf.init_scope(), unreplicated():
        try:
            zeros = metric.stateless_reset_state()
            if any(np.any(np.asarray(value)) for value in zeros):
                return False
            for trial in range(TRIALS):
                first, second, both = (state(zeros, *part) for part in random_examples(given, seed=trial))
                states = zip(first, second, both, strict=True)
                if not all(same(one + other, whole) for one, other, whole in states):
                    return False
        except Exception:  # a user's function may raise anything for numbers that it was not made for
            return False
    return True


def is_read_on_first_replica(variable: keras.Variable) -> bool:
    """Say whether a metric's variable is the same on all replicas, so that its values do not add up."""
    return private.aggregation(variable) is tf.VariableAggregation.ONLY_FIRST_REPLICA


def _read_on_first_replica(metric: keras.metrics.Metric) -> None:
    """Read a metric's variables, which are the same on all replicas, from the first instead of adding them up."""
    for variable in metric.variables:
        private.set_aggregation(variable, tf.VariableAggregation.ONLY_FIRST_REPLICA)


def has_own_call(loss: keras.losses.Loss) -> bool:
    """Say whether a loss overrides `__call__`, and so the reduction, too."""
    return type(loss).__call__ is not keras.losses.Loss.__call__


def is_mean_of_rows(loss: keras.losses.Loss) -> bool:
    """Say whether a loss is one of Keras' that gives each example a number, whatever else is in the batch.

    Circle, and Dice and Tversky by default, compare the examples of a batch with each other.
    """
    function = getattr(loss, "fn", loss.call)
    known = _is_keras(type(loss)) and _is_keras(function) and not has_own_call(loss)
    return known and function not in (keras.losses.circle, keras.losses.dice, keras.losses.tversky)


def is_sum_of_states(metric: keras.metrics.Metric) -> bool:
    """Say whether a metric is one of Keras': their states over shares add up to the state over all examples."""
    return _is_keras(type(metric)) and _is_keras(private.metric_function(metric))


def _is_keras(what: Any) -> bool:
    return str(getattr(what, "__module__", "")).startswith("keras.")
