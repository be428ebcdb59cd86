"""Files of every format, written by plain Keras, h5py, safetensors and TensorFlow rather than by our writers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers
from safetensors.numpy import save_file


def image_model(seed: int = 0) -> keras.Model:
    """Every kind of kernel that a picture meets, and a part of its own."""
    keras.utils.set_random_seed(seed)
    inner_image = keras.Input((8, 8, 4), name="inner_image")
    inner = keras.Model(inner_image, layers.DepthwiseConv2D(3, name="deep")(inner_image), name="body")
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.SeparableConv2D(4, 3, name="split")(inner(x))
    x = layers.LayerNormalization(name="even", center=False)(x)
    x = layers.Dropout(0.2, name="drop")(layers.Flatten(name="flat")(x))
    model = keras.Model(image, layers.Dense(2, name="head", use_bias=False)(x), name="net")
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(rng.random(variable.shape, "float32"))
    return model


def picture() -> np.ndarray:
    return np.random.default_rng(9).normal(size=(2, 8, 8, 3)).astype("float32")


def sharded(folder: Path, tensors: Mapping[str, np.ndarray], *, shards: int = 2) -> Path:
    """Write tensors to several safetensors files and their index, as transformers does."""
    names = list(tensors)
    where = {name: f"model-{index % shards + 1:05}-of-{shards:05}.safetensors" for index, name in enumerate(names)}
    for shard in dict.fromkeys(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    return index


KERAS_2 = {  # as tf.keras 2.4 wrote a Functional model with a nested Sequential
    "class_name": "Functional",
    "config": {
        "name": "model",
        "layers": [
            {
                "class_name": "InputLayer",
                "config": {
                    "batch_input_shape": [None, 6, 6, 3],
                    "dtype": "float32",
                    "sparse": False,
                    "ragged": False,
                    "name": "input_1",
                },
                "name": "input_1",
                "inbound_nodes": [],
            },
            {
                "class_name": "Sequential",
                "config": {
                    "name": "features",
                    "layers": [
                        {
                            "class_name": "InputLayer",
                            "config": {"batch_input_shape": [None, 6, 6, 3], "dtype": "float32", "name": "c1_input"},
                        },
                        {
                            "class_name": "DepthwiseConv2D",
                            "config": {
                                "name": "c1",
                                "trainable": True,
                                "dtype": "float32",
                                "kernel_size": [3, 3],
                                "strides": [1, 1],
                                "padding": "valid",
                                "data_format": "channels_last",
                                "depth_multiplier": 2,
                                "activation": "relu",
                                "use_bias": True,
                            },
                        },
                        {
                            "class_name": "BatchNormalization",
                            "config": {
                                "name": "bn",
                                "trainable": True,
                                "dtype": "float32",
                                "axis": [3],
                                "momentum": 0.99,
                                "epsilon": 0.001,
                                "center": True,
                                "scale": True,
                            },
                        },
                    ],
                },
                "name": "features",
                "inbound_nodes": [[["input_1", 0, 0, {}]]],
            },
            {
                "class_name": "GlobalAveragePooling2D",
                "config": {"name": "pool", "trainable": True, "dtype": "float32", "data_format": "channels_last"},
                "name": "pool",
                "inbound_nodes": [[["features", 1, 0, {}]]],
            },
            {
                "class_name": "Dense",
                "config": {
                    "name": "predictions",
                    "trainable": True,
                    "dtype": "float32",
                    "units": 3,
                    "activation": "softmax",
                    "use_bias": True,
                    "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                    "bias_initializer": {"class_name": "Zeros", "config": {}},
                },
                "name": "predictions",
                "inbound_nodes": [[["pool", 0, 0, {}]]],
            },
        ],
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [["predictions", 0, 0]],
    },
}
KERAS_2_WEIGHTS: dict[str, dict[str, tuple[int, ...]]] = {  # group -> weight names, in their order
    "input_1": {},
    "features": {
        "c1/depthwise_kernel:0": (3, 3, 3, 2),
        "c1/bias:0": (6,),
        "bn/gamma:0": (6,),
        "bn/beta:0": (6,),
        "bn/moving_mean:0": (6,),
        "bn/moving_variance:0": (6,),
    },
    "pool": {},
    "predictions": {"predictions/kernel:0": (6, 3), "predictions/bias:0": (3,)},
}


def keras_2(path: Path, *, config: Mapping[str, Any] | None = KERAS_2) -> dict[str, np.ndarray]:
    """Write the file that Keras 2's `model.save("x.h5")` (or `save_weights`) wrote; return arrays by weight name."""
    rng = np.random.default_rng(5)
    written = {}
    with h5py.File(path, "w") as file:
        root = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            root = file.create_group("model_weights")
        for where in {file, root}:
            where.attrs["keras_version"] = b"2.4.0"
            where.attrs["backend"] = b"tensorflow"
        root.attrs["layer_names"] = [layer.encode() for layer in KERAS_2_WEIGHTS]
        for layer, weights in KERAS_2_WEIGHTS.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, shape in weights.items():
                written[name] = rng.random(shape, "float32")
                group.create_dataset(name, data=written[name])
        if config is not None:
            slots = file.create_group("optimizer_weights")
            slots.create_dataset("Adam/c1/depthwise_kernel/m:0", data=np.zeros((3, 3, 3, 2), "float32"))
    return written
