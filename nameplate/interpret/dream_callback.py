"""Dreams during training: a picture every so many steps of what named layers see, to watch features form.

The noise is the same every time, and training is not affected: a run with dreams trains the same weights, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from nameplate.engine.event_files import EventFile
from nameplate.interpret.dream import Dreamer
from nameplate.interpret.image_files import enlarged, read_image, save_image, sheet
from nameplate.interpret.layer_outputs import matching
from nameplate.interpret.objectives import Classes, Objective, layer, numbered, parse
from nameplate.interpret.settings import Parameters, Settings
from nameplate.naming.names import sanitized
from nameplate.training.config import DreamConfig
from nameplate.training.observers import Observer, RunLength
from nameplate.training.tensorboard import remove_events_after

_SHOWN = 128  # pixels, at least, of a picture's longer side
_ACROSS = 12  # pictures of each layer on the final sheet


class Dreams(Observer):
    """Writes pictures to the run's TensorBoard directory, and to PNG files with their recipes."""

    def __init__(
        self,
        model: keras.Model,
        config: DreamConfig,
        *,
        pictures: Path,
        events: Path,
        seed: int,
        classes: Classes | None = None,
    ) -> None:
        """Find the layers; call it within the strategy's scope.

        Args:
            model: the model that is trained.
            config: which layers, how often.
            pictures: directory of the PNG files, `<layer>/step_00000500.png`.
            events: directory of the event file.
            seed: decides the noise.
            classes: the names of the classes of each output, if known.

        Raises:
            ObjectiveError: names that match no layer, with the nearest; or a model without an input for images.
        """
        self.every_steps = config.every_steps
        self._config, self._pictures, self._events = config, pictures, events
        self._settings = Settings(parameters=Parameters.fourier, steps=config.steps, seed=seed)
        objectives = _objectives(model, config.layers, classes or {})
        self._dreamers = {name: Dreamer(model, wanted, self._settings) for name, wanted in objectives.items()}

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Open the event file; dreams past the checkpoint that the run resumes from are made again."""
        remove_events_after(self._events, run_length.first_step)
        self._file = EventFile(self._events)
        self._last = run_length.total_steps
        if self._config.before_after and run_length.first_step == 0:
            self._dream(0)

    def advanced(self, step: int) -> None:
        """Dream if this step is due."""
        if step % self._config.every_steps == 0 or (self._config.before_after and step == self._last):
            self._dream(step)

    def _dream(self, step: int) -> None:
        for name, dreamer in self._dreamers.items():
            picture = self._dreamt(dreamer)
            self._file.write_image(name, picture, step=step)
            save_image(self._folder(name) / f"step_{step:08d}.png", picture, recipe=self._recipe(dreamer, step))
        self._file.flush()

    def ended(self) -> None:
        """Close the event file, and write sheets of all dreams, a row a layer."""
        self._file.close()
        rows = {name: sorted(self._folder(name).glob("step_*.png")) for name in self._dreamers}
        self._sheet("forming.png", {name: _evenly(paths) for name, paths in rows.items()})
        first = "step_00000000"
        if self._config.before_after and all(len(paths) > 1 and paths[0].stem == first for paths in rows.values()):
            self._sheet("before_after.png", {name: [paths[0], paths[-1]] for name, paths in rows.items()})

    def _sheet(self, name: str, rows: Mapping[str, Sequence[Path]]) -> None:
        across = max((len(paths) for paths in rows.values()), default=0)
        if across:
            shown = {f"{layer} {int(path.stem[5:])}": path for layer, paths in rows.items() for path in paths}
            pictures = {label: read_image(path, channels=3) for label, path in shown.items()}
            save_image(self._pictures / name, sheet(pictures, columns=across), recipe={"what": list(rows)})

    def _dreamt(self, dreamer: Dreamer) -> np.ndarray:
        images, _ = dreamer.dream(dreamer.noise(self._config.size, 1))
        pixels = self._settings.as_bytes(images[0])
        return enlarged(pixels if pixels.shape[-1] == 3 else pixels[..., :1], _SHOWN)

    def _folder(self, name: str) -> Path:
        return self._pictures / sanitized(name.replace("/", "."))

    def _recipe(self, dreamer: Dreamer, step: int) -> dict[str, object]:
        what = str(dreamer.ascent.objective)
        return {"what": what, "step": step, "start": "noise", "settings": self._settings.plain()}


def _objectives(model: keras.Model, wanted: Sequence[str], classes: Classes) -> dict[str, Objective]:
    """Return the objectives by name: that of a layer, or the objective's text."""
    patterns = [text for text in wanted if "(" not in text]
    layers = {name: layer(name) for name in matching(model, patterns)}
    return layers | {text: numbered(parse(text), classes) for text in wanted if "(" in text}


def _evenly(paths: Sequence[Path]) -> list[Path]:
    """Return at most `_ACROSS` of the paths, evenly spaced, with the first and the last."""
    if len(paths) <= _ACROSS:
        return list(paths)
    return [paths[round(place)] for place in np.linspace(0, len(paths) - 1, _ACROSS)]
