"""Optimizer, schedule and objective: a named model is compiled, its variables are created, its names freeze."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.source import leaves, mapped
from nameplate.engine import private
from nameplate.engine.config import (
    AdadeltaConfig,
    AdafactorConfig,
    AdagradConfig,
    AdamaxConfig,
    AdamConfig,
    AdamWConfig,
    CustomOptimizerConfig,
    Decay,
    FtrlConfig,
    LambConfig,
    LionConfig,
    MuonConfig,
    NadamConfig,
    OptimizerConfig,
    Precision,
    RmsPropConfig,
    ScheduleConfig,
    ScheduleFreeAdamWConfig,
    SgdConfig,
)
from nameplate.engine.errors import misfit, reason
from nameplate.engine.learning_rate import WarmupDecay, set_rates
from nameplate.engine.objective_config import ObjectiveConfig
from nameplate.engine.objects import make, make_all
from nameplate.engine.optimizer_state import initialize_averages
from nameplate.errors import NameplateError
from nameplate.graph.global_state import collector_paused
from nameplate.graph.name_contract import freeze, recheck
from nameplate.naming.keras_objects import LOSSES, METRICS, TARGET
from nameplate.naming.names import snake
from nameplate.section import ConfigError

_LOSS_METHODS = ("train_step", "compute_loss")


def compile_model(
    model: keras.Model,
    *,
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig,
    objective: ObjectiveConfig,
    precision: Precision,
    steps: int,
    example: tuple[Any, ...],
    trust: Sequence[str] = (),
) -> dict[str, float]:
    """Compile a model inside the strategy's scope and create every variable of its training.

    `steps` is the length of the run; `example` holds KerasTensors (x, y[, weight]) of one batch; `trust` has the
    packages whose losses, metrics and optimizers may be made. Returns the highest learning rate of every variable that
    trains.

    Raises:
        ConfigError: an objective is for an output that the model does not have, or cannot be made.
        NameplateError: a loss or metric does not fit the model's outputs, or a learning rate is unused.
    """
    outputs = output_names(model)
    problems = objective.outputs_problems(outputs)
    if problems:
        raise ConfigError(problems)
    rate = make_schedule(schedule, optimizer.learning_rate, steps, trust=trust)
    chosen = make_optimizer(optimizer, learning_rate=rate, trust=trust)
    if precision is Precision.mixed_float16:
        chosen = keras.optimizers.LossScaleOptimizer(chosen, name="loss_scale")
    model.compile(chosen, **make_objective(objective, outputs, trust=trust), jit_compile=False)
    prepare(model, example)
    return set_rates(model, optimizer.rates, usual=optimizer.learning_rate)


def prepare(model: keras.Model, example: tuple[Any, ...], *, frozen: bool = False) -> None:
    """Create every variable of a compiled model's training, and freeze its names.

    If the model or its optimizer has no variables yet, it gets them here: slots can be restored only once they exist,
    and the first step is faster. A model of which nothing trains is refused, or only warned of if it may be `frozen`.

    Raises:
        NameplateError: the data or the objective does not fit the model, or there is nothing to train.
        NamingError: names have changed since they froze.
    """
    build(model, example)
    if not model.trainable_variables:
        message = f"nothing to train: {model.name!r} has no variable that is trainable"
        if not frozen:
            raise NameplateError(message)
        warnings.warn(message, stacklevel=2)
    elif not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    initialize_averages(model.optimizer)
    recheck(model)
    freeze(model)


def build(model: keras.Model, example: tuple[Any, ...]) -> None:
    """Create the variables of a compiled model, its losses and metrics; `example` as for `prepare`.

    Raises:
        NameplateError: the data or the objective does not fit the model, or there is nothing to minimise.
    """
    losses, makes_one = getattr(model, "loss", None), any(overridden(model, method) for method in _LOSS_METHODS)
    if losses is not None and not makes_one and not leaves(example[1:2]):
        raise NameplateError(f"{model.name!r} is compiled with a loss, but the data has no targets; give y")
    try:
        with collector_paused():
            private.build_compiled(model, example)
            if losses is None and not makes_one and not _adds_losses(model, example):
                raise NameplateError(
                    f"{model.name!r} is compiled without a loss, and no layer adds one; "
                    "give compile one, e.g. loss='mse'"
                )
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise misfit(
            f"the data or the objective does not fit {model.name!r} with outputs "
            f"{', '.join(output_names(model))}: {reason(error)}",
            error,
        ) from error


def refuse_unlike(
    model: keras.Model, example: tuple[Any, ...], held_out: tuple[Any, ...], *, name: str = "validation_data"
) -> None:
    """Refuse validation data that the model cannot be evaluated on: otherwise it would fail only after an epoch.

    `example` and `held_out` are from `nameplate.data.adapters.example_of`; an error calls the latter `name`. Data of
    other shapes than the training data, such as longer sequences, is tried symbolically.
    """
    if _shapes(example) == _shapes(held_out):
        return
    try:
        _evaluate_symbolically(model, held_out)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise misfit(
            f"{name} has examples of {_shapes(held_out)}, the training data of {_shapes(example)}: {reason(error)}",
            error,
        ) from error


def make_optimizer(config: OptimizerConfig, *, learning_rate: Any, trust: Sequence[str] = ()) -> keras.Optimizer:
    """Return the optimizer of a configuration.

    Raises:
        TargetError: it is a class of the user's own that is not trusted, or its arguments do not fit.
    """
    common = {key: getattr(config, key) for key in ("weight_decay", "clipnorm", "global_clipnorm", "clipvalue")}
    common |= {"use_ema": True, "ema_momentum": config.ema_momentum} if config.ema_momentum is not None else {}
    given = {"learning_rate": learning_rate} | {key: value for key, value in common.items() if value is not None}
    if isinstance(config, CustomOptimizerConfig):
        [(kind, key, value)] = config.named_objects()
        return make(kind, key, value | given, trust=trust)
    own = {own.name: getattr(config, own.name) for own in fields(config)}
    given |= {name: value for name, value in own.items() if name not in _OF_ALL}
    given["weight_decay"] = config.weight_decay  # also None: a class may have another default
    return getattr(keras.optimizers, _OPTIMIZERS[type(config)])(**given)


_OF_ALL = [own.name for own in fields(OptimizerConfig)]
_OPTIMIZERS = {
    AdadeltaConfig: "Adadelta",
    AdafactorConfig: "Adafactor",
    AdagradConfig: "Adagrad",
    AdamConfig: "Adam",
    AdamWConfig: "AdamW",
    AdamaxConfig: "Adamax",
    FtrlConfig: "Ftrl",
    LambConfig: "Lamb",
    LionConfig: "Lion",
    MuonConfig: "Muon",
    NadamConfig: "Nadam",
    RmsPropConfig: "RMSprop",
    ScheduleFreeAdamWConfig: "ScheduleFreeAdamW",
    SgdConfig: "SGD",
}


def make_schedule(config: ScheduleConfig, rate: float, steps: int, *, trust: Sequence[str] = ()) -> Any:
    """Return the learning rate as a number, or as a schedule if it changes over the `steps` of a run.

    Raises:
        TargetError: as `make_optimizer`.
    """
    if config.decay is Decay.custom:
        [(kind, key, value)] = config.named_objects()
        return make(kind, key, value, trust=trust, offered={"initial_learning_rate": rate, "decay_steps": steps})
    if config.decay is Decay.constant and not config.warmup_steps:
        return rate
    return WarmupDecay(
        rate=rate,
        decay=config.decay.value,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_steps or max(steps - config.warmup_steps, 1),
        final=config.final,
    )


def output_names(model: keras.Model) -> list[str]:
    """Return the names that key losses and metrics; the single output of a subclassed model is `output`."""
    names = getattr(model, "output_names", None)
    return list(names) if names else ["output"]


def overridden(model: keras.Model, method: str) -> bool:
    """Say whether the model's class overrides a method such as `train_step` or `test_step`."""
    return getattr(type(model), method) is not getattr(keras.Model, method)


