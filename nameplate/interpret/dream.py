"""A dream from its beginning to its end: the start image or noise, its octaves, progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from nameplate.interpret.ascent import Ascent, resized
from nameplate.interpret.layer_outputs import Port
from nameplate.interpret.objectives import Objective, ObjectiveError, parse
from nameplate.interpret.settings import Parameters, Settings, settings_of
from nameplate.interpret.start_images import pixels_of

Progress = Callable[[int, int, float], None]  # steps done, of how many, the objective now

SIDE = 224  # pixels of an image from noise, where neither the model nor the caller says
_SMALLEST = 32  # pixels of an octave's shorter side, where the image is larger
_FROM_NOISE = Settings(parameters=Parameters.fourier, steps=256)
_FROM_IMAGE = Settings(parameters=Parameters.pixels, octaves=4)


def dream(
    model: keras.Model,
    objective: Objective | str,
    image: np.ndarray | str | os.PathLike[str] | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    count: int | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> np.ndarray:
    """Return an image that excites named layers.

    The same arguments give the same image, bit for bit, on the same kind of device. Under a mirrored strategy call it
    in the scope of the model; the images of a batch are then shared among the replicas.

    Args:
        model: any Keras model with an input for images; it is left as it is.
        objective: what to maximise, e.g. `0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)`, or such a text, or the
            qualified name of a layer.
        image: where to begin, (height, width, channels) or a batch of them: uint8, or float in the range `values`; or
            an image file, or a name: `sky`, `hills`, `rings`, `checks`, with scikit-learn `china`, `flower`. None:
            noise.
        size: pixels of an image from noise, or that one by name or file is brought to, a side or (height, width);
            None: what the model was built for, and a file's own.
        count: images from noise; None: as many as the objective has numbers, else one.
        inputs: a value for every other input of the model by name, without a batch dimension.
        progress: told now and then the steps done, of how many, and the objective.
        settings: fields of `Settings`: values, steps, rate, octaves, octave_scale, jitter, tile, tv, detail, seed,
            parameters.

    Returns:
        float32 in the range `values`: (height, width, channels), or a batch where a batch or several were asked for.

    Raises:
        ObjectiveError: an unknown layer, with the nearest; a channel, class or size that the model does not have.
        SettingsError: a setting that there is not, or a value that cannot be meant.
    """
    wanted = parse(objective) if isinstance(objective, str) else objective
    chosen = settings_of(_defaults(model, wanted, image, inputs), settings)
    dreamer = Dreamer(model, wanted, chosen, inputs=inputs)
    if isinstance(image, str | os.PathLike):
        image = _opened(os.fspath(image), dreamer.port, size)
    start = dreamer.noise(size, count or wanted.images or 1) if image is None else dreamer.start(image)
    found, _ = dreamer.dream(start, progress=progress)
    single = (image is None and (count or wanted.images or 1) == 1) or (image is not None and np.ndim(image) == 3)
    return found[0] if single else found


class Dreamer:
    """A model and an objective to dream with more than once: graphs are traced once for each size."""

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        settings: Settings,
        *,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Find the layers; raises as `Ascent`."""
        self.ascent = Ascent(model, objective, settings, inputs=inputs)

    @property
    def port(self) -> Port:
        """The input that takes the image."""
        return self.ascent.cut.port

    def noise(self, size: int | tuple[int, int] | None, count: int) -> np.ndarray:
        """Return grey with a little noise, (count, height, width, channels); each from the seed and its number."""
        height, width = (size, size) if isinstance(size, int) else size or default_size(self.port)
        low, high = self.ascent.settings.values
        shape = (height, width, int(self.port.shape[-1] or 3))
        drawn = [np.random.default_rng((self.ascent.settings.seed, each)).normal(size=shape) for each in range(count)]
        return np.clip((low + high) / 2 + 0.03 * (high - low) * np.stack(drawn), low, high).astype(np.float32)

    def start(self, image: np.ndarray) -> np.ndarray:
        """Return a start image as a batch (n, height, width, channels) in the range, with the model's channels."""
        pixels = self.ascent.settings.in_range(np.asarray(image))
        batch = pixels[None] if pixels.ndim == 3 else pixels
        channels = self.port.shape[-1]
        if batch.ndim != 4 or batch.shape[-1] != channels or 0 in batch.shape:
            raise ObjectiveError(
                f"an image for {self.ascent.cut.model.name!r} has the shape (height, width, {channels}), or a batch of "
                f"them, not {np.shape(image)}"
            )
        return batch

    def dream(self, images: np.ndarray, *, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return images (n, height, width, channels) after all octaves, and the objective before each step, (steps, n).

        Raises:
            ObjectiveError: as `Ascent.climb`, or a batch of another length than the objective's lists.
        """
        self._refuse_length(len(images))
        settings = self.ascent.settings
        sizes = octave_sizes(images.shape[1:3], settings)
        values = []
        current = np.asarray(resized(images, sizes[0]))
        before = current  # the start image as the last octave could show it
        for place, size in enumerate(sizes):
            if place:
                original = np.asarray(resized(images, size))
                lost = original - np.asarray(resized(before, size))
                current = np.asarray(resized(current, size)) + settings.detail * lost
                before = original
            done = place * settings.steps
            told = _told(progress, done, len(sizes) * settings.steps)
            current, measured = self.ascent.climb(np.clip(current, *settings.values), first=done, told=told)
            values.append(measured)
        return current, np.concatenate(values)

    def _refuse_length(self, count: int) -> None:
        wanted = self.ascent.objective.images
        if wanted not in (None, count):
            raise ObjectiveError(
                f"{self.ascent.objective} has numbers for {wanted} images, and there "
                f"{'is' if count == 1 else 'are'} {count}"
            )


def octave_sizes(size: tuple[int, ...], settings: Settings) -> list[tuple[int, int]]:
    """Return the (height, width) of each octave, the image's own last; those too small to show much are left out."""
    height, width = size
    scales = [settings.octave_scale**-power for power in range(settings.octaves - 1, -1, -1)]
    sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]
    return [each for each in sizes[:-1] if min(each) >= _SMALLEST] + [(height, width)]


def default_size(port: Port) -> tuple[int, int]:
    """Return the (height, width) that a model was built for, or what is usual."""
    height, width, _ = port.shape
    return height or SIDE, width or SIDE


def defaults(port: Port, *, from_noise: bool) -> Settings:
    """Return the settings of a dream where the caller says nothing: one size where the model was built for one."""
    if from_noise:
        return _FROM_NOISE
    return _FROM_IMAGE if None in port.shape[:2] else replace(_FROM_IMAGE, octaves=1, steps=96)


def _defaults(
    model: keras.Model, objective: Objective, image: Any, inputs: Mapping[str, np.ndarray] | None
) -> Settings:
    probe = Dreamer(model, objective, Settings(), inputs=inputs)
    return defaults(probe.port, from_noise=image is None)


def _opened(name: str, port: Port, size: int | tuple[int, int] | None) -> np.ndarray:
    wanted = (size, size) if isinstance(size, int) else size or default_size(port)
    return pixels_of(name, wanted, channels=int(port.shape[-1] or 3), own=size is None)


def _told(progress: Progress | None, done: int, total: int) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    return lambda steps, value: progress(done + steps, total, value)
