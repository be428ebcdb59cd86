"""Images: decoded to arrays of one size, many at a time; and augmented."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from nameplate.data.config import DataConfig
from nameplate.data.dataset import Field
from nameplate.data.errors import CLOSE, OPEN, DataError, refuse
from nameplate.data.specs import augment_step, is_layer
from nameplate.errors import cause
from nameplate.graph import keras_private
from nameplate.naming.names import snake

FORMATS = "JPEG, PNG, BMP and GIF can be read"

Read = Callable[[tf.Tensor], tf.Tensor]  # one item to the bytes of an image, both scalars
NamesOf = Callable[[tf.Tensor], tf.Tensor]  # positions (k,) among the items to names for a message (k,)


def decode_all(items: tf.Tensor, *, read: Read, names_of: NamesOf, shape: tuple[int, int, int]) -> tf.Tensor:
    """Return the images of `items` (n,), decoded in parallel and resized: float32 (n, *shape) in 0..1.

    A nested pipeline decodes as fast as `tf.map_fn` with parallel iterations, and it can skip what it cannot decode:
    the skipped items are named in the error. The decoding operations do not know their names.
    """
    count = tf.size(items, out_type=tf.int64)

    def decode(position: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return position, decode_one(read(item), shape)

    decoded = tf.data.Dataset.from_tensor_slices((tf.range(count), items))
    decoded = decoded.map(decode, num_parallel_calls=os.cpu_count(), deterministic=True)
    batch = decoded.ignore_errors(log_warning=False).batch(tf.maximum(count, 1))
    empty = tf.data.Dataset.from_tensors((tf.zeros([0], tf.int64), tf.zeros([0, *shape])))
    positions, images = batch.concatenate(empty).take(1).get_single_element()
    with tf.control_dependencies([_all_decoded(count, positions, names_of)]):
        return tf.ensure_shape(images, [items.shape[0], *shape])


def decode_one(content: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Return one image (JPEG, PNG, BMP, the first frame of a GIF) as float32 `shape` in 0..1."""
    height, width, channels = shape
    # The decoders of GIF and BMP refuse any number of channels other than the file's own.
    convertible = tf.io.is_jpeg(content) | (tf.strings.substr(content, 0, 4) == b"\x89PNG")
    pixels = tf.cond(
        convertible,
        lambda: tf.io.decode_image(content, channels=channels, expand_animations=False),
        lambda: _with_channels(tf.io.decode_image(content, expand_animations=False), channels),
    )
    pixels = tf.ensure_shape(pixels, [None, None, channels])
    return tf.image.resize(pixels, [height, width]) / 255.0


def _with_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """Return uint8 (height, width, 1, 3 or 4) with 1 or 3 channels; an alpha channel is dropped."""
    colours = tf.cond(
        tf.shape(pixels)[2] < 3,
        lambda: tf.repeat(pixels[..., :1], 3, axis=2),
        lambda: pixels[..., :3],
    )
    colours = tf.ensure_shape(colours, [None, None, 3])
    return colours if channels == 3 else tf.image.rgb_to_grayscale(colours)


def _all_decoded(count: tf.Tensor, positions: tf.Tensor, names_of: NamesOf) -> tf.Operation:
    """Fail with the names of the items that were not decoded, at most ten."""
    decoded = tf.scatter_nd(positions[:, None], tf.ones_like(positions), count[None])
    damaged = tf.boolean_mask(tf.range(count), decoded == 0)
    names = tf.strings.reduce_join(names_of(damaged[:10]), separator="\n  ")
    number = tf.strings.as_string(tf.size(damaged))
    message = tf.strings.join([OPEN, number, f" damaged or missing images ({FORMATS}):\n  ", names, CLOSE])
    # The raw operation, because the Python wrapper formats the message differently when it runs eagerly.
    return tf.raw_ops.Assert(condition=tf.size(damaged) == 0, data=[message], summarize=1)


