"""Optimizer, schedule and objective: a named model is compiled, its variables are created, its names freeze."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.source import leaves, mapped
from nameplate.engine import private
from nameplate.engine.config import (
    AdamConfig,
    AdamWConfig,
    Decay,
    LionConfig,
    ObjectiveConfig,
    OptimizerConfig,
    Precision,
    RmsPropConfig,
    ScheduleConfig,
    SgdConfig,
)
from nameplate.engine.errors import misfit, reason
from nameplate.engine.learning_rate import WarmupDecay, set_rates
from nameplate.engine.optimizer_state import initialize_averages
from nameplate.errors import NameplateError
from nameplate.graph.global_state import collector_paused
from nameplate.graph.name_contract import freeze, recheck
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
) -> dict[str, float]:
    """Compile a model inside the strategy's scope and create every variable of its training.

    `steps` is the length of the run; `example` holds KerasTensors (x, y[, weight]) of one batch. Returns the highest
    learning rate of every variable that trains.

    Raises:
        ConfigError: an objective is for an output that the model does not have.
        NameplateError: a loss or metric does not fit the model's outputs, or a learning rate is unused.
    """
    outputs = output_names(model)
    problems = objective.outputs_problems(outputs)
    if problems:
        raise ConfigError(problems)
    chosen = make_optimizer(optimizer, learning_rate=make_schedule(schedule, optimizer.learning_rate, steps))
    if precision is Precision.mixed_float16:
        chosen = keras.optimizers.LossScaleOptimizer(chosen, name="loss_scale")
    model.compile(chosen, **_objective(objective, outputs), jit_compile=False)
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


def make_optimizer(config: OptimizerConfig, *, learning_rate: Any) -> keras.Optimizer:
    """Return the optimizer of a configuration."""
    common = {
        "learning_rate": learning_rate,
        "weight_decay": config.weight_decay,
        "clipnorm": config.clipnorm,
        "global_clipnorm": config.global_clipnorm,
        "clipvalue": config.clipvalue,
        "use_ema": config.ema_momentum is not None,
        "ema_momentum": 0.99 if config.ema_momentum is None else config.ema_momentum,
    }
    match config:
        case SgdConfig():
            return keras.optimizers.SGD(momentum=config.momentum, nesterov=config.nesterov, **common)
        case AdamWConfig() | AdamConfig():
            kind = keras.optimizers.AdamW if isinstance(config, AdamWConfig) else keras.optimizers.Adam
            adam = {key: getattr(config, key) for key in ("beta_1", "beta_2", "epsilon", "amsgrad")}
            return kind(**adam, **common)
        case RmsPropConfig():
            own = {key: getattr(config, key) for key in ("rho", "momentum", "epsilon")}
            return keras.optimizers.RMSprop(**own, **common)
        case LionConfig():
            return keras.optimizers.Lion(beta_1=config.beta_1, beta_2=config.beta_2, **common)
    raise TypeError(f"no optimizer for {type(config).__name__}")


def make_schedule(config: ScheduleConfig, rate: float, steps: int) -> Any:
    """Return the learning rate as a number, or as a schedule if it changes over the `steps` of a run."""
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


def _objective(config: ObjectiveConfig, outputs: list[str]) -> dict[str, Any]:
    losses = {name: _loss(config, config.losses.get(name, config.loss)) for name in outputs}
    metrics = {name: list(config.output_metrics.get(name, config.metrics)) for name in outputs}
    if len(outputs) == 1:
        return {"loss": losses[outputs[0]], "metrics": metrics[outputs[0]]}
    weights = {name: config.loss_weights.get(name, 1.0) for name in outputs}
    return {"loss": losses, "metrics": metrics, "loss_weights": weights}


def _loss(config: ObjectiveConfig, name: str) -> Any:
    options: dict[str, Any] = {}
    if name.endswith("crossentropy"):
        options["from_logits"] = config.from_logits
    if name == "categorical_crossentropy":
        options["label_smoothing"] = config.label_smoothing
    kinds = {
        "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
        "mean_squared_error": keras.losses.MeanSquaredError,
        "mean_absolute_error": keras.losses.MeanAbsoluteError,
        "huber": keras.losses.Huber,
        "log_cosh": keras.losses.LogCosh,
    }
    return kinds[name](**options)


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
