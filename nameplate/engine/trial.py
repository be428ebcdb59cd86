"""A model's own code, tried on a few random examples before it is trained on several replicas.

Two parts and both at once go through a step of it on one device, with nothing updated: so it shows what the numbers
are that it makes of them.
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

from nameplate.engine.loss_scaling import Part, counting, tracing
from nameplate.engine.private.compiled import measured_metrics, output_trackers, replaced_losses
from nameplate.engine.private.one_device import as_one_device
from nameplate.engine.private.trial import without_chance
from nameplate.engine.scalars import BOTH, FIRST, SECOND, Kind, Scalars, Walk, examples, kind_of, same, walking
from nameplate.engine.whole_batch import has_rows, results_known, shadowed
from nameplate.errors import NameplateError
from nameplate.graph.tree import layers

Once = Callable[[Any], tuple[Any, Mapping[str, Any]]]

_ADVICE = (
    "on several replicas each number that a model's own code makes of its examples must be a mean over them, or a sum; "
    "make it one, leave it to a loss of compile(...), or train on one replica"
)


@dataclass
class Outcome:
    """What came of a step of a part of the examples."""

    loss: Any = None  # of the model's own `compute_loss`
    logs: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[Any, Any] = field(default_factory=dict)
    gradients: Mapping[int, np.ndarray] = field(default_factory=dict)  # all of a call in one
    states: Mapping[str, np.ndarray] = field(default_factory=dict)  # what was added to the metrics' variables


def tried(model: keras.Model, once: Once, like: Any) -> Scalars:
    """Return what the numbers are that a step of the model makes; call it outside of a graph.

    `once` takes examples and returns what a `compute_loss` of the model's own gives, or None, and what the step tells
    by name; `like` are tensors in the structure of the examples.

    Raises:
        NameplateError: what can be neither a mean nor a sum, or cannot be tried, all of it at once.
    """
    outcomes: list[Scalars | Exception] = []

    def alone() -> None:  # in a thread of its own, which is in no strategy's scope
        try:
            with as_one_device(), without_chance(), _exact_products(), _numbers_of_its_own(model):
                outcomes.append(_tried(model, once, like))
        except Exception as error:  # a model's own code may raise anything
            outcomes.append(error)

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    (outcome,) = outcomes
    if isinstance(outcome, Scalars):
        return outcome
    if isinstance(outcome, NameplateError):
        raise outcome
    reason = (str(outcome).strip().splitlines() or [""])[0]
    raise NameplateError(
        f"{model.name!r} could not be tried with random numbers ({type(outcome).__name__}: {reason[:200]}); {_ADVICE}"
    ) from outcome


def _tried(model: keras.Model, once: Once, like: Any) -> Scalars:
    parts = list(zip(examples(like, seed=0), (FIRST, SECOND, BOTH), strict=True))
    tolerance = _tolerance(model)
    outcomes = [_outcome(model, once, part, rows, Scalars()) for part, rows in parts]
    added = Scalars(_kinds([outcome.added for outcome in outcomes], tolerance))
    if Kind.SUM in added.added.values():  # what else is made of them is made of means from now on
        outcomes = [_outcome(model, once, part, rows, added) for part, rows in parts]
    losses = [{} if outcome.loss is None else {0: outcome.loss} for outcome in outcomes]
    logs = _kinds([outcome.logs for outcome in outcomes], tolerance)
    if logs:  # what is made of the metrics' results depends on what they have seen before
        later = _outcome(model, once, *parts[0], added, begin=1.7).logs
        logs |= {name: Kind.OTHER for name, value in outcomes[0].logs.items() if not same(value, later[name])}
    known = Scalars(
        added=added.added,
        loss=_kinds(losses, tolerance).get(0, Kind.MEAN),
        gradients=tuple(_kinds([outcome.gradients for outcome in outcomes], tolerance).values()),
        logs=logs,
    )
    problems = _problems(model, known) + _metric_problems([outcome.states for outcome in outcomes], tolerance)
    if problems:
        raise NameplateError("\n".join([f"{model.name!r}, tried with random numbers:", *problems, _ADVICE]))
    return known


def _outcome(model: keras.Model, once: Once, part: Any, rows: int, known: Scalars, *, begin: float = 0.0) -> Outcome:
    """Return what comes of a part of the examples, with metrics that begin at `begin` more than they do."""
    metrics = measured_metrics(model)
    variables = [variable for metric in metrics for variable in metric.variables]
    first = [value + tf.cast(begin, value.dtype) for metric in metrics for value in metric.stateless_reset_state()]
    mapping = list(zip(variables, first, strict=True))
    with (
        keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope,
        walking(Walk(known, is_trial=True)) as walk,
        tracing(Part(rows / BOTH, later=True)),
        counting(rows, output_trackers(model)),
    ):
        loss, logs = once(part)
    return Outcome(
        loss,
        logs,
        walk.losses,
        {place: _flat(gradients) for place, gradients in enumerate(walk.gradients)},
        {
            variable.path: np.asarray(scope.get_current_value(variable), np.float64) - np.asarray(value, np.float64)
            for variable, value in mapping
        },
    )


def _flat(gradients: Sequence[Any]) -> np.ndarray:
    held = [np.ravel(tf.convert_to_tensor(gradient)) for gradient in gradients if gradient is not None]
    return np.concatenate([np.zeros(0), *(np.asarray(each, np.float64) for each in held)])


def _kinds(found: Sequence[Mapping[Any, Any]], tolerance: float) -> dict[Any, Kind]:
    return {
        key: kind_of(*(each[key] for each in found), tolerance=tolerance)
        if all(key in each for each in found)
        else Kind.OTHER
        for key in {key: None for each in found for key in each}
    }


def _problems(model: keras.Model, known: Scalars) -> list[str]:
    names = {id(model): model.name} | {id(layer): name for name, layer in layers(model).items()}
    wrong = (Kind.OTHER, Kind.ROWS)
    found = [
        f"  the layer {names.get(layer, '')!r} adds a loss that is neither a mean nor a sum over examples"
        for (layer, _), kind in known.added.items()
        if kind in wrong
    ]
    if known.loss in wrong:
        found.append("  compute_loss returns what is neither a mean nor a sum over examples")
    found += [
        f"  train_step gives an optimizer (call {place + 1}) gradients of neither a mean nor a sum over examples"
        for place, kind in enumerate(known.gradients)
        if kind in wrong
    ]
    return found + [
        f"  the step returns {name!r}, which is neither a mean nor a sum over examples, nor a metric's result"
        for name, kind in known.logs.items()
        if kind in wrong
    ]


def _metric_problems(states: Sequence[Mapping[str, np.ndarray]], tolerance: float) -> list[str]:
    first, second, both = states
    return [
        f"  the metric of {path!r} is updated with a number that is not a mean over examples"
        for path in both
        if not same(first[path] + second[path], both[path], tolerance)
    ]


@contextmanager
def _numbers_of_its_own(model: keras.Model) -> Iterator[None]:
    """Leave to the model's own code what is about it: compiled losses are any mean, metrics see numbers, no rows."""

    def mean(y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        leaves = [leaf for leaf in tf.nest.flatten(y_pred) if leaf is not None]
        return tf.add_n([tf.reduce_mean(tf.square(tf.cast(leaf, keras.config.floatx()))) for leaf in leaves])

    def numbers_only(update: Any) -> Any:
        def update_state(*arguments: Any, **keywords: Any) -> Any:
            return None if has_rows((list(arguments), keywords)) else update(*arguments, **keywords)

        return update_state

    with ExitStack() as stack:
        stack.enter_context(replaced_losses(model, lambda _: mean))
        stack.enter_context(results_known(model))
        for metric in measured_metrics(model):
            stack.enter_context(shadowed(metric, "update_state", numbers_only(metric.update_state)))
        yield


@contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply matrices in float32 where a GPU would round their elements to ten bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _tolerance(model: keras.Model) -> float:
    half = any(getattr(layer, "compute_dtype", "") in ("float16", "bfloat16") for layer in layers(model).values())
    return 3e-2 if half else 1e-4
