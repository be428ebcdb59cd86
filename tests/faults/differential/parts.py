"""Losses, metrics, optimizers, callbacks and examples of random trainings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import losses, metrics, ops, optimizers

from tests.faults.differential.cases import Case
from tests.faults.differential.structures import OUT, STEPS, WIDTH, WORDS


class Calls(losses.Loss):
    """A loss that does all of it in `__call__`."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the mean over the examples, a scalar."""
        return ops.mean(ops.square(ops.cast(y_true, y_pred.dtype) - y_pred))


class Largest(metrics.Metric):
    """The largest error so far: a metric whose state is not a sum."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.largest = self.add_weight(shape=(), initializer="zeros", name="largest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch in."""
        error = ops.max(ops.abs(ops.cast(y_true, self.dtype) - ops.cast(y_pred, self.dtype)))
        self.largest.assign(ops.maximum(self.largest, error))

    def result(self) -> Any:
        """Return a copy: Keras would log the variable itself as it is after the validation."""
        return ops.copy(self.largest)


def by_example(y_true: Any, y_pred: Any) -> Any:
    """Return a loss an example, (n,)."""
    return ops.mean(ops.abs(y_true - y_pred) ** 1.5, axis=-1)


def top_two(y_true: Any, y_pred: Any) -> Any:
    """Return whether the target is among the two likeliest, (n,); TensorFlow's operation refuses float64."""
    return metrics.top_k_categorical_accuracy(y_true, ops.cast(y_pred, "float32"), k=2)


def mean_function(y_true: Any, y_pred: Any) -> Any:
    """Return the mean over the examples, a scalar."""
    return ops.mean(ops.square(y_true - y_pred))


