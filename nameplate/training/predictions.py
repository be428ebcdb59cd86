"""`nameplate.tabulate`: predictions as a table, with the names of classes, written as CSV or Parquet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.checkpoint import durable
from nameplate.errors import NameplateError, as_path
from nameplate.training.assessment import by_name, class_names, logits_of, probabilities
from nameplate.training.evaluate import predict
from nameplate.training.report import imported

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """A table of predictions, a row an example."""

    columns: Mapping[str, np.ndarray]  # (examples,) each

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file, which is replaced: `.csv`, or `.parquet` with pyarrow.

        Raises:
            NameplateError: another suffix, a directory that does not exist, or pyarrow is not installed.
        """
        target = writable(path)
        if target.suffix == ".csv":
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(zip(*(column.tolist() for column in self.columns.values()), strict=True))
            durable.replace_file(target, text.getvalue().encode())
            return
        table = imported("pyarrow").table({name: column.tolist() for name, column in self.columns.items()})
        with durable.replacement(target) as draft:
            imported("pyarrow.parquet").write_table(table, draft)

    def frame(self) -> Any:
        """Return the table as a pandas data frame.

        Raises:
            NameplateError: pandas is not installed.
        """
        return imported("pandas").DataFrame(dict(self.columns))


def writable(path: str | os.PathLike[str]) -> Path:
    """Return the path of a table; refuse another suffix, and a directory that does not exist."""
    target = as_path(path)
    if target.suffix not in SUFFIXES:
        raise NameplateError(f"{target}: a table of predictions is written as {' or '.join(SUFFIXES)}")
    if not target.absolute().parent.is_dir():
        raise NameplateError(f"{target}: its directory does not exist; create it, or name another")
    return target


@checked
def tabulate(
    model: keras.Model,
    data: Any,
    *,
    classes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    from_logits: bool | None = None,
    names: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> Predictions:
    """Predict on all replicas, and return a table: the example, then for every output its columns.

    An output of classes has `predicted`, `probability` and `p_CLASS` of each; values have `value`, or `value_0` and so
    on. With several outputs each column begins with the output's name and a dot.

    Args:
        model: need not be compiled.
        data: what `predict` takes.
        classes: names of the classes of the output, or of several outputs by name; an output without is of values.
        from_logits: the outputs of classes are logits (True) or probabilities (False); None: what the activation of
            their layers says.
        names: of the examples, for the first column; None: their numbers.
        batch_size: examples a step over all replicas together; None: 32.

    Raises:
        NameplateError: names for another number of classes or examples, predictions of classes that are not finite, or
            data that cannot be predicted on.
    """
    outputs = by_name(model, predict(model, data, batch_size=batch_size))
    named = class_names(classes, list(outputs))
    size = len(next(iter(outputs.values())))
    if names is not None and len(names) != size:
        raise NameplateError(f"names: {len(names)} for {size} examples")
    columns = {"example": np.array(range(size) if names is None else list(map(str, names)), object)}
    logits = logits_of(model) if from_logits is None else dict.fromkeys(outputs, from_logits)
    for name, values in outputs.items():
        begin = f"{name}." if len(outputs) > 1 else ""
        found = _of_values(values)
        if name in named:
            found = _of_classes(name, values, named[name], from_logits=logits.get(name))
        columns |= {f"{begin}{column}": array for column, array in found.items()}
    return Predictions(columns)


def _of_classes(
    name: str, values: np.ndarray, classes: tuple[str, ...], *, from_logits: bool | None
) -> dict[str, np.ndarray]:
    chances = probabilities(name, values, from_logits=from_logits)
    if len(classes) != chances.shape[1]:
        raise NameplateError(f"classes: {len(classes)} names for the {chances.shape[1]} classes of {name!r}")
    chosen = chances.argmax(1)
    columns = {"predicted": np.array(classes, object)[chosen], "probability": chances.max(1)}
    return columns | {f"p_{kind}": chances[:, number] for number, kind in enumerate(classes)}


def _of_values(values: np.ndarray) -> dict[str, np.ndarray]:
    rows = values.reshape(len(values), -1)
    return {("value" if rows.shape[1] == 1 else f"value_{number}"): rows[:, number] for number in range(rows.shape[1])}