LAYERS: dict[str, Callable[..., Any]] = {
    "flip": lambda _, **options: keras.layers.RandomFlip("horizontal", **options),
    "flip_vertical": lambda _, **options: keras.layers.RandomFlip("vertical", **options),
    "shift": lambda most, **options: keras.layers.RandomTranslation(most, most, fill_mode="constant", **options),
    "rotate": lambda most, **options: keras.layers.RandomRotation(most, fill_mode="constant", **options),
    "zoom": lambda most, **options: keras.layers.RandomZoom(most, fill_mode="constant", **options),
    "brightness": lambda most, **options: keras.layers.RandomBrightness(most, value_range=(0, 1), **options),
    "contrast": lambda most, **options: keras.layers.RandomContrast(most, value_range=(0, 1), **options),
}


Make = Callable[[str, Any, Mapping[str, Any]], keras.Layer]  # key, value and offered arguments of a layer


def augmentation(
    config: DataConfig, inputs: Mapping[str, Field], *, seed: int = 0, make: Make | None = None
) -> keras.Sequential | None:
    """Return the layers of `data.augment` as one model named `augmentation`, or None if there are none.

    Called with `training=True` on a batch of images (n, height, width, channels) with values in 0..1, it changes each
    image differently; apply it to each of `image_inputs`. Its layers are named `augment_flip` and so on, and draw from
    `seed`. Build it inside the strategy's scope. `make` makes the layers that are named by their classes.

    Raises:
        DataError: augmentations are asked for, but no input is an image; or a layer that trains or changes shapes.
    """
    if not config.augment:
        return None
    if not image_inputs(inputs):
        shapes = ", ".join(f"{name} {field.shape}" for name, field in inputs.items())
        refuse([f"data.augment={list(config.augment)} changes images, but no input is one: {shapes}"])
    layers: list[keras.Layer] = []
    problems: list[str] = []
    for place, item in enumerate(config.augment):
        if is_layer(item):
            key = f"data.augment[{place}]"
            layer = _layer(key, item, seed + place, make, taken={layer.name for layer in layers})
            problems += _unusable(key, layer, [inputs[name].shape for name in image_inputs(inputs)])
        else:
            name, amount = augment_step(item)
            layer = LAYERS[name](amount, seed=seed + place, name=f"augment_{name}")
        layers.append(layer)
    refuse(problems)
    return keras.Sequential(layers, name="augmentation")


def _layer(key: str, item: Any, seed: int, make: Make | None, *, taken: Collection[str]) -> keras.Layer:
    """Return a layer that an item names, called after its class: `augment_random_erasing`."""
    if make is None:
        raise DataError(f"{key}: {item!r:.80} is a layer that only a configured run makes")
    layer = make(key, item, {"seed": seed, "value_range": (0, 1)})
    own = f"augment_{snake(type(layer).__name__)}"
    tries = itertools.chain([own], (f"{own}_{number}" for number in itertools.count(2)))
    name = next(name for name in tries if name not in taken)
    keras_private.rename_layer(layer, name, name)
    return layer


def _unusable(key: str, layer: keras.Layer, shapes: Iterable[tuple[int | None, ...]]) -> Iterator[str]:
    """Yield why a layer cannot augment images of these shapes."""
    kind = type(layer).__name__
    for shape in shapes:
        try:
            made = tuple(layer(keras.KerasTensor((None, *shape), "float32"), training=True).shape[1:])
        except Exception as error:  # a layer of one's own may raise anything
            yield f"{key}: {kind} does not take images {shape}: {cause(error)}"
            return
        if made != shape:
            yield f"{key}: {kind} makes images {made} of {shape}; an augmentation keeps their shape"
    if layer.trainable_variables:
        yield f"{key}: {kind} has weights to train, and nothing trains an augmentation; put it into the model"


def image_inputs(inputs: Mapping[str, Field]) -> list[str]:
    """Return the names of the inputs that are images: (height, width, 1 or 3 or 4 channels)."""
    return [name for name, field in inputs.items() if len(field.shape) == 3 and field.shape[2] in (1, 3, 4)]