_LOSSES: dict[str, Callable[[str], Any]] = {
    "mse": lambda by: losses.MeanSquaredError(by),
    "mae": lambda by: losses.MeanAbsoluteError(by),
    "huber": lambda by: losses.Huber(reduction=by),
    "log_cosh": lambda by: losses.LogCosh(by),
    "mape": lambda by: losses.MeanAbsolutePercentageError(by),
    "cosine": lambda by: losses.CosineSimilarity(reduction=by),
    "function": lambda by: by_example,
    "mean_function": lambda by: mean_function,
    "calls": lambda by: Calls(),
    "poisson": lambda by: losses.Poisson(by),
    "msle": lambda by: losses.MeanSquaredLogarithmicError(by),
    "kld": lambda by: losses.KLDivergence(by),
    "bce": lambda by: losses.BinaryCrossentropy(label_smoothing=0.1, reduction=by),
    "bce_logits": lambda by: losses.BinaryCrossentropy(from_logits=True, reduction=by),
    "focal": lambda by: losses.BinaryFocalCrossentropy(reduction=by),
    "hinge": lambda by: losses.Hinge(by),
    "squared_hinge": lambda by: losses.SquaredHinge(by),
    "dice": lambda by: losses.Dice(by),
    "tversky": lambda by: losses.Tversky(reduction=by),
    "scce": lambda by: losses.SparseCategoricalCrossentropy(reduction=by),
    "scce_logits": lambda by: losses.SparseCategoricalCrossentropy(from_logits=True, reduction=by),
    "scce_ignore": lambda by: losses.SparseCategoricalCrossentropy(ignore_class=0, reduction=by),
    "cce": lambda by: losses.CategoricalCrossentropy(reduction=by),
    "cce_smooth": lambda by: losses.CategoricalCrossentropy(label_smoothing=0.2, reduction=by),
    "focal_cce": lambda by: losses.CategoricalFocalCrossentropy(reduction=by),
    "categorical_hinge": lambda by: losses.CategoricalHinge(by),
}
_METRICS: dict[str, Callable[[], Any]] = {
    "mse": lambda: metrics.MeanSquaredError(name="mse"),
    "mae": lambda: "mae",
    "mape": lambda: metrics.MeanAbsolutePercentageError(name="mape"),
    "msle": lambda: metrics.MeanSquaredLogarithmicError(name="msle"),
    "rmse": lambda: metrics.RootMeanSquaredError(name="rmse"),
    "cosine": lambda: metrics.CosineSimilarity(name="cosine"),
    "r2": lambda: metrics.R2Score(name="r2"),
    "logcosh": lambda: metrics.LogCoshError(name="logcosh"),
    "poisson": lambda: metrics.Poisson(name="poisson"),
    "function": lambda: by_example,
    "largest": lambda: Largest(name="largest"),
    "accuracy": lambda: "accuracy",
    "binary_accuracy": lambda: metrics.BinaryAccuracy(name="binary_accuracy"),
    "auc": lambda: metrics.AUC(num_thresholds=20, name="auc"),
    "precision": lambda: metrics.Precision(name="precision"),
    "recall": lambda: metrics.Recall(name="recall"),
    "true_positives": lambda: metrics.TruePositives(name="true_positives"),
    "binary_iou": lambda: metrics.BinaryIoU(name="binary_iou"),
    "top_k": lambda: metrics.MeanMetricWrapper(top_two, name="top_k"),
    "mean_iou": lambda: metrics.MeanIoU(OUT, sparse_y_pred=False, name="mean_iou"),
    "f1": lambda: metrics.F1Score(name="f1"),
    "f1_macro": lambda: metrics.F1Score("macro", name="f1_macro"),
    "onehot_iou": lambda: metrics.OneHotMeanIoU(OUT, name="onehot_iou"),
    "cce": lambda: metrics.CategoricalCrossentropy(name="cce"),
}
_OPTIMIZERS: dict[str, Callable[..., keras.Optimizer]] = {
    "sgd": lambda **more: optimizers.SGD(0.05, **more),
    "momentum": lambda **more: optimizers.SGD(0.05, momentum=0.9, nesterov=True, **more),
    "adam": lambda **more: optimizers.Adam(0.02, **more),
    "amsgrad": lambda **more: optimizers.Adam(0.02, amsgrad=True, **more),
    "adamw": lambda **more: optimizers.AdamW(0.02, weight_decay=0.1, **more),
    "nadam": lambda **more: optimizers.Nadam(0.02, **more),
    "adamax": lambda **more: optimizers.Adamax(0.02, **more),
    "rmsprop": lambda **more: optimizers.RMSprop(0.02, momentum=0.5, centered=True, **more),
    "adagrad": lambda **more: optimizers.Adagrad(0.05, **more),
    "adadelta": lambda **more: optimizers.Adadelta(0.5, **more),
    "ftrl": lambda **more: optimizers.Ftrl(0.05, **more),
    "lamb": lambda **more: optimizers.Lamb(0.02, **more),
    "adafactor": lambda **more: optimizers.Adafactor(0.05, **more),
    "schedule": lambda **more: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.05, 3, 0.5), **more),
}


def compiled(case: Case, model: keras.Model) -> keras.Model:
    """Return the model, compiled as the case says."""
    options: dict[str, Any] = {case.clipping: 0.05} if case.clipping else {}
    options |= {"use_ema": True, "ema_momentum": 0.5} if case.averages else {}
    options |= {"gradient_accumulation_steps": case.accumulated} if case.accumulated > 1 else {}
    several = case.structure == "two_outputs"
    reduction = {"mean": "sum_over_batch_size"}.get(case.reduction, case.reduction)

    def by_output(make: Callable[[], Any]) -> Any:
        return {"one": make(), "other": make()} if several else make()

    model.compile(
        _OPTIMIZERS[case.optimizer](**options),
        loss=by_output(lambda: _LOSSES[case.loss](reduction)),
        loss_weights={"one": 1.0, "other": 0.3} if several else None,
        metrics=by_output(lambda: [_METRICS[name]() for name in case.metrics]),
        weighted_metrics=by_output(lambda: [_METRICS[name]() for name in case.weighted_metrics]),
    )
    return model


