"""The proof that an edited model is right, and the report of an edit: a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from nameplate import text_table
from nameplate.graph import equivalence, keras_private
from nameplate.graph.functional import SurgeryError
from nameplate.graph.sample_outputs import OutputsError, array, differences, drawn, outputs_of, run, specs_of
from nameplate.io.save import round_trip

_WARNINGS = ("warning", "dropped", "rebuilt", "weight new", "output name")


@dataclass(frozen=True)
class EditLine:
    """One thing that an edit did."""

    name: str  # qualified name of the layer, or of the variable
    what: str  # edit, warning, dropped, rebuilt, weight kept, weight new, input, output, output name, verified
    detail: str


@dataclass(frozen=True)
class EditReport:
    """Everything that an edit did, and how much it left untouched."""

    model: str
    lines: tuple[EditLine, ...]
    untouched: int  # layers whose names and weights are unchanged
    weights: int  # variables copied bit for bit

    def table(self) -> str:
        """Return the lines in columns, and the counts below them."""
        if not self.lines:
            return self.tail()
        rows = [f"  {row}" for row in text_table.aligned([(line.what, line.name, line.detail) for line in self.lines])]
        return "\n".join([f"{self.model}:", *rows, self.tail()])

    def tail(self) -> str:
        """Return the counts."""
        return f"  {self.untouched} layers untouched, {self.weights} variables copied bit for bit"

    def json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1)

    def warnings(self) -> list[EditLine]:
        """Return what a user should not overlook: second names, new weights, dropped layers, new output names."""
        return [line for line in self.lines if line.what in _WARNINGS]


Listener = Callable[[EditReport], None]


def verify_edit(original: Any, edited: Any, untouched: Sequence[int]) -> EditLine:
    """Save, load and compare the edited model; return a line that says what was proved.

    No `.keras` file can hold a layer that several graphs call; a model with one is compared in memory only.

    Args:
        original: the model before the edits.
        edited: the model after them.
        untouched: indices of the flat outputs that must equal the original's.

    Raises:
        SavingError, NamingError: if the edited model cannot be saved, or comes back with other names or weights.
        SurgeryError: if it comes back with other outputs, or an output that no edit affects has changed.
    """
    loaded = edited if equivalence.between_graphs(edited) else round_trip(edited)
    after = "in memory, since no .keras file holds what it shares" if loaded is edited else "after saving and loading"
    if not edited.built or not specs_of(edited):
        return EditLine(str(edited.name), "verified", f"names and weights {after}; not built, so no outputs")
    try:
        values, outputs = run(edited)
    except OutputsError as error:
        raise SurgeryError(f"the edit cannot be verified: {error}") from None
    names = _output_names(edited, len(outputs))
    problems = differences(outputs, outputs_of(loaded, values), names=names, what="after loading")
    if untouched:
        before = outputs_of(original, values)
        problems += differences(
            [before[index] for index in untouched],
            [outputs[index] for index in untouched],
            names=[names[index] for index in untouched],
            what="though no edit affects it",
        )
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SurgeryError(f"the edited {edited.name!r} does not compute what it should:\n{lines}")
    proved = f"names, weights and {len(outputs)} outputs {after}; {len(untouched)} outputs as before"
    return EditLine(str(edited.name), "verified", proved)


def verify_newcomers(pairs: Sequence[tuple[Any, Any]], model: Any) -> None:
    """Compare the outputs of new layers that are built with those of their copies in the model.

    Layers that are called several times or cannot run alone are skipped. Configurations and arguments were compared
    when the layer was copied (`nameplate.graph.clone`).

    Raises:
        SurgeryError: with each layer whose configuration omits what it computes with.
    """
    with keras_private.undisturbed():
        problems = [
            f"{copy.name}: a {type(layer).__name__}, whose get_config omits something that it computes with"
            for layer, copy in pairs
            if layer.built and _computes_otherwise(layer, copy)
        ]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SurgeryError(f"the edited {model.name!r} does not compute what the new layers do:\n{lines}")


def _computes_otherwise(layer: Any, copy: Any) -> bool:
    """Return whether a built layer and its copy have different outputs for the same random input."""
    try:
        specs = tree.flatten(copy.input)
        values = [drawn(spec, np.random.default_rng(index)) for index, spec in enumerate(specs)]
        with keras.StatelessScope(initialize_variables=False):
            outputs = [tree.flatten(each(values[0] if len(values) == 1 else values)) for each in (layer, copy)]
            before, after = ([array(output) for output in results] for results in outputs)
    except Exception:  # it cannot run alone; the whole model is still compared after loading
        return False
    return bool(differences(before, after, names=[""] * len(after), what=""))


def equal_outputs(one: Any, other: Any) -> list[str]:
    """Return how the outputs of two models with the same inputs differ on random input; empty if they do not."""
    values, outputs = run(one)
    return differences(outputs, outputs_of(other, values), names=_output_names(one, len(outputs)), what="in the other")


def _output_names(model: Any, count: int) -> list[str]:
    """Return a name for each flat output: its layer's, or its index if that is not known."""
    tensors = getattr(model, "outputs", None) or []
    names = [str(keras_private.source(tensor).name) for tensor in tensors]
    return names if len(names) == count else [str(index) for index in range(count)]
