"""What came of a run: the model with its best weights, the history, the files; and as a notebook shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.graph import model_weights
from nameplate.training.run_record import RunRecord

_WIDTH, _HEIGHT, _MARGIN = 360, 160, 24  # pixels of a drawing
_COLOURS = ("#1f77b4", "#d62728")  # training, validation


@dataclass(frozen=True)
class Report:
    """The results of a run."""

    directory: Path | None  # None for a dry run
    steps: int  # over the whole run
    monitor: str | None  # name of the value that decides what is best
    best: float | None  # its best value
    values: Mapping[str, float]  # at the end
    history: Mapping[str, Sequence[Any]]  # every value, at the end of every epoch
    trained: keras.Model | None = field(default=None, repr=False, compare=False)  # with the weights of the last step

    @property
    def run(self) -> RunRecord | None:
        """The run's measurements, checkpoints and settings; None of a dry run."""
        return None if self.directory is None else RunRecord(self.directory)

    @cached_property
    def model(self) -> keras.Model:
        """The trained model with the weights of the best checkpoint, which replace those of the last step.

        Raises:
            NameplateError: another process trained it; `nameplate.load(report.directory)` reads it.
        """
        if self.trained is None:
            raise NameplateError(f"the model is not in this process; nameplate.load({str(self.directory)!r}) reads it")
        if self.run is not None:
            with store.open(self.run.best) as checkpoint, self.trained.distribute_strategy.scope():
                weights = dict(checkpoint.weights.load())
                model_weights.write(self.trained, model_weights.read(self.trained) | weights)
        return self.trained

    @property
    def names(self) -> dict[str, str]:
        """The class of every layer, by its qualified name."""
        layers = {} if self.trained is None else nameplate.layers(self.trained)
        return {name: type(layer).__name__ for name, layer in layers.items()}

    def frame(self) -> Any:
        """Return the history as a pandas data frame, a row an epoch.

        Raises:
            NameplateError: pandas is not installed.
        """
        return imported("pandas").DataFrame({name: list(series) for name, series in self.history.items()})

    def plot(self) -> Any:
        """Return a matplotlib figure of the history: a panel for each value, its validation beside it.

        Raises:
            NameplateError: matplotlib is not installed.
        """
        figure_class = imported("matplotlib.figure").Figure
        panels = self._panels()
        figure = figure_class(figsize=(4 * max(len(panels), 1), 3), layout="constrained")
        for number, (name, curves) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), number)
            for label, series in curves.items():
                axes.plot(range(1, len(series) + 1), series, label=label)
            axes.set(title=name, xlabel="epoch")
            axes.legend()
        return figure

    def _panels(self) -> dict[str, dict[str, list[float]]]:
        """Return the curves to draw together, by value: training and validation; arrays are left out."""
        plain = {
            name: list(map(float, each)) for name, each in self.history.items() if np.ndim(each[0] if each else 0) == 0
        }
        panels: dict[str, dict[str, list[float]]] = {}
        for name, series in plain.items():
            panels.setdefault(name.removeprefix("val_"), {})[name] = series
        return panels

    def _repr_html_(self) -> str:
        """Return curves as inline SVG, the layers, and what can be done with the run."""
        where = "a dry run" if self.directory is None else html.escape(str(self.directory))
        best = "" if self.best is None else f", best {html.escape(str(self.monitor))} {self.best:.4g}"
        curves = "".join(_drawn(name, series) for name, series in self._panels().items())
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{kind}</td></tr>" for name, kind in self.names.items())
        load = "" if self.directory is None else f"<pre>nameplate.load({html.escape(repr(str(self.directory)))})</pre>"
        return (
            f"<div><b>{self.steps} steps in {where}{best}</b><div>{curves}</div>"
            f"<details><summary>{len(self.names)} layers</summary><table>{rows}</table></details>{load}</div>"
        )


def _drawn(name: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Return one panel as SVG."""
    finite = [value for series in curves.values() for value in series if np.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    longest = max(map(len, curves.values()))
    lines = []
    for (label, series), colour in zip(curves.items(), _COLOURS, strict=False):
        points = " ".join(
            f"{_MARGIN + place * (_WIDTH - 2 * _MARGIN) / max(longest - 1, 1):.1f},"
            f"{_HEIGHT - _MARGIN - (value - low) * (_HEIGHT - 2 * _MARGIN) / ((high - low) or 1):.1f}"
            for place, value in enumerate(series)
            if np.isfinite(value)
        )
        lines.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}">'
            f"<title>{html.escape(label)}</title></polyline>"
        )
    text = f"{html.escape(name)}: {low:.4g} to {high:.4g} over {longest} epochs"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{text}">'
        f'<text x="{_MARGIN}" y="14" font-size="11">{text}</text>{"".join(lines)}</svg>'
    )


def imported(module: str) -> Any:
    """Return a module that only some users have; raise `NameplateError` with how to install it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise NameplateError(f"{package} is not installed; pip install {package}") from None