def callbacks_of(case: Case, heard: list[Any]) -> list[keras.callbacks.Callback]:
    """Return the callbacks of one training; what they hear goes to the list."""
    monitor = "val_loss" if case.held_out and case.validation_freq == 1 else "loss"
    made: dict[str, Callable[[], keras.callbacks.Callback]] = {
        "stop": lambda: keras.callbacks.EarlyStopping(monitor, patience=0),
        "stop_restore": lambda: keras.callbacks.EarlyStopping(monitor, patience=1, restore_best_weights=True),
        "plateau": lambda: keras.callbacks.ReduceLROnPlateau(monitor, factor=0.5, patience=0, min_delta=1.0),
        "rate": lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7),
        "events": lambda: Events(heard),
        "batches": lambda: Batches(heard),
        "not_finite": lambda: keras.callbacks.TerminateOnNaN(),
    }
    fixed = case.optimizer == "schedule"  # its rate cannot be set
    return [made[name]() for name in case.callbacks if not (fixed and name in ("plateau", "rate"))]


class Events(keras.callbacks.Callback):
    """A callback that writes down what it hears, and where."""

    def __init__(self, heard: list[Any]) -> None:
        super().__init__()
        for phase in ("train", "test"):
            for when in ("begin", "end"):
                setattr(self, f"on_{phase}_{when}", self._said(heard, f"{phase} {when}"))
        self.on_epoch_begin = self._said(heard, "epoch begin")
        self.on_epoch_end = self._said(heard, "epoch end")

    @staticmethod
    def _said(heard: list[Any], what: str) -> Callable[..., None]:
        def hear(*arguments: Any) -> None:
            numbers = [str(each) for each in arguments if isinstance(each, int)]
            heard.append(" ".join([what, *numbers]))

        return hear


class Batches(keras.callbacks.Callback):
    """A callback that writes down the number and the loss at each batch, and the rate."""

    def __init__(self, heard: list[Any]) -> None:
        super().__init__()
        self._heard = heard

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write them down."""
        self._heard += [float(batch), float(logs["loss"]), float(np.asarray(self.model.optimizer.learning_rate))]

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write them down."""
        self._heard += [float(batch), float(logs["loss"])]


def examples(case: Case, size: int, *, seed: int) -> Any:
    """Return (x, y) or (x, y, weight) of so many examples."""
    drawn = np.random.default_rng(seed)
    x: Any = _inputs(case, size, drawn)
    y: Any = _targets(case, size, drawn)
    if case.structure == "two_outputs":
        y = {"one": y, "other": _targets(case, size, drawn)}
    if case.weights == "none":
        return x, y
    shape = (size, STEPS) if case.structure == "tokens" else (size,)
    weight = np.ones(shape) if case.weights == "ones" else drawn.integers(0, 3, shape) * 0.7
    return x, y, ({"one": weight, "other": weight[::-1].copy()} if case.structure == "two_outputs" else weight)


def _inputs(case: Case, size: int, drawn: np.random.Generator) -> Any:
    words = drawn.integers(1, WORDS, (size, STEPS)).astype("int32")
    words *= np.arange(STEPS) < drawn.integers(1, STEPS + 1, (size, 1))  # padded behind with zeros
    if case.structure in ("sequence", "tokens"):
        return words
    if case.structure == "conv":
        return drawn.normal(size=(size, 6, 6, 2))
    vectors = drawn.normal(size=(size, WIDTH))
    return {"left": vectors, "right": words} if case.structure == "two_inputs" else vectors


def _targets(case: Case, size: int, drawn: np.random.Generator) -> np.ndarray:
    places = (size, STEPS) if case.structure == "tokens" else (size,)
    classes = drawn.integers(0, OUT, places)
    if case.kind == "classes":
        return classes.astype("int32")
    if case.kind == "onehot":
        return np.eye(OUT)[classes]
    if case.kind == "binary":
        return (drawn.random((*places, OUT)) < 0.5).astype("float64")
    values = drawn.normal(size=(*places, OUT))
    return np.abs(values) if case.kind == "positive" else values
