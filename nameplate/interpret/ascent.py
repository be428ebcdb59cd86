"""Gradient ascent on images, whole or in tiles that are each small enough for a forward and backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.interpret.canvas import Canvas, Fourier, Pixels, Slots, total_variation
from nameplate.interpret.layer_outputs import Cut, flat
from nameplate.interpret.measures import correlations, measure, wanted
from nameplate.interpret.objectives import Content, Objective, Style
from nameplate.interpret.settings import Parameters, Settings


@dataclass(frozen=True)
class Grid:
    """Tiles of one size over an image that wraps around: past the right edge comes the left one."""

    size: tuple[int, int]  # (height, width) of the image
    tile: tuple[int, int]  # (height, width) of a tile
    rows: int
    columns: int

    @property
    def single(self) -> bool:
        """Say whether one tile is the whole image."""
        return self.tile == self.size

    def split(self, images: tf.Tensor) -> tf.Tensor:
        """Return (rows * columns, n, *tile, channels) of images (n, *size, channels)."""
        padded = tf.gather(tf.gather(images, self._wrapped(0), axis=1), self._wrapped(1), axis=2)
        (height, width), channels = self.tile, images.shape[-1]
        cells = tf.reshape(padded, [-1, self.rows, height, self.columns, width, channels])
        cells = tf.transpose(cells, [1, 3, 0, 2, 4, 5])
        return tf.reshape(cells, [self.rows * self.columns, -1, height, width, channels])

    def joined(self, tiles: tf.Tensor) -> tf.Tensor:
        """Return the images that these tiles make up; a pixel that is in two tiles has their sum."""
        (height, width), channels = self.tile, tiles.shape[-1]
        cells = tf.reshape(tiles, [self.rows, self.columns, -1, height, width, channels])
        padded = tf.transpose(cells, [2, 0, 3, 1, 4, 5])
        padded = tf.reshape(padded, [-1, self.rows * height, self.columns * width, channels])
        return _folded(_folded(padded, 1, self.size[0]), 2, self.size[1])

    def _wrapped(self, axis: int) -> tf.Tensor:
        count = (self.rows, self.columns)[axis] * self.tile[axis]
        return tf.range(count) % self.size[axis]


def grid(size: Sequence[int], tile: int | None, *, exact: Sequence[int | None] = (None, None)) -> Grid:
    """Return the grid over an image of this size with tiles of at most `tile` pixels a side.

    All tiles have the same size, as small as their number allows; along a side whose `exact` size is `tile`, exactly
    that. Without `tile` there is one.
    """
    counts = [1 if tile is None else -(-side // tile) for side in size]
    sides = [
        tile if tile is not None and only == tile <= side else -(-side // count)
        for side, count, only in zip(size, counts, exact, strict=True)
    ]
    return Grid((size[0], size[1]), (sides[0], sides[1]), counts[0], counts[1])


def _folded(images: tf.Tensor, axis: int, size: int) -> tf.Tensor:
    """Add what lies past `size` along an axis to its beginning, from where it was wrapped; it is less than `size`."""
    excess = images.shape[axis] - size
    if not excess:
        return images
    kept, over = tf.split(images, [size, excess], axis=axis)
    padding = [[0, 0] for _ in images.shape]
    padding[axis][1] = size - excess
    return kept + tf.pad(over, padding)


STEPS = 16  # steps in one call of the graph; progress is reported after each call
StepProgress = Callable[[int, float], None]  # steps done at this size, mean objective of the last


class Ascent:
    """A model, an objective and settings, ready to move images uphill; use it in the model's strategy scope."""

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        settings: Settings,
        *,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Find the layers.

        Raises:
            ObjectiveError: the model has no such layer, or needs other inputs.
        """
        self.objective, self.settings = objective, settings
        self.cut = Cut(model, wanted(objective), inputs=inputs)
        self.canvas = _canvas(settings)
        self._graphs: dict[tuple[int, ...], Any] = {}
        self._styles: dict[int, tf.Tensor] | None = None

    def climb(
        self, images: np.ndarray, *, first: int = 0, progress: StepProgress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return images (n, height, width, channels) after all steps, and the objective before each, (steps, n).

        `first` is the number of the first step; jitter depends on the seed and the step. Under a mirrored strategy the
        images are divided among the replicas.

        Raises:
            ObjectiveError: the model cannot take images of this size, or a layer has no such channel.
        """
        replicas = _replicas(len(images))
        shares = _shares(images, replicas)
        graph = self._graph(images.shape[1:3], replicas, shares[0].shape)
        contents = self._contents(images.shape[1:3])
        numbers = np.minimum(np.arange(replicas * len(shares[0])), len(images) - 1)
        places = _distributed(np.split(numbers.astype(np.int32), replicas))
        state = graph["begin"](_distributed(shares))
        values = []
        for done in range(0, self.settings.steps, STEPS):
            count = min(STEPS, self.settings.steps - done)
            state, measured = graph["steps"](
                state, places, contents, tf.constant(first + done), tf.constant(done), tf.constant(count)
            )
            values.append(_joined(measured, axis=1)[:, : len(images)])
            if progress:
                progress(done + count, float(values[-1][-1].mean()))
        return _joined(graph["end"](state))[: len(images)], np.concatenate(values)

    def value(self, images: np.ndarray) -> np.ndarray:
        """Return the objective of images as they are, (n,), without jitter or tiles."""
        self._measure_styles()
        given = (tf.constant(images, tf.float32), tf.range(len(images)), self._contents(images.shape[1:3]))
        return np.asarray(_on_replicas(self._measured, 1)(*given))

    def _graph(self, size: tuple[int, ...], replicas: int, shape: tuple[int, ...]) -> dict[str, Any]:
        key = (*shape, replicas)
        if key not in self._graphs:
            self._measure_styles()
            plan = grid(size, self.settings.tile, exact=self.cut.port.shape[:2])

            def begin(images: tf.Tensor) -> tuple[tf.Tensor, Slots]:
                parameters = self.canvas.encode(images)
                return parameters, self.canvas.slots(parameters)

            def steps(state: Any, *given: tf.Tensor) -> Any:
                return self._steps(state, plan, *given)

            def end(state: Any) -> tf.Tensor:
                return tf.clip_by_value(self.canvas.decode(state[0], plan.size), *self.settings.values)

            self._graphs[key] = {part.__name__: _on_replicas(part, replicas) for part in (begin, steps, end)}
        return self._graphs[key]

    def _steps(
        self,
        state: tuple[tf.Tensor, Slots],
        plan: Grid,
        numbers: tf.Tensor,
        contents: tf.Tensor | None,
        first: tf.Tensor,
        done: tf.Tensor,
        count: tf.Tensor,
    ) -> tuple[tuple[tf.Tensor, Slots], tf.Tensor]:
        def body(index: tf.Tensor, parameters: tf.Tensor, slots: Slots, values: tf.TensorArray) -> Any:
            gradient, value = self._gradient(parameters, plan, numbers, contents, first + index)
            parameters, slots = self.canvas.stepped(parameters, slots, gradient, done + index)
            return index + 1, parameters, slots, values.write(index, value)

        parameters, slots = state
        values = tf.TensorArray(tf.float32, size=count, element_shape=[parameters.shape[0]])
        begin = (tf.constant(0), parameters, slots, values)
        _, parameters, slots, values = tf.while_loop(lambda index, *_: index < count, body, begin)
        return (parameters, slots), values.stack()

    def _gradient(
        self, parameters: tf.Tensor, plan: Grid, numbers: tf.Tensor, contents: tf.Tensor | None, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the uphill direction in the parameters, and the objective of each image."""
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            images = self.canvas.decode(parameters, plan.size)
        shift = self._shift(plan, step)
        uphill, value = self._pixel_gradient(_rolled(images, shift), plan, numbers, _rolled(contents, shift))
        uphill = _to_mean_size(_rolled(uphill, -shift))
        if self.settings.tv:
            uphill -= self.settings.tv * self._variation_gradient(images)
        return tape.gradient(images, parameters, output_gradients=uphill), value

    def _pixel_gradient(
        self, images: tf.Tensor, plan: Grid, numbers: tf.Tensor, contents: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if plan.single:
            return self._of_tile(images, numbers, contents)

        def of_tile(given: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
            return self._of_tile(given[0], numbers, given[1] if contents is not None else None)

        tiles = (plan.split(images), *(() if contents is None else (plan.split(contents),)))
        form = (
            tf.TensorSpec([images.shape[0], *plan.tile, images.shape[-1]], tf.float32),
            tf.TensorSpec([images.shape[0]], tf.float32),
        )
        # One tile at a time, to bound the memory.
        gradients, values = tf.map_fn(of_tile, tiles, fn_output_signature=form, parallel_iterations=1)
        return plan.joined(gradients), tf.reduce_mean(values, axis=0)

    def _of_tile(
        self, images: tf.Tensor, numbers: tf.Tensor, contents: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = self._measured(images, numbers, contents)
        return tape.gradient(value, images, unconnected_gradients=tf.UnconnectedGradients.ZERO), value

    def _measured(self, images: tf.Tensor, numbers: tf.Tensor, contents: tf.Tensor | None) -> tf.Tensor:
        return measure(self.objective, self.cut, images, numbers=numbers, contents=contents, styles=self._styles)

    def _shift(self, plan: Grid, step: tf.Tensor) -> tf.Tensor:
        """Return by how many rows and columns all images are moved at a step."""
        jitter = self.settings.jitter_of(plan.tile)
        # Tiles are moved by up to their own size, so that their seams fall everywhere.
        most = [jitter, jitter] if plan.single else [max(jitter, side) for side in plan.tile]
        unit = tf.random.stateless_uniform([2], seed=tf.stack([self.settings.seed, step]), minval=-1.0)
        return tf.cast(tf.round(unit * tf.constant(most, tf.float32)), tf.int32)

    def _variation_gradient(self, images: tf.Tensor) -> tf.Tensor:
        low, high = self.settings.values
        with tf.GradientTape() as tape:
            tape.watch(images)
            variation = tf.reduce_sum(total_variation(images)) / (high - low)
        pixels = images.shape[1] * images.shape[2] * images.shape[3]
        return tape.gradient(variation, images) * float(pixels) * (high - low)

    def _contents(self, size: Sequence[int]) -> tf.Tensor | None:
        """Return the references of the Content terms at the images' size, (terms, height, width, channels)."""
        terms = [term for _, term in self.objective.terms if isinstance(term, Content)]
        if not terms:
            return None
        pictures = [self.settings.in_range(term.picture.pixels) for term in terms]
        return tf.concat([resized(pixels[None], size) for pixels in pictures], axis=0)

    def _measure_styles(self) -> None:
        """Compute the correlations of the Style terms' references, once, at the references' own size."""
        terms = [(place, term) for place, (_, term) in enumerate(self.objective.terms) if isinstance(term, Style)]
        if self._styles is not None:
            return
        self._styles = {}
        for place, term in terms:
            cut = Cut(self.cut.model, [term.name])
            image = tf.constant(self.settings.in_range(term.picture.pixels)[None])
            self._styles[place] = correlations(flat(cut(image)[term.name], term.name))[0]


def resized(images: Any, size: Sequence[int]) -> tf.Tensor:
    """Return images as (n, *size, channels): bicubic, antialiased when they shrink."""
    if tuple(images.shape[1:3]) == tuple(size):
        return tf.convert_to_tensor(images, tf.float32)
    return tf.image.resize(images, size, method="bicubic", antialias=True)


def _canvas(settings: Settings) -> Canvas:
    kind = Fourier if settings.parameters == Parameters.fourier else Pixels
    return kind(settings.values, settings.rate_of_step)


def _to_mean_size(gradient: tf.Tensor) -> tf.Tensor:
    """Return each image's gradient scaled to mean square 1; a gradient of zeros stays zero."""
    square = tf.reduce_mean(tf.square(gradient), axis=[1, 2, 3], keepdims=True)
    return gradient * tf.math.rsqrt(tf.maximum(square, 1e-30))


def _rolled(images: tf.Tensor | None, shift: tf.Tensor) -> tf.Tensor | None:
    return None if images is None else tf.roll(images, shift, axis=[1, 2])


def _replicas(images: int) -> int:
    """Return how many replicas share a batch; one image needs only one."""
    return 1 if images == 1 else int(tf.distribute.get_strategy().num_replicas_in_sync)


def _shares(images: np.ndarray, replicas: int) -> list[np.ndarray]:
    """Return equal shares; the last image is repeated to fill the last share."""
    missing = -len(images) % replicas
    filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]).astype(np.float32)
    return np.split(filled, replicas)


def _distributed(shares: Sequence[np.ndarray]) -> Any:
    if len(shares) == 1:
        return tf.constant(shares[0])
    strategy = tf.distribute.get_strategy()
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(shares[context.replica_id_in_sync_group])
    )


def _on_replicas(function: Callable[..., Any], replicas: int) -> Any:
    """Return the function as a graph, wrapped in a partial: by its code, TensorFlow would take all of them for one."""
    strategy = tf.distribute.get_strategy()
    if replicas == 1:
        return tf.function(functools.partial(function), autograph=False)
    return tf.function(functools.partial(lambda *given: strategy.run(function, args=given)), autograph=False)


def _joined(value: Any, *, axis: int = 0) -> np.ndarray:
    parts = tf.distribute.get_strategy().experimental_local_results(value)
    return np.concatenate([np.asarray(part) for part in parts], axis=axis)
