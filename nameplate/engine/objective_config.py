"""The section of a run for its losses and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nameplate.naming.keras_objects import LOSSES, METRICS, Kind, target_of
from nameplate.naming.names import did_you_mean
from nameplate.section import Section, at_least

# What a loss needs its target to be; the others take class numbers too, such as 0 and 1.
_OF_VALUES = """
    CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge
    CosineSimilarity Huber KLDivergence LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError
"""
_NEEDS = dict.fromkeys(_OF_VALUES.split(), "values")
_NEEDS["SparseCategoricalCrossentropy"] = "classes"
_BY_OUTPUT = ("losses", "loss_weights", "output_metrics", "output_weighted_metrics")


@dataclass(frozen=True)
class ObjectiveConfig(Section):
    """The losses and metrics, for all outputs or for each output by its name.

    Each is a name of Keras' (`Huber`, `huber`), a name with arguments (`{_target_: Huber, delta: 2}`), or a class or
    function of yours (`{_target_: my_package.Mine}`).
    """

    loss: Any = "sparse_categorical_crossentropy"  # of every output that `losses` does not name
    losses: dict[str, Any] = field(default_factory=dict)  # output name -> loss; null: none
    loss_weights: dict[str, float] = field(default_factory=dict)  # output name -> factor in the total; else 1
    metrics: list[Any] = field(default_factory=list)  # of every output that `output_metrics` does not name
    output_metrics: dict[str, list[Any]] = field(default_factory=dict)  # output name -> its metrics
    weighted_metrics: list[Any] = field(default_factory=list)  # as `metrics`, each example with its sample weight
    output_weighted_metrics: dict[str, list[Any]] = field(default_factory=dict)  # as `output_metrics`
    label_smoothing: float = 0.0  # of losses that take it, 0 to 1
    from_logits: bool = True  # outputs are logits, not probabilities: for Keras' losses and metrics that take it
    class_weights: dict[int, float] = field(default_factory=dict)  # class -> weight in the loss; else 1

    def named_objects(self) -> Iterator[tuple[Kind, str, Any]]:
        """Yield (kind, key, value) of every loss and metric."""
        yield LOSSES, "objective.loss", self.loss
        for name, loss in self.losses.items():
            if loss is not None:
                yield LOSSES, f"objective.losses.{name}", loss
        for own in ("metrics", "weighted_metrics"):
            lists = {own: getattr(self, own)}
            lists |= {f"output_{own}.{name}": each for name, each in getattr(self, f"output_{own}").items()}
            for key, metrics in lists.items():
                for metric in metrics:
                    yield METRICS, f"objective.{key}", metric

    def loss_of(self, output: str) -> str | None:
        """Return Keras' class of the loss of an output; None of a loss of one's own."""
        return LOSSES.keras_class(self.losses.get(output, self.loss))

    def needs(self, output: str) -> str | None:
        """Return what the loss of an output needs its target to be, `classes` or `values`; None if it takes either."""
        return _NEEDS.get(self.loss_of(output) or "")

    def problems(self) -> list[str]:
        """Return losses, metrics and weights that do not exist; outputs are checked against the model."""
        problems = [problem for kind, key, value in self.named_objects() for problem in kind.problems(key, value)]
        if not 0 <= self.label_smoothing < 1:
            problems.append(f"objective.label_smoothing: {self.label_smoothing} is not in [0, 1)")
        if self.label_smoothing:
            named = [(key, value) for kind, key, value in self.named_objects() if kind is LOSSES]
            problems += [
                f"objective.label_smoothing: {target_of(value)}, {key}, does not take it; set it to 0"
                for key, value in named
                if LOSSES.keras_class(value) and "label_smoothing" not in LOSSES.takes(value)
            ]
        for key, weight in self.loss_weights.items():
            problems += at_least(f"objective.loss_weights.{key}", weight, 0)
        for label, weight in self.class_weights.items():
            problems += at_least(f"objective.class_weights.{label}", weight, 0)
        return problems

    def kinds_problems(self, kinds: dict[str, str]) -> list[str]:
        """Return every loss that does not fit its target; `kinds` has `classes` or `values` for each output."""
        problems = []
        for name, kind in kinds.items():
            needs = self.needs(name) or kind
            if needs != kind:
                suits = ", ".join(loss for loss in LOSSES.classes if _NEEDS.get(loss, kind) == kind)
                held = "class numbers" if kind == "classes" else "values"
                loss = target_of(self.losses.get(name, self.loss))
                problems.append(
                    f"objective: the loss {loss!r} needs {needs}, and the target {name!r} holds {held}; use {suits}"
                )
        return problems

    def classes_problems(self, outputs: dict[str, int], kinds: dict[str, str]) -> list[str]:
        """Return class weights without a class; `outputs` has the number of classes of each output."""
        key = "objective.class_weights"
        if not self.class_weights:
            return []
        if len(outputs) > 1:
            return [f"{key}: only for data with one output; this data has {', '.join(outputs)}"]
        [(name, units)] = outputs.items()
        if kinds[name] != "classes":
            return [f"{key}: the target {name!r} holds values, not classes"]
        return [
            f"{key}: class {label} does not exist; {name!r} has {units}, numbered 0 to {units - 1}"
            for label in self.class_weights
            if not 0 <= label < units
        ]

    def outputs_problems(self, outputs: list[str]) -> list[str]:
        """Return every mention of an output that a model with these outputs does not have."""
        problems = [
            f"objective.{group}.{name}: the model has no output {name!r}."
            f"{did_you_mean(name, outputs)} It has {', '.join(outputs)}"
            for group in _BY_OUTPUT
            for name in getattr(self, group)
            if name not in outputs
        ]
        if not problems and all(self.losses.get(name, self.loss) is None for name in outputs):
            problems.append("objective.losses: no output has a loss; give one of them a loss")
        return problems
