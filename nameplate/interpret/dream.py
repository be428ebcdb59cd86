"""`dream`: an image that excites named layers, from a start image or noise, through its octaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.interpret.ascent import Ascent, resized
from nameplate.interpret.layer_outputs import Port
from nameplate.interpret.objectives import Objective, ObjectiveError, numbered, parse
from nameplate.interpret.settings import Parameters, Settings, settings_of
from nameplate.interpret.start_images import pixels_of

Progress = Callable[[int, int, float], None]  # steps done, of how many, the objective now

SIDE = 224  # pixels of an image from noise, if neither the model nor the caller gives a size
_SMALLEST = 32  # pixels of the shorter side; smaller octaves are skipped
_FROM_NOISE = Settings(parameters=Parameters.fourier, steps=256)
_FROM_IMAGE = Settings(parameters=Parameters.pixels, octaves=4)


@checked
def dream(
    model: keras.Model,
    objective: Objective | str,
    image: np.ndarray | str | os.PathLike[str] | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    count: int | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> np.ndarray:
    """Return an image that excites named layers.

    The same arguments give the same image, bit for bit, on the same kind of device. Under a mirrored strategy call it
    in the scope of the model; the images of a batch are then divided among the replicas.

    Args:
        model: any Keras model with an input for images; it is not changed.
        objective: what to maximise, e.g. `0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)`, or that as text, or the
            qualified name of a layer.
        image: the start image, (height, width, channels) or a batch of them: uint8, or float in the range `values`; or
            an image file, or a name: `sky`, `hills`, `rings`, `checks`, with scikit-learn `china`, `flower`. None:
            noise.
        size: a side or (height, width) in pixels, of an image from noise, or to which one by name or file is resized;
            None: what the model was built for, or a file's own.
        count: number of images from noise; None: as many as the objective has numbers, else one.
        inputs: a value for every other input of the model by name, without a batch dimension.
        classes: the names of the classes of each output, for `class_logit("cat")`.
        progress: called from time to time with the steps done, their total, and the objective.
        settings: fields of `Settings`: values, steps, rate, octaves, octave_scale, jitter, tile, tv, detail, seed,
            parameters.

    Returns:
        float32 in the range `values`: (height, width, channels), or a batch if several images were asked for.

    Raises:
        ObjectiveError: an unknown layer, with the nearest; a channel, class or size that the model does not have.
        SettingsError: an unknown setting, or a value out of range.
    """
    _refuse_sizes(size, count)
    wanted = numbered(parse(objective) if isinstance(objective, str) else objective, classes or {})
    chosen = settings_of(_defaults(model, wanted, image, inputs), settings)
    dreamer = Dreamer(model, wanted, chosen, inputs=inputs)
    if isinstance(image, str | os.PathLike):
        image = _read(os.fspath(image), dreamer.port, size)
    start = dreamer.noise(size, count or wanted.images or 1) if image is None else dreamer.start(image)
    images, _ = dreamer.dream(start, progress=progress)
    single = (image is None and (count or wanted.images or 1) == 1) or (image is not None and np.ndim(image) == 3)
    return images[0] if single else images


def _refuse_sizes(size: int | tuple[int, int] | None, count: int | None) -> None:
    sides = size if isinstance(size, Sequence) else (1 if size is None else size,)
    if min(sides) < 1:
        raise ObjectiveError(f"size={size}: a side, or (height, width), of at least 1 pixel")
    if count is not None and count < 1:
        raise ObjectiveError(f"count={count}: at least 1 image")


class Dreamer:
    """A model and an objective for any number of dreams: graphs are traced once for each size."""

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        settings: Settings,
        *,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Find the layers; raises as `Ascent`."""
        self.ascent = Ascent(model, numbered(objective, {}), settings, inputs=inputs)

    @property
    def port(self) -> Port:
        """The input that takes the image."""
        return self.ascent.cut.port

    def noise(self, size: int | tuple[int, int] | None, count: int) -> np.ndarray:
        """Return grey with a little noise, (count, height, width, channels), from the seed and the image's number."""
        height, width = (size, size) if isinstance(size, int) else size or default_size(self.port)
        low, high = self.ascent.settings.values
        shape = (height, width, int(self.port.shape[-1] or 3))
        seed = self.ascent.settings.seed
        drawn = [np.random.default_rng((seed, number)).normal(size=shape) for number in range(count)]
        return np.clip((low + high) / 2 + 0.03 * (high - low) * np.stack(drawn), low, high).astype(np.float32)

    def start(self, image: np.ndarray) -> np.ndarray:
        """Return a start image as a batch (n, height, width, channels) in the range of values.

        Raises:
            ObjectiveError: it is not an image with the model's channels.
        """
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
        before = current  # the start image at the resolution of the octave before
        for place, size in enumerate(sizes):
            if place:
                original = np.asarray(resized(images, size))
                detail = original - np.asarray(resized(before, size))
                current = np.asarray(resized(current, size)) + settings.detail * detail
                before = original
            done = place * settings.steps
            report = _from(progress, done, len(sizes) * settings.steps)
            current, measured = self.ascent.climb(np.clip(current, *settings.values), first=done, progress=report)
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
    """Return the (height, width) of each octave, the image's own last; very small ones are skipped."""
    height, width = size
    scales = [settings.octave_scale**-power for power in range(settings.octaves - 1, -1, -1)]
    sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]
    return [octave for octave in sizes[:-1] if min(octave) >= _SMALLEST] + [(height, width)]


def default_size(port: Port) -> tuple[int, int]:
    """Return the (height, width) that a model was built for, else the usual one."""
    height, width, _ = port.shape
    return height or SIDE, width or SIDE


def defaults(port: Port, *, from_noise: bool) -> Settings:
    """Return the default settings of a dream; a model that was built for one size gets one octave."""
    if from_noise:
        return _FROM_NOISE
    return _FROM_IMAGE if None in port.shape[:2] else replace(_FROM_IMAGE, octaves=1, steps=96)


def _defaults(
    model: keras.Model, objective: Objective, image: Any, inputs: Mapping[str, np.ndarray] | None
) -> Settings:
    probe = Dreamer(model, objective, Settings(), inputs=inputs)
    return defaults(probe.port, from_noise=image is None)


def _read(name: str, port: Port, size: int | tuple[int, int] | None) -> np.ndarray:
    wanted = (size, size) if isinstance(size, int) else size or default_size(port)
    return pixels_of(name, wanted, channels=int(port.shape[-1] or 3), own=size is None)


def _from(progress: Progress | None, done: int, total: int) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    return lambda steps, value: progress(done + steps, total, value)
