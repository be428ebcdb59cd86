"""Activations of named layers for an image, and where a class is seen in it (Grad-CAM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from nameplate.arguments import checked
from nameplate.interpret.ascent import resized
from nameplate.interpret.image_files import maps_sheet
from nameplate.interpret.layer_outputs import WHOLE, Cut, flat, matching
from nameplate.interpret.measures import logits
from nameplate.interpret.objectives import ObjectiveError
from nameplate.interpret.settings import Settings

Values = tuple[float, float]


@checked
def look(
    model: keras.Model,
    image: np.ndarray,
    layers: str | Sequence[str] = "*",
    *,
    most: int = 16,
    values: Values = (0.0, 1.0),
    inputs: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Return the activations of named layers as a grid, uint8 (height, width, 3): a row a layer, a cell a channel.

    Args:
        model: any Keras model with an input for images.
        image: (height, width, channels), uint8, or float in the range `values`.
        layers: qualified names, with `*` and `?` for many.
        most: number of channels shown of a layer: those with the largest variance over the image.
        values: the lowest and highest pixel that the model expects.
        inputs: a value for every other input of the model, by name.

    Raises:
        ObjectiveError: names that match no layer, with the nearest; an image that the model cannot take.
    """
    if most < 1:
        raise ObjectiveError(f"most={most}: at least 1 channel of each layer")
    maps = activations(model, image, layers, values=values, inputs=inputs)
    return maps_sheet({f"{name}  {values.shape}": values for name, values in maps.items()}, most=most)


def activations(
    model: keras.Model,
    image: np.ndarray,
    layers: str | Sequence[str] = "*",
    *,
    values: Values = (0.0, 1.0),
    inputs: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return the outputs of named layers for one image, float32 (positions..., channels) by name, in build order.

    Layers that are not run, and those with several output tensors, are skipped. Raises as `look` does.
    """
    names = matching(model, [layers] if isinstance(layers, str) else layers)
    cut = Cut(model, names, inputs=inputs)
    outputs = cut.reached(tf.constant(_in_range(image, cut, values)[None]))
    single = {name: output for name, output in outputs.items() if len(keras.tree.flatten(output)) == 1}
    return {name: np.asarray(flat(output, name)[0]) for name, output in single.items()}


@checked
def saliency(
    model: keras.Model,
    image: np.ndarray,
    number: int,
    *,
    at: str,
    output: str | None = None,
    values: Values = (0.0, 1.0),
    inputs: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Return where a layer sees a class: Grad-CAM (Selvaraju et al., 2016), (height, width) from 0 to 1.

    Args:
        model: a classifier with an input for images.
        image: (height, width, channels), uint8, or float in the range `values`.
        number: the class, from 0.
        at: the qualified name of a layer with maps, (height, width, channels): usually the last convolution.
        output: name of the output with the classes; None: the only one.
        values: the lowest and highest pixel that the model expects.
        inputs: a value for every other input of the model, by name.

    Raises:
        ObjectiveError: an unknown layer or class, or a layer without maps.
    """
    cut = Cut(model, [at, WHOLE], inputs=inputs)
    pixels = tf.constant(_in_range(image, cut, values)[None])
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        outputs = cut(pixels)
        maps = outputs[at]
        scores = logits(model, outputs[WHOLE], output)
        if len(keras.tree.flatten(maps)) != 1 or len(maps.shape) != 4:
            shape = [tuple(tensor.shape) for tensor in keras.tree.flatten(maps)]
            raise ObjectiveError(f"{at!r} outputs {shape}; Grad-CAM needs maps (n, height, width, channels)")
        if not 0 <= number < scores.shape[-1]:
            raise ObjectiveError(
                f"there are {scores.shape[-1]} classes, 0 to {scores.shape[-1] - 1}; there is no {number}"
            )
        score = tf.reduce_mean(scores[..., number])
    gradient = tape.gradient(score, maps, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    weights = tf.reduce_mean(tf.cast(gradient, tf.float32), axis=[1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * tf.cast(maps, tf.float32), axis=-1, keepdims=True))
    heat = np.clip(np.asarray(resized(heat, pixels.shape[1:3]))[0, ..., 0], 0, None)
    highest = float(heat.max())
    return heat / highest if highest > 0 else heat


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return uint8 pixels (height, width, 1 or 3) in grey under the heat (height, width), from blue to red."""
    grey = pixels.astype(np.float32).mean(axis=-1, keepdims=True)
    strength = heat[..., None].astype(np.float32)
    colour = np.stack([_bump(heat, 1.0), _bump(heat, 0.6), _bump(heat, 0.25)], axis=-1) * 255
    share = 0.65 * np.sqrt(strength)
    return np.round(np.clip((1 - share) * grey + share * colour, 0, 255)).astype(np.uint8)


def _bump(heat: np.ndarray, middle: float) -> np.ndarray:
    return np.clip(1.25 - 2.2 * np.abs(heat - middle), 0, 1)


def _in_range(image: np.ndarray, cut: Cut, values: Values) -> np.ndarray:
    pixels = Settings(values=values).in_range(np.asarray(image))
    if pixels.ndim != 3 or pixels.shape[-1] != cut.port.shape[-1]:
        raise ObjectiveError(
            f"an image for {cut.model.name!r} has the shape (height, width, {cut.port.shape[-1]}), not {pixels.shape}"
        )
    return pixels
