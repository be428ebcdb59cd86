"""What a model calls from several places is one in every copy, edit and file of it, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.graph.functional import SurgeryError
from nameplate.io.save import SavingError
from tests.nameplate.graph.test_equivalence import CLASSES, COPIES, known
from tests.nameplate.naming_models import example


@known
class Tied(layers.Layer):
    """An embedding that is called the other way round too, as KerasHub's ReversibleEmbedding."""

    def __init__(self, count: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count, self.width = count, width

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(self.count, self.width), name="table")

    def call(self, x: Any, reverse: bool = False) -> Any:
        return keras.ops.matmul(x, keras.ops.transpose(self.table)) if reverse else keras.ops.take(self.table, x, 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "width": self.width}


@known
class Backbone(keras.Model):
    """A functional subclass that makes its layers in its constructor, as KerasHub's do."""

    def __init__(self, count: int, width: int, depth: int, name: str | None = None, **kwargs: Any) -> None:
        table = Tied(count, width, name="tokens")
        ids = keras.Input((None,), dtype="int32", name="ids")
        x = table(ids)
        for place in range(depth):
            y = layers.MultiHeadAttention(2, width // 2, name=f"attend{place}")(x, x, use_causal_mask=True)
            x = layers.LayerNormalization(name=f"norm{place}")(layers.Add(name=f"add{place}")([x, y]))
        super().__init__(inputs=ids, outputs=x, name=name, **kwargs)
        self.table = table
        self.count, self.width, self.depth = count, width, depth

    def get_config(self) -> dict[str, Any]:
        sizes = {"count": self.count, "width": self.width, "depth": self.depth}
        return {"name": self.name, "trainable": self.trainable, **sizes}


@known
class CausalLM(keras.Model):
    """A language model whose head is its backbone's embedding."""

    def __init__(self, backbone: keras.Model, name: str | None = None, **kwargs: Any) -> None:
        outputs = backbone.table(backbone(backbone.input), reverse=True)
        super().__init__(inputs=backbone.input, outputs=outputs, name=name, **kwargs)
        self.backbone = backbone

    def get_config(self) -> dict[str, Any]:
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {"name": self.name, "trainable": self.trainable, "backbone": backbone}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        return cls(**{**config, "backbone": keras.saving.deserialize_keras_object(config["backbone"])})


def wrapped_and_alone() -> keras.Model:
    image, dense = keras.Input((5, 4), name="image"), layers.Dense(4, name="dense4")
    x = layers.TimeDistributed(dense, name="each")(dense(image))
    x = layers.TimeDistributed(dense, name="again")(x)
    return keras.Model(image, layers.ReLU(name="end")(x), name="net")


def wrapped_before_alone() -> keras.Model:
    image, dense = keras.Input((5, 4), name="image"), layers.Dense(4, name="dense4")
    x = dense(layers.TimeDistributed(dense, name="each")(image))
    return keras.Model(image, layers.ReLU(name="end")(x), name="net")


def tied_graph() -> keras.Model:
    """The head is plain functional, the backbone a class that makes the embedding."""
    backbone = Backbone(7, 4, 1, name="backbone")
    ids = keras.Input((None,), dtype="int32", name="words")
    hidden = layers.Identity(name="end")(backbone(ids))
    return keras.Model(ids, backbone.table(hidden, reverse=True), name="lm")


def causal_lm() -> keras.Model:
    return CausalLM(Backbone(7, 4, 2, name="backbone"), name="lm")


def tower_and_part() -> keras.Model:
    """A layer that lies in a nested graph and is called outside it too."""
    x, dense = keras.Input((4,), name="x"), layers.Dense(4, name="dense4")
    tower = keras.Model(x, layers.ReLU(name="act")(dense(x)), name="tower")
    image = keras.Input((4,), name="image")
    return keras.Model(image, layers.ReLU(name="end")(dense(tower(image))), name="net")


TIED = [wrapped_and_alone, wrapped_before_alone, tied_graph, causal_lm, tower_and_part]
EDITS: dict[str, Callable[[keras.Model], keras.Model]] = {
    **{key: COPIES[key] for key in ("rename", "prefixed", "apply", "join")},
    "insert": lambda model: nameplate.insert(
        model, layers.Identity(name="more"), after="end", policy="off", report=lambda _: None
    ),
    "extract": lambda model: nameplate.extract(model, last(model)),
    "flatten": nameplate.flatten,
}


def last(model: keras.Model) -> str:
    """Return the name of the layer that gives the output."""
    return next(name for name, layer in nameplate.layers(model).items() if layer is model.operations[-1])


def indices(model: keras.Model) -> Any:
    if "int" in model.inputs[0].dtype:
        return np.random.default_rng(0).integers(0, 7, (2, 3))
    return example(model)


CODED = [(causal_lm, "insert"), (causal_lm, "extract"), (causal_lm, "flatten"), (tied_graph, "extract")]


@pytest.mark.parametrize("verb", EDITS)
@pytest.mark.parametrize("make", TIED, ids=[make.__name__ for make in TIED])
def test_c2_what_is_shared_stays_shared(make: Any, verb: str) -> None:
    keras.utils.set_random_seed(1)
    model = make()
    if (make, verb) in CODED:
        with pytest.raises(SurgeryError, match=r"its code|the (code|constructor) of|has no graph|no layer 'end'"):
            EDITS[verb](model)
        return
    edited = EDITS[verb](model)

    assert len(edited.weights) == len(model.weights)
    assert not {id(each) for each in edited.variables} & {id(each) for each in model.variables}
    outputs = edited(indices(model))
    assert np.allclose(model(indices(model)), outputs, rtol=1e-6, atol=1e-6)  # flattened, a graph may add otherwise
    edited.weights[0].assign(edited.weights[0] * 2.0)
    model.weights[0].assign(model.weights[0] * 2.0)
    assert np.allclose(model(indices(model)), edited(indices(model)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [wrapped_and_alone, wrapped_before_alone, causal_lm])
def test_c2_what_is_shared_comes_back_shared_from_a_file_for_plain_keras_too(make: Any, tmp_path: Path) -> None:
    model = make()
    nameplate.save(model, tmp_path / "m.keras")

    for loaded in (
        nameplate.load(tmp_path / "m.keras", custom_objects=CLASSES),
        keras.saving.load_model(tmp_path / "m.keras", custom_objects=CLASSES),
    ):
        assert len(loaded.weights) == len(model.weights)
        assert np.array_equal(model(indices(model)), loaded(indices(model)))


@pytest.mark.parametrize("make", [tied_graph, tower_and_part])
def test_c2_what_no_file_holds_as_one_is_not_saved_as_two(make: Any, tmp_path: Path) -> None:
    with pytest.raises(SavingError, match=r"called in '(lm|net)' and '(backbone|tower)'"):
        nameplate.save(make(), tmp_path / "m.keras")
    nameplate.save(make(), tmp_path / "m.safetensors")


def test_c2_a_given_layer_that_holds_one_of_the_model_is_refused() -> None:
    model = wrapped_and_alone()
    other = layers.TimeDistributed(model.get_layer("dense4"), name="more")
    with pytest.raises(SurgeryError, match="is the variable dense4/kernel, another one after it"):
        nameplate.insert(model, other, after="end", verify=False)


def test_c2_half_of_the_calls_of_a_layer_is_not_replaced() -> None:
    with pytest.raises(SurgeryError, match="'dense4' is shared: a TimeDistributed"):
        nameplate.replace(wrapped_and_alone(), {"dense4": layers.Dense(4, name="fresh")})


def test_c2_what_is_shared_stays_shared_on_two_replicas(strategy: Any, tmp_path: Path) -> None:
    with strategy.scope():
        model = wrapped_and_alone()
        for verb in ("rename", "insert"):
            edited = EDITS[verb](model)
            assert len(edited.weights) == len(model.weights)
            assert all(type(each._value) is type(model.weights[0]._value) for each in edited.weights)
            assert np.allclose(model(indices(model)), edited(indices(model)), rtol=1e-6, atol=1e-6)
        nameplate.save(model, tmp_path / "m.keras")
        assert len(nameplate.load(tmp_path / "m.keras").weights) == len(model.weights)