def called(model: keras.Model, x: Any, *, training: bool) -> Any:
    """Return the model's outputs; a model whose `call` does not take `training` is not given it."""
    return model(x, training=training) if private.takes_training(model) else model(x)


def _evaluate_symbolically(model: keras.Model, example: tuple[Any, ...]) -> None:
    """Evaluate a built model symbolically, without computing anything; raises what Keras would."""

    def evaluate(x: Any, y: Any, weight: Any) -> Any:
        predicted = called(model, x, training=False)
        private.compute_loss(model, x, y, predicted, weight, training=False)
        model.compute_metrics(x, y, predicted, sample_weight=weight)
        return predicted

    private.evaluate_symbolically(evaluate, *example)


def _adds_losses(model: keras.Model, example: tuple[Any, ...]) -> bool:
    """Say whether a built model's layers add losses in training; `example` as for `prepare`."""
    losses: list[Any] = []

    def forward(x: Any) -> Any:
        with keras.StatelessScope(collect_losses=True):
            predicted = called(model, x, training=True)
            losses.extend(model.losses)
        return predicted

    private.evaluate_symbolically(forward, example[0])
    return bool(losses)


def _shapes(example: tuple[Any, ...]) -> str:
    """Return the dtypes and shapes of inputs and targets, without the batch dimension."""
    return str(mapped(lambda leaf: f"{leaf.dtype} {tuple(leaf.shape[1:])}", example[:2]))


