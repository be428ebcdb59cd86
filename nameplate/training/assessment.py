"""`nameplate.assess`: a trained model measured example by example: confusion, each class, the worst examples."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.data.adapters import as_source
from nameplate.data.source import Source, Stream, leaves
from nameplate.data.user_data import targets_of
from nameplate.engine.compile import output_names
from nameplate.errors import NameplateError
from nameplate.graph.keras_private import source
from nameplate.training.evaluate import evaluate, predict


@dataclass(frozen=True)
class Example:
    """One example that the model gets wrong, or least right."""

    index: int  # in the data
    target: str  # the name of its class, or its value
    predicted: str
    error: float  # 1 - probability of its class; of a value the largest absolute error


@dataclass(frozen=True)
class OutputAssessment:
    """What a model makes of one output."""

    classes: tuple[str, ...]  # empty: values
    confusion: np.ndarray | None  # (classes, classes) examples: a row a true class, a column a predicted one
    worst: tuple[Example, ...]  # the largest errors first
    mean_error: float  # as `Example.error`

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return precision, recall, F1 and the number of examples by class; NaN for a precision or recall of none."""
        if self.confusion is None:
            return {}
        right = np.diag(self.confusion).astype(np.float64)
        there, chosen = self.confusion.sum(1), self.confusion.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            measures = {
                "precision": right / chosen,
                "recall": right / there,
                "f1": 2 * right / (there + chosen),
                "examples": there,
            }
        return {
            name: {measure: float(values[number]) for measure, values in measures.items()}
            for number, name in enumerate(self.classes)
        }


