"""The value of an objective: one number for each image, so that no image of a batch depends on another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from nameplate.engine import private
from nameplate.graph import tree
from nameplate.interpret.layer_outputs import WHOLE, Cut, flat
from nameplate.interpret.objectives import (
    Channel,
    ClassLogit,
    Content,
    Direction,
    Layer,
    Neuron,
    Numbers,
    Objective,
    ObjectiveError,
    Style,
    Term,
)
from nameplate.naming.names import did_you_mean


def wanted(objective: Objective) -> tuple[str, ...]:
    """Return the layers that an objective measures; `WHOLE` for the model's outputs."""
    whole = any(isinstance(term, ClassLogit) for _, term in objective.terms)
    return (*objective.layers, *((WHOLE,) if whole else ()))


def measure(
    objective: Objective,
    cut: Cut,
    images: tf.Tensor,
    *,
    numbers: tf.Tensor,
    contents: tf.Tensor | None = None,
    styles: Mapping[int, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Return the objective of each image, (n,).

    Args:
        objective: the terms to add up.
        cut: the model up to the objective's layers.
        images: (n, height, width, channels), in the model's range.
        numbers: (n,) integers, the place of each image in the whole batch and so in a term's list.
        contents: the references of the Content terms in their order, (terms, height, width, channels).
        styles: the correlations of each Style term's reference, by the term's place.

    Raises:
        ObjectiveError: a channel, class or position that the layer does not have.
    """
    size = tf.shape(images)[0]
    outputs = cut(images if contents is None else tf.concat([images, contents], axis=0))
    total = tf.zeros([size])
    content = 0
    for place, (factor, term) in enumerate(objective.terms):
        if isinstance(term, ClassLogit):
            number: Any = term.number  # a number: `objectives.numbered` has replaced names
            value = _chosen(logits(cut.model, outputs[WHOLE], term.output)[:size], number, numbers, "the output")
        elif isinstance(term, Content):
            output = flat(outputs[term.name], term.name)
            value = -_mean(tf.square(output[:size] - output[size + content][None]))
            content += 1
        elif isinstance(term, Style):
            assert styles is not None
            value = -_mean(tf.square(correlations(flat(outputs[term.name], term.name)[:size]) - styles[place]))
        else:
            value = _value(term, flat(outputs[term.name], term.name)[:size], numbers)
        total += factor * value
    return total


def correlations(output: tf.Tensor) -> tf.Tensor:
    """Return the mean product of every two channels over all positions, (n, channels, channels)."""
    positions = tf.reshape(output, [tf.shape(output)[0], -1, output.shape[-1]])
    count = tf.cast(tf.shape(positions)[1], tf.float32)
    return tf.matmul(positions, positions, transpose_a=True) / count


def logits(model: keras.Model, outputs: Any, name: str | None) -> tf.Tensor:
    """Return an output before its softmax or sigmoid, float32."""
    known = tree.output_names(model)
    by_name = (
        dict(outputs) if isinstance(outputs, Mapping) else dict(zip(known, keras.tree.flatten(outputs), strict=False))
    )
    if not by_name:
        by_name = {"output": outputs}
    if name is None and len(by_name) > 1:
        raise ObjectiveError(
            f"{model.name!r} has outputs {', '.join(by_name)}; name one, as in class_logit(3, {known[0]!r})"
        )
    if name is not None and name not in by_name:
        raise ObjectiveError(
            f"{model.name!r} has no output {name!r}.{did_you_mean(name, by_name)} It has {', '.join(by_name)}"
        )
    return tf.cast(private.logits(next(iter(by_name.values())) if name is None else by_name[name]), tf.float32)


def _value(term: Term, output: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    match term:
        case Layer():
            return _mean(tf.square(output))
        case Channel(name, number):
            return _chosen(output, number, numbers, name)
        case Neuron(name, number, at):
            return _chosen(_position(output, at, name), number, numbers, name)
        case Direction(name, vector):
            if output.shape[-1] != len(vector):
                raise ObjectiveError(
                    f"{name!r} has {output.shape[-1]} channels, and the direction {len(vector)} numbers"
                )
            return _mean(tf.tensordot(output, tf.constant(vector, tf.float32), 1)[..., None])
    raise ObjectiveError(f"{term} cannot be measured")


def _mean(output: tf.Tensor) -> tf.Tensor:
    """Return the mean of each image's numbers, (n,)."""
    return tf.reduce_mean(tf.reshape(output, [tf.shape(output)[0], -1]), axis=1)


def _chosen(output: tf.Tensor, number: Numbers, numbers: tf.Tensor, name: str) -> tf.Tensor:
    """Return a channel's mean over positions; if `number` is a tuple, each image has its own channel."""
    channels = output.shape[-1]
    chosen = number if isinstance(number, tuple) else (number,)
    if unknown := [channel for channel in chosen if channel >= channels]:
        raise ObjectiveError(f"{name} has {channels} channels, 0 to {channels - 1}; there is no {unknown[0]}")
    positions = tf.reshape(output, [tf.shape(output)[0], -1, channels])
    if not isinstance(number, tuple):
        return tf.reduce_mean(positions[..., number], axis=1)
    return tf.gather(tf.reduce_mean(positions, axis=1), tf.gather(tf.constant(number), numbers), batch_dims=1)


def _position(output: tf.Tensor, at: tuple[int, ...] | None, name: str) -> tf.Tensor:
    """Return one position's channels, (n, channels)."""
    sizes = output.shape[1:-1]
    place = [size // 2 for size in sizes] if at is None else list(at)
    if len(place) != len(sizes) or any(not 0 <= index < size for index, size in zip(place, sizes, strict=False)):
        raise ObjectiveError(f"{name!r} has positions {tuple(sizes)}; there is no {tuple(place)}")
    for index in place:
        output = output[:, index]
    return output
