"""What a run minimises, and what it measures."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.names import did_you_mean
from trainer.config.base import Section, at_least

LOSSES = {
    "sparse_categorical_crossentropy": "classes as integers",
    "categorical_crossentropy": "classes one-hot",
    "binary_crossentropy": "0 or 1 a unit",
    "mean_squared_error": "values",
    "mean_absolute_error": "values",
    "huber": "values",
    "log_cosh": "values",
}
# What a loss needs its target to be; binary_crossentropy takes either.
_NEEDS = {loss: "values" for loss in LOSSES if loss != "binary_crossentropy"}
_NEEDS["sparse_categorical_crossentropy"] = "classes"
METRICS = {
    "accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "r2_score",
    "auc",
    "precision",
    "recall",
    "cosine_similarity",
}


@dataclass(frozen=True)
class ObjectiveConfig(Section):
    """The loss and the metrics, for all outputs or for each output by its name."""

    loss: str = "sparse_categorical_crossentropy"  # of every output that `losses` does not name
    losses: dict[str, str] = field(default_factory=dict)  # output name -> loss
    loss_weights: dict[str, float] = field(default_factory=dict)  # output name -> factor in the total; else 1
    metrics: list[str] = field(default_factory=list)  # of every output that `output_metrics` does not name
    output_metrics: dict[str, list[str]] = field(default_factory=dict)  # output name -> its metrics
    label_smoothing: float = 0.0  # of categorical losses, 0 to 1
    from_logits: bool = True  # outputs are logits, not probabilities
    class_weights: dict[int, float] = field(default_factory=dict)  # class -> weight in the loss; else 1

    def problems(self) -> list[str]:
        """Return losses, metrics and weights that do not exist; outputs are checked against the model."""
        found = []
        named = {"objective.loss": self.loss} | {f"objective.losses.{k}": v for k, v in self.losses.items()}
        for key, loss in named.items():
            if loss not in LOSSES:
                known = ", ".join(sorted(LOSSES))
                found.append(f"{key}: no loss is called {loss!r}.{did_you_mean(loss, LOSSES)} There are {known}")
        lists = {"objective.metrics": self.metrics}
        lists |= {f"objective.output_metrics.{k}": v for k, v in self.output_metrics.items()}
        for key, metrics in lists.items():
            for metric in metrics:
                if metric not in METRICS:
                    known = ", ".join(sorted(METRICS))
                    found.append(
                        f"{key}: no metric is called {metric!r}.{did_you_mean(metric, METRICS)} There are {known}"
                    )
        if not 0 <= self.label_smoothing < 1:
            found.append(f"objective.label_smoothing: {self.label_smoothing} is not in [0, 1)")
        if self.label_smoothing and any(not loss.endswith("categorical_crossentropy") for loss in named.values()):
            found.append("objective.label_smoothing: only categorical losses take it; set it to 0")
        for key, weight in self.loss_weights.items():
            found += at_least(f"objective.loss_weights.{key}", weight, 0)
        for label, weight in self.class_weights.items():
            found += at_least(f"objective.class_weights.{label}", weight, 0)
        return found

    def kinds_problems(self, kinds: dict[str, str]) -> list[str]:
        """Return every loss that does not suit its target; `kinds` has `classes` or `values` for each output."""
        found = []
        for name, kind in kinds.items():
            loss = self.losses.get(name, self.loss)
            needs = _NEEDS.get(loss, kind)
            if needs != kind:
                suits = ", ".join(sorted(each for each in LOSSES if _NEEDS.get(each, kind) == kind))
                held = "class numbers" if kind == "classes" else "values"
                found.append(
                    f"objective: the loss {loss!r} needs {needs}, and the target {name!r} holds {held}; use {suits}"
                )
        return found

    def classes_problems(self, outputs: dict[str, int], kinds: dict[str, str]) -> list[str]:
        """Return class weights that no class takes; `outputs` has the number of classes of each output."""
        key = "objective.class_weights"
        if not self.class_weights:
            return []
        if len(outputs) > 1:
            return [f"{key}: for one output, and the data has {', '.join(outputs)}"]
        [(name, units)] = outputs.items()
        if kinds[name] != "classes":
            return [f"{key}: the target {name!r} holds values, and no classes"]
        return [
            f"{key}: there is no class {label}; {name!r} has {units}, numbered 0 to {units - 1}"
            for label in self.class_weights
            if not 0 <= label < units
        ]

    def outputs_problems(self, outputs: list[str]) -> list[str]:
        """Return every mention of an output that a model with these outputs does not have."""
        return [
            f"objective.{group}.{name}: the model has no output {name!r}."
            f"{did_you_mean(name, outputs)} It has {', '.join(outputs)}"
            for group in ("losses", "loss_weights", "output_metrics")
            for name in getattr(self, group)
            if name not in outputs
        ]
