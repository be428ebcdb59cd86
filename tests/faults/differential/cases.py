"""Random small trainings as plain data: what Hypothesis draws, what a process reads, what a report prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

STRUCTURES = (
    "dense",
    "normalized",
    "layer_norm",
    "conv",
    "sequence",
    "tokens",
    "two_inputs",
    "two_outputs",
    "shared",
    "nested",
    "subclassed",
    "regularized",
    "adds_loss",
    "own_step",
    "own_loss",
)
# By what the targets are; a structure of tokens has them at each position.
LOSSES = {
    "real": ("mse", "mae", "huber", "log_cosh", "mape", "cosine", "function", "mean_function", "calls"),
    "positive": ("poisson", "msle", "kld"),
    "binary": ("bce", "bce_logits", "focal", "hinge", "squared_hinge", "dice", "tversky"),
    "classes": ("scce", "scce_logits", "scce_ignore"),
    "onehot": ("cce", "cce_smooth", "focal_cce", "categorical_hinge"),
}
KIND = {loss: kind for kind, losses in LOSSES.items() for loss in losses}
METRICS = {
    "real": ("mse", "mae", "rmse", "cosine", "r2", "logcosh", "function", "largest"),
    "positive": ("mse", "mape", "msle", "poisson"),
    "binary": ("accuracy", "binary_accuracy", "auc", "precision", "recall", "true_positives", "binary_iou"),
    "classes": ("accuracy", "mean_iou"),
    "onehot": ("accuracy", "top_k", "f1", "f1_macro", "onehot_iou", "cce"),
}
OPTIMIZERS = (
    "sgd",
    "momentum",
    "adam",
    "amsgrad",
    "adamw",
    "nadam",
    "adamax",
    "rmsprop",
    "adagrad",
    "adadelta",
    "ftrl",
    "lamb",
    "adafactor",
    "schedule",
)
CALLBACKS = ("stop", "stop_restore", "plateau", "rate", "events", "batches", "not_finite")
# Losses over the whole batch: several replicas may refuse them in words.
WHOLE_BATCH = ("dice", "tversky", "mean_function", "calls")


@dataclass(frozen=True)
class Case:
    """One training; everything in it is the same for every number of replicas."""

    structure: str
    loss: str
    reduction: str
    metrics: tuple[str, ...]
    weighted_metrics: tuple[str, ...]
    optimizer: str
    clipping: str
    averages: bool
    accumulated: int
    size: int  # examples
    batch: int  # examples a step, over all replicas
    epochs: int
    held_out: int  # examples to validate on
    validation_freq: int
    weights: str  # of examples: none, some zero, ones
    class_weight: bool
    form: str  # arrays or dataset
    callbacks: tuple[str, ...]
    frozen: bool
    again: bool  # trained a second time
    seed: int

    @property
    def kind(self) -> str:
        """Return what the targets are."""
        return KIND[self.loss]

    @property
    def may_refuse(self) -> bool:
        """Say whether several replicas may refuse it, in words."""
        return self.loss in WHOLE_BATCH or "largest" in self.metrics + self.weighted_metrics


def case_of(plain: dict[str, Any]) -> Case:
    """Return a case out of its JSON."""
    values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return Case(**values)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a training whose parts go together."""
    structure = draw(st.sampled_from(STRUCTURES))
    kind = draw(st.sampled_from([kind for kind in LOSSES if kind in _kinds(structure)]))
    loss = draw(st.sampled_from(_losses(structure, kind)))
    suited = [name for name in METRICS[kind] if structure != "tokens" or name not in ("r2", "f1", "f1_macro")]
    metrics = st.lists(st.sampled_from(suited), max_size=2, unique=True).map(tuple)
    some = draw(metrics)
    # Keras' own BinaryIoU fails on weights of examples with several outputs.
    weighted = tuple(name for name in draw(metrics) if name not in (*some, "binary_iou"))
    held_out, epochs = draw(st.sampled_from((0, 1, 6, 11))), draw(st.integers(1, 3))
    weights = draw(st.sampled_from(("none", "none", "some_zero", "ones")))
    classes = structure not in ("tokens", "two_outputs") and kind in ("classes", "onehot")
    return Case(
        structure=structure,
        loss=loss,
        reduction=draw(st.sampled_from(("mean", "mean", "sum", "mean_with_sample_weight"))),
        metrics=some,
        weighted_metrics=weighted,
        optimizer=draw(st.sampled_from(OPTIMIZERS)),
        clipping=draw(st.sampled_from(("", "", "", "clipnorm", "clipvalue", "global_clipnorm"))),
        averages=draw(st.sampled_from((False, False, False, True))),
        accumulated=draw(st.sampled_from((1, 1, 1, 2, 3))),
        size=draw(st.integers(1, 26)),
        batch=draw(st.sampled_from((4, 8, 12))),
        epochs=epochs,
        held_out=held_out,
        validation_freq=draw(st.sampled_from((1, epochs))) if held_out else 1,  # the last epoch always has one here
        weights=weights,
        class_weight=classes and weights == "none" and draw(st.booleans()),
        form=draw(st.sampled_from(("arrays", "arrays", "dataset"))),
        callbacks=tuple(draw(st.lists(st.sampled_from(CALLBACKS), max_size=2, unique=True))),
        frozen=draw(st.sampled_from((False, False, True))),
        again=draw(st.sampled_from((False, False, True))),
        seed=draw(st.integers(0, 99)),
    )


def _kinds(structure: str) -> tuple[str, ...]:
    return ("real", "classes") if structure in ("tokens", "own_step", "own_loss") else tuple(LOSSES)


def _losses(structure: str, kind: str) -> tuple[str, ...]:
    left_out = WHOLE_BATCH if structure in ("tokens", "own_step", "own_loss", "two_outputs") else ()
    return tuple(loss for loss in LOSSES[kind] if loss not in left_out)
