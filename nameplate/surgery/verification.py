"""What an edit did, as data: a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


@dataclass(frozen=True)
class EditLine:
    """One thing that an edit did."""

    name: str  # qualified name of the layer, or of the variable
    what: str  # edit aloud dropped rebuilt weight input output model verified
    detail: str


@dataclass(frozen=True)
class EditReport:
    """All that an edit did; what it left alone is a number."""

    model: str
    lines: tuple[EditLine, ...]
    untouched: int  # layers whose names and weights are those of the original
    weights: int  # variables taken over bit for bit

    def table(self) -> str:
        """Return the lines in columns, and the counts below."""
        if not self.lines:
            return self.tail()
        rows = [f"  {row}" for row in text_table.aligned([(line.what, line.name, line.detail) for line in self.lines])]
        return "\n".join([f"{self.model}:", *rows, self.tail()])

    def tail(self) -> str:
        """Return the counts."""
        return f"  {self.untouched} layers untouched, {self.weights} variables taken over bit for bit"

    def json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1)

    def aloud(self) -> list[EditLine]:
        """Return what nobody may overlook: second names, weights made anew, what was dropped, names of outputs."""
        return [
            line for line in self.lines if line.what in ("aloud", "dropped", "rebuilt", "weight new", "output name")
        ]


def verify_edit(original: Any, edited: Any, untouched: Sequence[int]) -> EditLine:
    """Return what was proved.

    A layer that several graphs call is in no file of Keras'; such a model is compared in memory only, and it is said.

    Args:
        original: the model before.
        edited: the model after.
        untouched: places of the flat outputs that must equal the original's.

    Raises:
        SavingError, NamingError: when the edited model cannot be saved, or comes back with other names or weights.
        SurgeryError: when it comes back with other outputs, or an output that no edit reaches has changed.
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
            [before[place] for place in untouched],
            [outputs[place] for place in untouched],
            names=[names[place] for place in untouched],
            what="though no edit reaches it",
        )
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise SurgeryError(f"the edited {edited.name!r} does not compute what it should:\n{lines}")
    told = f"names, weights and {len(outputs)} outputs {after}; {len(untouched)} outputs as before"
    return EditLine(str(edited.name), "verified", told)


def verify_newcomers(pairs: Sequence[tuple[Any, Any]], model: Any) -> None:
    """Run layers that were given, and that are built, beside what stands for them in the model.

    Left out is what is called several times or cannot be run by itself. Configurations and arguments are compared
    where a layer is copied (`nameplate.graph.clone`).

    Raises:
        SurgeryError: with each layer whose configuration leaves out what it computes with.
    """
    with keras_private.undisturbed():
        problems = [
            f"{made.name}: a {type(given).__name__}, whose get_config does not give back what it computes"
            for given, made in pairs
            if given.built and _computes_otherwise(given, made)
        ]
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise SurgeryError(f"the edited {model.name!r} does not compute what the given layers do:\n{lines}")


def _computes_otherwise(given: Any, made: Any) -> bool:
    """Say whether a built layer and the one in its place make different things of the same random input."""
    try:
        specs = tree.flatten(made.input)
        values = [drawn(each, np.random.default_rng(place)) for place, each in enumerate(specs)]
        with keras.StatelessScope(initialize_variables=False):
            both = [tree.flatten(each(values[0] if len(values) == 1 else values)) for each in (given, made)]
            theirs, ours = ([array(each) for each in results] for results in both)
    except Exception:  # as said, and the whole model is still compared after loading
        return False
    return bool(differences(theirs, ours, names=[""] * len(ours), what=""))


def equal_outputs(one: Any, other: Any) -> list[str]:
    """Return how the outputs of two models of the same inputs differ on random input; empty when they do not."""
    values, outputs = run(one)
    return differences(outputs, outputs_of(other, values), names=_output_names(one, len(outputs)), what="in the other")


def _output_names(model: Any, count: int) -> list[str]:
    """Return a name for each flat output, its place where the model gives it none."""
    tensors = getattr(model, "outputs", None) or []
    names = [str(keras_private.source(tensor).name) for tensor in tensors]
    return names if len(names) == count else [str(place) for place in range(count)]