def make_objective(config: ObjectiveConfig, outputs: Sequence[str], *, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Return the arguments of `model.compile` for these outputs; call it in the strategy's scope.

    Raises:
        ConfigError: with everything that cannot be made.
    """

    def loss(output: str) -> Callable[[], Any]:
        key = f"objective.losses.{output}" if output in config.losses else "objective.loss"
        value = config.losses.get(output, config.loss)
        options = {"from_logits": config.from_logits, "label_smoothing": config.label_smoothing}
        return lambda: None if value is None else make(LOSSES, key, value, trust=trust, offered=options)

    def metric(key: str, value: Any) -> Callable[[], Any]:
        options = {"from_logits": config.from_logits}
        return lambda: make_metric(key, value, trust=trust, offered=options)

    makers: dict[tuple[str, str], list[Callable[[], Any]]] = {}
    for output in outputs:
        makers["loss", output] = [loss(output)]
        for name in ("metrics", "weighted_metrics"):
            by_output = getattr(config, f"output_{name}")
            own = by_output.get(output, getattr(config, name))
            key = f"objective.output_{name}.{output}" if output in by_output else f"objective.{name}"
            makers[name, output] = [metric(key, value) for value in own]
    made = iter(make_all([maker for several in makers.values() for maker in several]))
    found = {key: [next(made) for _ in several] for key, several in makers.items()}
    names = ("metrics", "weighted_metrics")
    if problems := [problem for key, metrics in found.items() for problem in _twice(key, metrics)]:
        raise ConfigError(problems)
    if len(outputs) == 1:
        only = outputs[0]
        return {"loss": found["loss", only][0], **{name: found[name, only] for name in names}}
    return {
        "loss": {output: found["loss", output][0] for output in outputs},
        **{name: {output: found[name, output] for output in outputs} for name in names},
        "loss_weights": {output: config.loss_weights.get(output, 1.0) for output in outputs},
    }


def make_metric(key: str, value: Any, *, trust: Sequence[str], offered: Mapping[str, Any]) -> Any:
    """Return a metric; one that is a word of Keras' is called by it, as `compile` would call it.

    `accuracy` stays a word: Keras chooses the class by the shapes of target and output.
    """
    own, word = METRICS.keras_class(value), value if isinstance(value, str) and "." not in value else ""
    if own == "Accuracy" and word:
        return word.lower()
    name: dict[str, Any] = {}
    if word.islower():
        name = {"name": word}
    elif own and inspect.signature(getattr(keras.metrics, own)).parameters["name"].default is None:
        name = {"name": snake(own)}  # Keras would number it by what the process has made before
    return make(METRICS, key, value, trust=trust, offered={**offered, **name} if own else offered)


def _twice(key: tuple[str, str], metrics: Sequence[Any]) -> Iterator[str]:
    """Yield the names that two metrics of an output share: Keras would report one of them."""
    names = [each if isinstance(each, str) else getattr(each, "name", "") for each in metrics]
    for name in dict.fromkeys(name for name in names if name and names.count(name) > 1):
        which, output = key
        yield (
            f"objective.{which}: two metrics of {output!r} are called {name!r}; give one a name of its own: "
            f"{{{TARGET}: ..., name: my_{name}}}"
        )


# ---- weights of classes --------------------------------------------------------------------------------------------


def class_weights(weights: Mapping[int, float] | None) -> tf.Tensor | None:
    """Return weights by class as a vector, 1 if none is given, with a last 1 for all other labels; or None."""
    if not weights:
        return None
    vector = np.ones(max(weights) + 2, keras.config.floatx())
    vector[list(weights)] = list(weights.values())
    return tf.constant(vector)


def weighted_by_class(y: tf.Tensor, weight: Any, weights: tf.Tensor, *, rank: int | None) -> tf.Tensor:
    """Return the weight of every label of `y`, times the `weight` that its example may have already.

    `weights` is from `class_weights`, `rank` is that of the model's output, None if unknown. Labels without a weight,
    negative ones among them, have 1.
    """
    labels = _labels(y, rank=rank)
    beyond = weights.shape[0] - 1
    of_label = tf.gather(weights, tf.where((labels < 0) | (labels > beyond), tf.cast(beyond, labels.dtype), labels))
    return of_label if weight is None else _aligned(tf.cast(weight, of_label.dtype), of_label.shape.rank) * of_label


def _labels(y: tf.Tensor, *, rank: int | None) -> tf.Tensor:
    """Return labels as integers: as in Keras, the last axis of `y` is one-hot, or has size 1 and is dropped.

    If the model's output has one axis more than `y`, that axis is over classes, and `y` holds the labels themselves.
    (Keras takes a sequence of labels for one-hot then.)
    """
    if y.shape.rank > 1 and rank != y.shape.rank + 1:
        if y.shape[-1] is None:
            return tf.cond(tf.shape(y)[-1] > 1, lambda: tf.argmax(y, -1), lambda: _rounded(tf.squeeze(y, -1)))
        if y.shape[-1] > 1:
            return tf.argmax(y, -1)
        y = tf.squeeze(y, -1)
    return _rounded(y)


def _rounded(y: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(y) if y.dtype.is_floating else y, tf.int64)


def _aligned(weight: tf.Tensor, rank: int) -> tf.Tensor:
    """Return weights of examples in a shape that broadcasts over the labels of each."""
    if weight.shape.rank > rank and weight.shape[-1] == 1:
        weight = tf.squeeze(weight, -1)
    return tf.reshape(weight, tf.concat([tf.shape(weight), tf.ones([max(rank - weight.shape.rank, 0)], tf.int32)], 0))