@dataclass(frozen=True)
class Assessment:
    """How good a model is on some data."""

    examples: int
    values: Mapping[str, Any]  # the loss and metrics of `evaluate`; none of a model that is not compiled
    outputs: Mapping[str, OutputAssessment]  # by name
    about: Mapping[str, str] = field(default_factory=dict)  # shown at its head: the run, the data

    def as_json(self) -> str:
        """Return everything as a JSON document; what is not a finite number is null."""
        outputs = {
            name: {
                "classes": list(output.classes),
                "confusion": None if output.confusion is None else output.confusion.tolist(),
                "per_class": output.per_class(),
                "mean_error": output.mean_error,
                "worst": [vars(example) for example in output.worst],
            }
            for name, output in self.outputs.items()
        }
        document = {**self.about, "examples": self.examples, "values": dict(self.values), "outputs": outputs}
        return json.dumps(_finite(document), indent=2, allow_nan=False) + "\n"

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Return (title, columns, rows) of each table; a column with > is one of numbers."""
        found = []
        if self.values:
            found.append(("values", ["name", ">value"], [[name, _text(value)] for name, value in self.values.items()]))
        for name, output in self.outputs.items():
            if output.confusion is not None:
                columns = ["class", ">precision", ">recall", ">f1", ">examples"]
                rows = [
                    [kind, *(_text(values[key]) for key in ("precision", "recall", "f1")), f"{values['examples']:.0f}"]
                    for kind, values in output.per_class().items()
                ]
                found.append((f"{name}: each class", columns, rows))
                counted = [[kind, *map(str, row)] for kind, row in zip(output.classes, output.confusion, strict=True)]
                found.append(
                    (f"{name}: true classes, predicted as", ["class", *(f">{c}" for c in output.classes)], counted)
                )
            worst = [[str(each.index), each.target, each.predicted, _text(each.error)] for each in output.worst]
            found.append((f"{name}: the worst examples", [">example", "target", "predicted", ">error"], worst))
        return found

    def page(self) -> str:
        """Return a page of HTML that needs no other file."""
        return (
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>Assessment</title><style>"
            "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
            "td,th{padding:.2em .6em;border:1px solid #ddd;text-align:left}td.n{text-align:right}</style>"
            f"{self._repr_html_()}</html>\n"
        )

    def _repr_html_(self) -> str:
        """Return the tables as HTML."""
        head = "".join(f"<div>{html.escape(key)}: {html.escape(value)}</div>" for key, value in self.about.items())
        return f"{head}<div>{self.examples} examples</div>" + "".join(map(_drawn, self.tables()))


@checked
def assess(
    model: keras.Model,
    data: Any,
    *,
    classes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    from_logits: bool | None = None,
    worst: int = 10,
    batch_size: int | None = None,
    about: Mapping[str, str] | None = None,
) -> Assessment:
    """Measure a model on data with targets, on all replicas: what `evaluate` gives, and more of every output.

    An output predicts classes if its targets are integers, one an example, or one-hot rows; else values.

    Args:
        model: with a weight and a class for every output; if it is compiled, its loss and metrics are measured too.
        data: (x, y), a dataset, a source: what `evaluate` takes, in an order that is the same in every pass.
        classes: names of the classes of the output, or of several outputs by name; None: their numbers.
        from_logits: the outputs of classes are logits (True) or probabilities (False); None: what the activation of
            their layers says.
        worst: examples to list of each output.
        batch_size: examples a step over all replicas together; None: 32.
        about: what to show at the head: the run, the data.

    Raises:
        NameplateError: data without targets or without end, targets that do not go with the predictions, predictions
            that are not finite, or names for another number of classes.
    """
    examples = as_source(data)
    values = evaluate(model, examples, batch_size=batch_size, return_dict=True) if model.compiled else {}
    predicted = predict(model, examples, batch_size=batch_size)
    outputs = by_name(model, predicted)
    targets = _named_targets(_targets(examples), list(outputs))
    named = class_names(classes, list(targets))
    logits = logits_of(model) if from_logits is None else dict.fromkeys(outputs, from_logits)
    assessed = {
        name: _assessed(name, target, outputs[name], named.get(name, ()), worst, from_logits=logits.get(name))
        for name, target in targets.items()
    }
    return Assessment(len(next(iter(targets.values()))), values, assessed, dict(about or {}))


def by_name(model: keras.Model, predicted: Any) -> dict[str, np.ndarray]:
    """Return what `predict` gave by the names of the outputs."""
    if isinstance(predicted, dict):
        return dict(predicted)
    arrays = keras.tree.flatten(predicted)
    names = output_names(model)
    return dict(zip(names if len(names) == len(arrays) else map(str, range(len(arrays))), arrays, strict=True))


def _targets(source: Source | Stream) -> Any:
    """Return the targets of all examples, arrays (size, ...) in their structure."""
    spec = source.spec()
    if not isinstance(spec, tuple | list) or len(spec) < 2 or not leaves(spec[1]):
        raise NameplateError("the data has no targets to compare predictions with; give (x, y)")
    arrays = None if isinstance(source, Stream) else source.arrays()
    return targets_of(source) if arrays is None else arrays[1]


def _named_targets(targets: Any, outputs: list[str]) -> dict[str, np.ndarray]:
    """Return targets by the names of their outputs; a single one may have another name."""
    if not isinstance(targets, dict):
        arrays = list(targets) if isinstance(targets, tuple | list) else [targets]
        if len(arrays) != len(outputs):
            raise NameplateError(f"{len(arrays)} targets for the outputs {', '.join(outputs)}; give one for each")
        pairs = zip(outputs, arrays, strict=True)
    elif len(targets) == len(outputs) == 1:
        pairs = zip(outputs, targets.values(), strict=True)
    else:
        if unknown := sorted(set(targets) - set(outputs)):
            raise NameplateError(f"targets {', '.join(unknown)}: the model's outputs are {', '.join(outputs)}")
        pairs = zip(targets, targets.values(), strict=True)
    return {name: np.asarray(array) for name, array in pairs if array is not None}


def class_names(
    classes: Mapping[str, Sequence[str]] | Sequence[str] | None, outputs: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by output; refuse those of unknown outputs."""
    if classes is None:
        return {}
    named = dict(classes) if isinstance(classes, Mapping) else {outputs[0]: classes}
    if len(named) == len(outputs) == 1:  # the data may call it otherwise
        named = {outputs[0]: next(iter(named.values()))}
    if unknown := sorted(set(named) - set(outputs)):
        raise NameplateError(f"classes: no output {', '.join(unknown)}; there are {', '.join(outputs)}")
    return {name: tuple(map(str, names)) for name, names in named.items()}


