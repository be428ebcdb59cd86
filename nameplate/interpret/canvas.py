"""How an image is written in numbers that gradient ascent moves: as pixels, or as frequencies of opponent colours.

Both give, for parameters, the image; for an image, parameters; and for a gradient, the next parameters. An image is
float32 (n, height, width, channels) in the model's range of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import tensorflow as tf

Values: TypeAlias = tuple[float, float]  # the lowest and the highest value of a pixel
Slots: TypeAlias = tuple[tf.Tensor, ...]  # what the ascent remembers between steps


class Canvas(Protocol):
    """A way to write an image."""

    def encode(self, images: tf.Tensor) -> tf.Tensor:
        """Return the parameters of images."""

    def decode(self, parameters: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Return the images, (n, *size, channels)."""

    def slots(self, parameters: tf.Tensor) -> Slots:
        """Return what the first step remembers."""

    def stepped(
        self, parameters: tf.Tensor, slots: Slots, gradient: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Return parameters and slots one step uphill; `step` counts from 0."""


@dataclass(frozen=True)
class Pixels:
    """Pixels themselves; a step goes along the gradient and ends at the range's bounds."""

    values: Values
    rate: float  # length of a step, as a share of the range, where the gradient has its mean size

    def encode(self, images: tf.Tensor) -> tf.Tensor:
        """Return the images."""
        return images

    def decode(self, parameters: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Return the images."""
        return parameters

    def slots(self, parameters: tf.Tensor) -> Slots:
        """Return nothing: each step looks at its own gradient alone."""
        return ()

    def stepped(
        self, parameters: tf.Tensor, slots: Slots, gradient: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Return the images one step uphill."""
        low, high = self.values
        return tf.clip_by_value(parameters + self.rate * (high - low) * gradient, low, high), slots


# Columns: light against dark, red against blue, green against magenta; by how much each varies in photographs, after
# a logarithm (Ruderman et al., 1998, "Statistics of cone responses to natural images").
_OPPONENT = np.array([[1, 1, 1], [1, 0, -2], [1, -1, 1]], np.float32) / np.sqrt(np.array([3, 2, 6], np.float32))
_SPREAD = np.array([1.0, 0.4, 0.17], np.float32)


@dataclass(frozen=True)
class Fourier:
    """Frequencies, each scaled by what it holds in photographs, in colours that vary independently of each other.

    Steps are Adam's. A pixel's neighbours move with it, which keeps images from noise smooth without a penalty (Olah et
    al., 2017, "Feature Visualization").
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
        """Return the means of gradients and of their squares, at zero."""
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
    """Return the mean length of the gradient from pixel to pixel of each image, (n,), in the units of its values."""
    # The small number makes the root differentiable where neighbours are equal.
    down = images[:, 1:, :-1] - images[:, :-1, :-1]
    right = images[:, :-1, 1:] - images[:, :-1, :-1]
    return tf.reduce_mean(tf.sqrt(tf.square(down) + tf.square(right) + 1e-8), axis=[1, 2, 3])


def _mixing(channels: int) -> np.ndarray:
    """Return the matrix from independent colours to channels, (channels, channels)."""
    return (_OPPONENT * _SPREAD).astype(np.float32) if channels == 3 else np.eye(channels, dtype=np.float32)


def _scale(size: Sequence[int]) -> tf.Tensor:
    """Return (height, width // 2 + 1, 1): an amplitude that falls with the frequency, as in photographs."""
    height, width = (int(each) for each in size)
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.sqrt(down**2 + right**2), 1 / max(height, width))
    return tf.constant((np.sqrt(height * width) / frequency)[..., None] / 4, tf.float32)
