"""Adapters, quantized layers, and variables that several layers hold: edited, saved and read back by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.io.save import SavingError

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def dense(*, bias: bool = True) -> keras.Model:
    """Return a model with a square kernel, of which nothing tells by its shape what it is."""
    keras.utils.set_random_seed(1)
    image = keras.Input((4,), name="image")
    x = layers.Dense(4, use_bias=bias, name="hidden")(image)
    return keras.Model(image, layers.Dense(4, use_bias=bias, name="logits")(x), name="net")


def lora() -> keras.Model:
    model = dense()
    layer = model.get_layer("hidden")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.random.default_rng(1).normal(size=layer.lora_kernel_b.shape))
    return model


def lora_embedding() -> keras.Model:
    keras.utils.set_random_seed(1)
    ids = keras.Input((3,), dtype="int32", name="ids")
    layer = layers.Embedding(5, 4, name="table")
    model = keras.Model(ids, layers.Dense(2, name="logits")(layer(ids)), name="net")
    layer.enable_lora(2)
    layer.lora_embeddings_b.assign(np.random.default_rng(1).normal(size=layer.lora_embeddings_b.shape))
    return model


def quantized(mode: str, *, bias: bool = True, adapter: bool = False) -> keras.Model:
    model = lora() if adapter else dense(bias=bias)
    for layer in model.layers[1:]:
        layer.quantize(mode)
    for layer in model.layers[1:] if bias else []:
        layer.bias.assign(np.random.default_rng(2).normal(size=layer.bias.shape))
    return model


def spectral() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((4,), name="image")
    x = layers.SpectralNormalization(layers.Dense(4, name="inner"), name="spectral")(image)
    return keras.Model(image, layers.Dense(2, name="logits")(x), name="net")


class Holds(layers.Layer):
    """A container that tracks a variable of what it contains."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = layers.LayerNormalization(name="norm")

    def build(self, shape: Any) -> None:
        self.norm.build(shape)
        self.gain = self.norm.gamma
        self.more = self.add_weight(shape=(4,), name="more", initializer="ones")

    def call(self, x: Any) -> Any:
        return self.norm(x) * self.more


def holds() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((4,), name="image")
    model = keras.Model(image, layers.Dense(2, name="logits")(Holds(name="holds")(image)), name="net")
    for place, variable in enumerate(model.get_layer("holds").weights):
        variable.assign(np.full(4, place + 2.0))
    return model


MODELS: dict[str, Callable[[], keras.Model]] = {
    "lora": lora,
    "lora_embedding": lora_embedding,
    "int8": lambda: quantized("int8"),
    "int8_without_bias": lambda: quantized("int8", bias=False),
    "int4": lambda: quantized("int4"),
    "int8_lora": lambda: quantized("int8", adapter=True),
    "spectral": spectral,
    "holds": holds,
}


def data(model: keras.Model) -> Any:
    return X if model.inputs[0].dtype == "float32" else np.array([[0, 1, 4]])


def same(one: keras.Model, other: keras.Model) -> bool:
    ours, theirs = nameplate.read(one), nameplate.read(other)
    return list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_d2_every_copy_and_verified_edit_keeps_it(make: Any) -> None:
    model = make()
    renamed = nameplate.rename(model, {"logits": "answers"})
    edited = nameplate.insert(model, layers.Identity(name="end"), after="logits", report=lambda _: None)

    assert np.array_equal(model(data(model)), renamed(data(model)))
    assert np.array_equal(model(data(model)), edited(data(model)))
    assert same(model, edited)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_d2_c8_a_file_gives_every_variable_back_by_its_name(make: Any, tmp_path: Path) -> None:
    model = make()
    nameplate.save(model, tmp_path / "m.keras")
    loaded = nameplate.load(tmp_path / "m.keras", custom_objects={"Holds": Holds})
    plain = keras.saving.load_model(tmp_path / "m.keras", custom_objects={"Holds": Holds})

    assert same(model, loaded)
    assert np.array_equal(model(data(model)), loaded(data(model)))
    assert np.allclose(
        model(data(model)), plain(data(model)), rtol=0.1, atol=0.1 if make is MODELS["int8_lora"] else 1e-5
    )


