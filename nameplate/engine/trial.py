"""A trial of a model's own code on a few random examples, before it is trained on several replicas.

Two parts and both at once go through one step on one device, and nothing is updated. The results show for each number
that the code makes whether it is a mean over the examples or a sum, and so by which factor it is scaled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.batches import Share
from nameplate.engine import private
from nameplate.engine.loss_scaling import LossScale, Reduction, counting, scaling
from nameplate.engine.one_device import as_one_device
from nameplate.engine.reductions import (
    BOTH,
    FIRST,
    SECOND,
    StepPass,
    StepReductions,
    current_pass,
    passing,
    random_examples,
    reduction_of,
    same,
)
from nameplate.engine.whole_batch import has_rows, remembering_results
from nameplate.errors import NameplateError
from nameplate.graph.tree import layers

Once = Callable[[Any], tuple[Any, Mapping[str, Any]]]

_ADVICE = (
    "on several replicas each number that a model's own code makes of its examples must be a mean over them, or a sum; "
    "make it one, leave it to a loss of compile(...), or train on one replica"
)


@dataclass
class Outcome:
    """The numbers that a step made of one part of the examples."""

    loss: Any = None  # of the model's own `compute_loss`
    logs: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[Any, Any] = field(default_factory=dict)
    gradients: Mapping[int, np.ndarray] = field(default_factory=dict)  # by call of an optimizer, in one vector
    states: Mapping[str, np.ndarray] = field(default_factory=dict)  # what was added to the metrics' variables


def try_step(model: keras.Model, once: Once, like: Any) -> StepReductions:
    """Return how the numbers that a step of the model makes are reduced; call it outside of a graph.

    `once` takes examples and returns the result of the model's own `compute_loss`, or None, and the step's logs by
    name; `like` holds tensors in the structure of the examples.

    Raises:
        NameplateError: what is neither a mean nor a sum, or cannot be tried, all of it at once.
    """
    outcomes: list[StepReductions | Exception] = []

    def in_thread() -> None:
        try:
            with as_one_device(), deterministic(), _exact_products(), _only_own_numbers(model):
                outcomes.append(_tried(model, once, like))
        except Exception as error:  # a model's own code may raise anything
            outcomes.append(error)

    # A new thread is in no strategy's scope, so the trial runs on one device.
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    (outcome,) = outcomes
    if isinstance(outcome, StepReductions):
        return outcome
    if isinstance(outcome, NameplateError):
        raise outcome
    reason = (str(outcome).strip().splitlines() or [""])[0]
    raise NameplateError(
        f"{model.name!r} could not be tried with random numbers ({type(outcome).__name__}: {reason[:200]}); {_ADVICE}"
    ) from outcome


def _tried(model: keras.Model, once: Once, like: Any) -> StepReductions:
    parts = list(zip(random_examples(like, seed=0), (FIRST, SECOND, BOTH), strict=True))
    tolerance = _tolerance(model)
    outcomes = [_outcome(model, once, part, rows, StepReductions()) for part, rows in parts]
    added = StepReductions(_reductions([outcome.added for outcome in outcomes], tolerance))
    if Reduction.SUM in added.added.values():  # added as means from here on, as what else is made of them expects
        outcomes = [_outcome(model, once, part, rows, added) for part, rows in parts]
    losses = [{} if outcome.loss is None else {0: outcome.loss} for outcome in outcomes]
    logs = _reductions([outcome.logs for outcome in outcomes], tolerance)
    if logs:  # a number that is made of metrics' results depends on what they have seen before, and is refused
        later = _outcome(model, once, *parts[0], added, offset=1.7).logs
        logs |= {name: Reduction.OTHER for name, value in outcomes[0].logs.items() if not same(value, later[name])}
    known = StepReductions(
        added=added.added,
        loss=_reductions(losses, tolerance).get(0, Reduction.MEAN),
        gradients=tuple(_reductions([outcome.gradients for outcome in outcomes], tolerance).values()),
        logs=logs,
    )
    problems = _problems(model, known) + _metric_problems([outcome.states for outcome in outcomes], tolerance)
    if problems:
        raise NameplateError("\n".join([f"{model.name!r}, tried with random numbers:", *problems, _ADVICE]))
    return known


def _outcome(
    model: keras.Model, once: Once, part: Any, rows: int, known: StepReductions, *, offset: float = 0.0
) -> Outcome:
    """Return the outcome of a part of the examples; metrics start at their initial state plus `offset`."""
    metrics = private.measured_metrics(model)
    variables = [variable for metric in metrics for variable in metric.variables]
    first = [value + tf.cast(offset, value.dtype) for metric in metrics for value in metric.stateless_reset_state()]
    mapping = list(zip(variables, first, strict=True))
    with (
        keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope,
        passing(StepPass(known, is_trial=True)) as step_pass,
        scaling(LossScale(Share(0, rows, rows / BOTH, step=BOTH), deferred=True)),
        counting(rows, private.output_trackers(model)),
    ):
        loss, logs = once(part)
    return Outcome(
        loss,
        logs,
        step_pass.losses,
        {index: _flat(gradients) for index, gradients in enumerate(step_pass.gradients)},
        {
            variable.path: np.asarray(scope.get_current_value(variable), np.float64) - np.asarray(value, np.float64)
            for variable, value in mapping
        },
    )


def _flat(gradients: Sequence[Any]) -> np.ndarray:
    held = [np.ravel(tf.convert_to_tensor(gradient)) for gradient in gradients if gradient is not None]
    return np.concatenate([np.zeros(0), *(np.asarray(each, np.float64) for each in held)])


def _reductions(outcomes: Sequence[Mapping[Any, Any]], tolerance: float) -> dict[Any, Reduction]:
    return {
        key: reduction_of(*(values[key] for values in outcomes), tolerance=tolerance)
        if all(key in values for values in outcomes)
        else Reduction.OTHER
        for key in {key: None for values in outcomes for key in values}
    }


def _problems(model: keras.Model, known: StepReductions) -> list[str]:
    names = {id(model): model.name} | {id(layer): name for name, layer in layers(model).items()}
    wrong = (Reduction.OTHER, Reduction.ROWS)
    problems = [
        f"  the layer {names.get(layer, '')!r} adds a loss that is neither a mean nor a sum over examples"
        for (layer, _), reduction in known.added.items()
        if reduction in wrong
    ]
    if known.loss in wrong:
        problems.append("  compute_loss returns what is neither a mean nor a sum over examples")
    problems += [
        f"  train_step gives an optimizer (call {index + 1}) gradients of neither a mean nor a sum over examples"
        for index, reduction in enumerate(known.gradients)
        if reduction in wrong
    ]
    return problems + [
        f"  the step returns {name!r}, which is neither a mean nor a sum over examples, nor a metric's result"
        for name, reduction in known.logs.items()
        if reduction in wrong
    ]


def _metric_problems(states: Sequence[Mapping[str, np.ndarray]], tolerance: float) -> list[str]:
    first, second, both = states
    return [
        f"  the metric of {path!r} is updated with a number that is not a mean over examples"
        for path in both
        if not same(first[path] + second[path], both[path], tolerance)
    ]


@contextmanager
def _only_own_numbers(model: keras.Model) -> Iterator[None]:
    """Try the model's own code and nothing else: compiled losses are some mean, metrics see numbers but no rows."""

    def mean(y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        leaves = [leaf for leaf in tf.nest.flatten(y_pred) if leaf is not None]
        return tf.add_n([tf.reduce_mean(tf.square(tf.cast(leaf, keras.config.floatx()))) for leaf in leaves])

    def numbers_only(update: Any) -> Any:
        def update_state(*arguments: Any, **keywords: Any) -> Any:
            return None if has_rows((list(arguments), keywords)) else update(*arguments, **keywords)

        return update_state

    with ExitStack() as stack:
        stack.enter_context(private.replaced_losses(model, lambda _: mean))
        stack.enter_context(remembering_results(model))
        for metric in private.measured_metrics(model):
            stack.enter_context(private.shadowed(metric, "update_state", numbers_only(metric.update_state)))
        yield


@contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply matrices in full float32; by default a GPU rounds their elements to ten bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _tolerance(model: keras.Model) -> float:
    half = any(getattr(layer, "compute_dtype", "") in ("float16", "bfloat16") for layer in layers(model).values())
    return 3e-2 if half else 1e-4


# ---- a model without chance ----------------------------------------------------------------------------------------

_FRACTION = 0.4  # of the way between the ends of a range lies the constant that is drawn from it


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, random numbers are constants, dropout keeps all, batch statistics are the moving ones, no update is made.

    Keras draws through `tf.random.stateless_...` (backend/tensorflow/random.py), a user's code often through
    `tf.random.normal` and `uniform`. Both look the function up as an attribute at each call, so it can be replaced.
    """
    with private.patched(_REPLACED):
        yield


def _normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = tf.float32, **_: Any) -> tf.Tensor:
    return tf.broadcast_to(tf.cast(mean, dtype) + tf.cast(stddev, dtype) * _FRACTION, _dimensions(shape))


def _uniform(shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = tf.float32, **_: Any) -> tf.Tensor:
    low, high = tf.cast(minval, tf.float64), tf.cast(1 if maxval is None else maxval, tf.float64)
    return tf.broadcast_to(tf.cast(low + _FRACTION * (high - low), dtype), _dimensions(shape))


def _stateless_normal(shape: Any, seed: Any = None, *arguments: Any, **keywords: Any) -> tf.Tensor:
    return _normal(shape, *arguments, **keywords)


def _stateless_uniform(shape: Any, seed: Any = None, *arguments: Any, **keywords: Any) -> tf.Tensor:
    return _uniform(shape, *arguments, **keywords)


def _dimensions(shape: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(shape) if len(shape) else tf.zeros([0], tf.int32), tf.int32)


def _kept(inputs: Any, *_: Any, **__: Any) -> Any:
    return inputs


def _moving(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    del mask
    return tf.cast(layer.moving_mean.value, inputs.dtype), tf.cast(layer.moving_variance.value, inputs.dtype)


def _apply(optimizer: keras.Optimizer, grads: Any, trainable_variables: Any = None) -> None:
    del optimizer, trainable_variables
    step_pass = current_pass()
    if step_pass is not None:
        step_pass.gradients.append(list(grads))


_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (tf.random, "normal", _normal),
    (tf.random, "truncated_normal", _normal),
    (tf.random, "uniform", _uniform),
    (tf.random, "stateless_normal", _stateless_normal),
    (tf.random, "stateless_truncated_normal", _stateless_normal),
    (tf.random, "stateless_uniform", _stateless_uniform),
    (*private.DROPOUT, _kept),
    (*private.LAYER_MOMENTS, _moving),
    *((*place, _apply) for place in private.APPLY),
)