def _assessed(
    name: str,
    target: np.ndarray,
    predicted: np.ndarray,
    classes: tuple[str, ...],
    worst: int,
    *,
    from_logits: bool | None,
) -> OutputAssessment:
    labels = _labels(target, predicted)
    if labels is None:
        if target[0].size != predicted[0].size or not np.isfinite(predicted).all():
            raise NameplateError(
                f"{name!r}: predictions of shape {predicted.shape} for targets of shape {target.shape} cannot be "
                "assessed; there must be one class an example, or as many finite values as targets"
            )
        errors = np.abs(predicted.reshape(len(target), -1) - target.reshape(len(target), -1)).max(1)
        shown = [(np.array2string(one, precision=4) for one in array) for array in (target, predicted)]
        return OutputAssessment((), None, _worst(errors, list(shown[0]), list(shown[1]), worst), float(errors.mean()))
    chances = probabilities(name, predicted, from_logits=from_logits)
    count = chances.shape[1]
    if classes and len(classes) != count:
        raise NameplateError(f"classes: {len(classes)} names for the {count} classes of {name!r}")
    classes = classes or tuple(map(str, range(count)))
    if labels.min() < 0 or labels.max() >= count:
        raise NameplateError(f"{name!r} predicts {count} classes; the targets have {labels.min()} to {labels.max()}")
    chosen = chances.argmax(1)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (labels, chosen), 1)
    errors = 1 - chances[np.arange(len(labels)), labels]
    shown_names = np.array(classes, dtype=object)
    return OutputAssessment(
        classes,
        confusion,
        _worst(errors, list(shown_names[labels]), list(shown_names[chosen]), worst),
        float(errors.mean()),
    )


def _labels(target: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
    """Return the class of every example, (n,) int64; None if the targets are values."""
    single = int(np.prod(target.shape[1:])) == 1
    if predicted.ndim > 2 or not (target.dtype.kind in "biu" or (not single and target.shape == predicted.shape)):
        return None
    if single:
        return target.reshape(-1).astype(np.int64)
    one_hot = np.isin(target, (0, 1)).all() and (target.sum(-1) == 1).all()
    return target.argmax(-1) if one_hot and target.shape == predicted.shape else None


def probabilities(name: str, predicted: np.ndarray, *, from_logits: bool | None) -> np.ndarray:
    """Return the probability of each class, (n, classes), from what an output predicts, (n, units).

    Raises:
        NameplateError: values that are not finite, or of one unit of which nothing says what they are.
    """
    values = predicted.reshape(len(predicted), -1).astype(np.float64)
    if bad := int((~np.isfinite(values)).any(1).sum()):
        raise NameplateError(f"{name!r} predicts NaN or infinite values for {bad} of {len(values)} examples")
    if from_logits is None and values.shape[1] == 1:
        raise NameplateError(
            f"{name!r} has one unit, and its layer does not say whether that is a logit or a probability; give "
            "from_logits=True or from_logits=False"
        )
    if from_logits is None:  # the largest is the same either way
        from_logits = not ((values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3))
    if values.shape[1] == 1:
        second = 1 / (1 + np.exp(-values)) if from_logits else values
        return np.concatenate([1 - second, second], 1)
    if not from_logits:
        return values
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def logits_of(model: keras.Model) -> dict[str, bool | None]:
    """Return whether each output is of logits, as far as the activation of its layer says so."""
    tensors = keras.tree.flatten(getattr(model, "outputs", None) or [])
    return {name: _is_logit(tensor) for name, tensor in zip(output_names(model), tensors, strict=False)}


def _is_logit(tensor: Any) -> bool | None:
    layer = source(tensor)
    if isinstance(layer, keras.Model):
        inner = keras.tree.flatten(getattr(layer, "outputs", None) or [])
        return _is_logit(inner[0]) if len(inner) == 1 else None
    if isinstance(layer, keras.layers.Softmax):
        return False
    activation = getattr(layer, "activation", None)
    known = {keras.activations.linear: True, keras.activations.softmax: False, keras.activations.sigmoid: False}
    return known.get(activation)


def _worst(errors: np.ndarray, targets: list[Any], predicted: list[Any], count: int) -> tuple[Example, ...]:
    places = np.argsort(-errors, kind="stable")[:count]
    return tuple(Example(int(at), str(targets[at]), str(predicted[at]), float(errors[at])) for at in places)


def _text(value: Any) -> str:
    return f"{value:.4f}" if np.ndim(value) == 0 else np.array2string(np.asarray(value), precision=4)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _drawn(table: tuple[str, list[str], list[list[str]]]) -> str:
    title, columns, rows = table
    right = [column.startswith(">") for column in columns]
    head = "".join(f"<th>{html.escape(column.removeprefix('>'))}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if n else ''}>{html.escape(cell)}</td>" for cell, n in zip(row, right, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<h3>{html.escape(title)}</h3><table><tr>{head}</tr>{body}</table>"
