"""The parameters of an image that gradient ascent moves: its pixels, or its frequencies in opponent colours.

Both encode an image as parameters, decode it again, and take a step along a gradient. An image is float32 (n, height,
width, channels) in the model's range of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import tensorflow as tf

Values: TypeAlias = tuple[float, float]  # the lowest and the highest value of a pixel
Slots: TypeAlias = tuple[tf.Tensor, ...]  # what an optimizer keeps between steps


class Canvas(Protocol):
    """A parametrization of an image, with its optimizer."""

    def encode(self, images: tf.Tensor) -> tf.Tensor:
        """Return the parameters of images."""

    def decode(self, parameters: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Return the images, (n, *size, channels)."""

    def slots(self, parameters: tf.Tensor) -> Slots:
        """Return the optimizer's slots before the first step."""

    def stepped(
        self, parameters: tf.Tensor, slots: Slots, gradient: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Return parameters and slots one step uphill; `step` counts from 0."""


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves; a step goes along the gradient and is clipped to the range."""

    values: Values
    rate: float  # length of a step, as a fraction of the range, for a gradient of mean square 1

    def encode(self, images: tf.Tensor) -> tf.Tensor:
        """Return the images."""
        return images

    def decode(self, parameters: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Return the images."""
        return parameters

    def slots(self, parameters: tf.Tensor) -> Slots:
        """Return no slots: a step depends only on its gradient."""
        return ()

    def stepped(
        self, parameters: tf.Tensor, slots: Slots, gradient: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Return the images one step uphill."""
        low, high = self.values
        return tf.clip_by_value(parameters + self.rate * (high - low) * gradient, low, high), slots


# Columns: light-dark, red-blue, green-magenta; and how much each varies in photographs, on a logarithmic scale
# (Ruderman et al., 1998, "Statistics of cone responses to natural images").
_OPPONENT = np.array([[1, 1, 1], [1, 0, -2], [1, -1, 1]], np.float32) / np.sqrt(np.array([3, 2, 6], np.float32))
_SPREAD = np.array([1.0, 0.4, 0.17], np.float32)


@dataclass(frozen=True)
class Fourier:
    """Frequencies, each scaled to its amplitude in photographs, in decorrelated colours.

    Steps are Adam's. Neighbouring pixels move together, which keeps images smooth without a penalty (Olah et al., 2017,
    "Feature Visualization").
    """

    values: Values
    rate: float  # Adam's learning rate

    def encode(self, images: tf.Tensor) -> tf.Tensor:
        """Return (n, channels, height, width // 2 + 1, 2): real and imaginary parts, divided by their scale."""
        low, high = self.values
        share = tf.clip_by_value((images - low) / (high - low), 0.01, 0.99)
        colours = tf.matmul(tf.math.log(share / (1 - share)), tf.constant(np.linalg.inv(_mixing(images.shape[-1])).T))
        spectrum = tf.signal.rfft2d(tf.transpose(colours, [0, 3, 1, 2]))
        parts = tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], axis=-1)
        return parts / _scale(images.shape[1:3])

    def decode(self, parameters: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Return the images, (n, *size, channels)."""
        low, high = self.values
        parts = parameters * _scale(size)
        colours = tf.signal.irfft2d(tf.complex(parts[..., 0], parts[..., 1]), fft_length=list(size))
        mixed = tf.matmul(tf.transpose(colours, [0, 2, 3, 1]), tf.constant(_mixing(parameters.shape[1]).T))
        return low + (high - low) * tf.sigmoid(mixed)

    def slots(self, parameters: tf.Tensor) -> Slots:
        """Return Adam's moments, zero."""
        return (tf.zeros_like(parameters), tf.zeros_like(parameters))

    def stepped(
        self, parameters: tf.Tensor, slots: Slots, gradient: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Return parameters one step of Adam uphill (Kingma and Ba, 2014)."""
        count = tf.cast(step, tf.float32) + 1
        mean = 0.9 * slots[0] + 0.1 * gradient
        square = 0.999 * slots[1] + 0.001 * tf.square(gradient)
        ahead = (mean / (1 - 0.9**count)) / (tf.sqrt(square / (1 - 0.999**count)) + 1e-8)
        return parameters + self.rate * ahead, (mean, square)


def total_variation(images: tf.Tensor) -> tf.Tensor:
    """Return the mean length of the gradient between pixels of each image, (n,), in the units of its values."""
    # 1e-8 keeps the root differentiable where neighbours are equal.
    down = images[:, 1:, :-1] - images[:, :-1, :-1]
    right = images[:, :-1, 1:] - images[:, :-1, :-1]
    return tf.reduce_mean(tf.sqrt(tf.square(down) + tf.square(right) + 1e-8), axis=[1, 2, 3])


def _mixing(channels: int) -> np.ndarray:
    """Return the matrix from decorrelated colours to channels, (channels, channels)."""
    return (_OPPONENT * _SPREAD).astype(np.float32) if channels == 3 else np.eye(channels, dtype=np.float32)


def _scale(size: Sequence[int]) -> tf.Tensor:
    """Return (height, width // 2 + 1, 1): an amplitude that falls with the frequency, as in photographs."""
    height, width = (int(side) for side in size)
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.sqrt(down**2 + right**2), 1 / max(height, width))
    return tf.constant((np.sqrt(height * width) / frequency)[..., None] / 4, tf.float32)