@pytest.mark.parametrize("name", [name for name in MODELS if name != "int8_lora"])
def test_d2_c8_weights_alone_are_read_by_name_into_another_model(name: str, tmp_path: Path) -> None:
    model, other = MODELS[name](), MODELS[name]()
    nameplate.save(model, tmp_path / "m.weights.h5")
    for variable in other.variables:
        if not variable.name.startswith("lora_"):
            variable.assign(keras.ops.zeros_like(variable.value))
    nameplate.load_weights(other, tmp_path / "m.weights.h5")

    assert np.allclose(model(data(model)), other(data(model)), rtol=1e-5, atol=1e-5)  # a kernel with its adapter added
    if not name.startswith("lora"):
        assert same(model, other)


def test_d2_an_adapter_learns_on_after_it_was_merged(tmp_path: Path) -> None:
    model = lora()
    nameplate.save(model, tmp_path / "m.weights.h5")
    nameplate.load_weights(model, tmp_path / "m.weights.h5")
    layer = model.get_layer("hidden")

    assert not np.any(layer.lora_kernel_b.numpy())
    assert np.any(layer.lora_kernel_a.numpy())  # Keras sets it to zero too, and neither has a gradient any more


def test_d2_what_a_file_would_round_once_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavingError, match=r"quantized kernels once more: hidden\. Save a .keras"):
        nameplate.save(quantized("int8", adapter=True), tmp_path / "m.weights.h5")
    assert not list(tmp_path.iterdir())


def test_d2_quantized_variables_are_named_without_a_model(tmp_path: Path) -> None:
    nameplate.save(quantized("int8", bias=False), tmp_path / "m.weights.h5")
    nameplate.save(quantized("int8"), tmp_path / "m.keras")

    assert sorted(nameplate.load(tmp_path / "m.weights.h5", only=["hidden"])) == [
        "hidden/kernel",
        "hidden/kernel_scale",
    ]
    with_bias = ["hidden/bias", "hidden/kernel", "hidden/kernel_scale"]
    assert sorted(nameplate.load(tmp_path / "m.keras", only=["hidden"])) == with_bias


def test_c8_one_variable_under_two_names_with_two_values_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    model = holds()
    nameplate.save(model, tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5", "r+") as file:
        name = next(place for place in _places(file) if place.endswith("norm/vars/0"))
        file[name][...] = 9.0

    with pytest.raises(nameplate.NameplateError, match="nothing was written"):
        nameplate.load_weights(model, tmp_path / "m.weights.h5")


def _places(file: Any) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return found


def augmented() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.RandomRotation(0.3, name="turn")(layers.RandomFlip(name="flip")(image))
    return keras.Model(image, layers.Dense(2, name="logits")(layers.Flatten(name="flat")(x)), name="net")


@pytest.mark.parametrize("shared", [False, True])
def test_d2_models_with_random_augmentation_are_joined_and_ensembled(shared: bool) -> None:
    model = augmented()
    joined = nameplate.join({"one": model, "two": model}, shared=shared)

    assert len(joined.weights) == len(model.weights) * (1 if shared else 2)
    assert len(nameplate.ensemble({"one": model, "two": augmented()}).weights) == 2 * len(model.weights)


def test_d2_adapters_and_quantized_layers_come_back_on_two_replicas(strategy: Any, tmp_path: Path) -> None:
    with strategy.scope():
        for make in (lora, MODELS["int8"]):
            model = make()
            nameplate.save(model, tmp_path / "m.keras")
            assert same(model, nameplate.load(tmp_path / "m.keras"))
            nameplate.save(model, tmp_path / "m.weights.h5")
            nameplate.load_weights(model, tmp_path / "m.weights.h5")
