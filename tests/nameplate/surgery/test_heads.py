"""A head on a backbone: named as the backbone is written, under the names that targets have, all else as it was."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.arguments import ArgumentError
from nameplate.errors import NameplateError
from nameplate.surgery.heads import HeadError, convention_of
from tests.nameplate.naming_models import functional, keyed, subclassed, unbuilt


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["stem_conv", "stage1_conv1", "stage2_conv1"], "label_hidden2"),
        (["block_1_conv", "block_2_conv", "stem"], "label_hidden_2"),
        (["stem.conv", "stage1.conv1"], "label.hidden2"),
        (["Stem-Conv", "Stage1-Conv"], "label-Hidden2"),
        (["STEM_CONV", "STAGE_1"], "label_HIDDEN_2"),
        (["stemConv", "stageConv1", "poolLast"], "labelHidden2"),
        (["a", "b"], "label_hidden2"),
        ([], "label_hidden2"),
    ],
)
def test_words_and_numbers_are_joined_as_in_most_of_the_names(written: list[str], expected: str) -> None:
    assert convention_of(written).name("label", "hidden", number=2) == expected


def convolutional(separator: str = "_") -> keras.Model:
    """Return a small backbone with its old classifier."""
    x = image = keras.Input((8, 8, 1), name="image")
    for stage in (1, 2):
        x = layers.Conv2D(4, 3, name=f"stage{stage}{separator}conv")(x)
    x = layers.Flatten(name=f"old{separator}flat")(x)
    return keras.Model(image, layers.Dense(5, name="old")(x), name="net")


def test_a_head_takes_the_place_of_the_old_one_and_the_rest_stays_bit_for_bit(strategy: Any) -> None:
    backbone = convolutional(".")
    with strategy.scope():
        model = nameplate.attach(
            backbone, {"breed": 7, "age": 1}, after="stage2.conv", hidden=[16, 8], dropout=0.2, name="pets"
        )

    assert [name for name in nameplate.layers(model) if name.startswith("breed")] == [
        "breed.pool",
        "breed.hidden1",
        "breed.hidden2",
        "breed.drop",
        "breed",
    ]
    assert "old" not in nameplate.layers(model)
    assert {name: tuple(each.shape) for name, each in model.output.items()} == {"breed": (None, 7), "age": (None, 1)}
    old, new = nameplate.read(backbone), nameplate.read(model)
    for name in ("stage1.conv/kernel", "stage2.conv/bias"):
        assert new[name].tobytes() == old[name].tobytes()
    assert all(len(each._value.values) == 2 for each in model.weights)
    assert list(nameplate.layers(backbone)) == ["image", "stage1.conv", "stage2.conv", "old.flat", "old"]


def test_the_result_trains_is_saved_and_takes_the_backbone_s_weights_by_name(tmp_path: Any) -> None:
    backbone = convolutional()
    model = nameplate.attach(backbone, {"label": 3}, after="stage2_conv")
    nameplate.save(model, tmp_path / "m.keras")
    assert list(nameplate.layers(nameplate.load(tmp_path / "m.keras"))) == list(nameplate.layers(model))
    assert nameplate.plan(backbone, model, take=["stage*"]).fits
    assert model.output_names == ["label"]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.zeros((4, 8, 8, 1)), np.zeros((4,)), verbose=0)


def test_a_vector_needs_no_pool_and_one_hidden_layer_no_number() -> None:
    model = nameplate.attach(functional(), {"label": 2}, after="drop", hidden=[4])
    assert list(nameplate.layers(model)) == ["image", "hidden", "norm", "drop", "label_hidden", "label"]


@pytest.mark.parametrize(
    ("make", "options", "part"),
    [
        (functional, {"heads": {"label": 2}, "after": "dropp"}, "Did you mean 'drop'?"),
        (functional, {"heads": {}}, "there are no outputs; give {name: units}"),
        (functional, {"heads": {"a/b": 2, "norm": 0}}, "the name 'norm' is taken by 'norm'"),
        (functional, {"heads": {"a/b": 2, "norm": 0}}, "norm: 0 is not a number of units"),
        (functional, {"heads": {"a/b": 2}}, "the name 'a/b': has '/'"),
        (functional, {"heads": {"x": 2}, "dropout": 1.0}, "dropout=1.0 is not a rate"),
        (functional, {"heads": {"x": 2, "X": 2}}, "the name 'X' is taken by 'x'"),
        (keyed, {"heads": {"x": 2}}, "say which layer the head is attached to with after=NAME"),
        (subclassed, {"heads": {"x": 2}}, "has no graph, its code calls its layers"),
        (unbuilt, {"heads": {"x": 2}}, "is not built; build it first"),
        (functional, {"heads": ["x"]}, "a dictionary {string: whole number} is needed, not a list"),
        (functional, {"heads": {"x": "3"}}, "whole number} is needed, not 'x': '3'"),
    ],
)
def test_a_head_that_cannot_be_is_refused_in_words(make: Any, options: dict[str, Any], part: str) -> None:
    heads = options.pop("heads")
    with pytest.raises(NameplateError) as refused:
        nameplate.attach(make(), heads, **options)
    assert part in str(refused.value)
    assert isinstance(refused.value, HeadError | ArgumentError) or "after" in options


class Constructed(keras.Model):
    """A model whose constructor makes its graph, as those of KerasHub do."""

    def __init__(self, width: int = 4, **options: Any) -> None:
        self.stem = layers.Dense(width, name="stem")
        self.drop = layers.Dropout(0.5, seed=1, name="drop")
        self.old = layers.Dense(2, name="old")
        x = keras.Input((3,), name="x")
        super().__init__(inputs=x, outputs=self.old(self.drop(self.stem(x))), **options)
        self.width = width

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "width": self.width}


def test_a_head_stands_on_a_model_whose_constructor_makes_its_graph() -> None:
    backbone = Constructed(5, name="made")
    model = nameplate.attach(backbone, {"label": 3}, after="stem")
    assert list(nameplate.layers(model)) == ["x", "stem", "label"]
    assert np.array_equal(nameplate.read(model)["stem/kernel"], nameplate.read(backbone)["stem/kernel"])
    assert "stem" in nameplate.draw(backbone)
    assert list(nameplate.layers(nameplate.attach(backbone, {"label": 3}))) == ["x", "stem", "drop", "old", "label"]


def test_any_other_edit_of_such_a_model_is_made_on_its_graph_taken_out() -> None:
    backbone = Constructed(5, name="made")
    with pytest.raises(NameplateError, match="nothing was edited") as refused:
        nameplate.remove(backbone, "drop")
    assert (
        "cannot remove 'drop': it is in the model itself, and the constructor of Constructed makes its layers, so an "
        "edited one would not be a Constructed. nameplate.extract(model, 'old') gives a plain model to edit"
    ) in str(refused.value)
    plain = nameplate.extract(backbone, "old")
    x = np.ones((2, 3), "float32")
    assert np.array_equal(plain(x), backbone(x))
    assert list(nameplate.layers(nameplate.remove(plain, "drop"))) == ["x", "stem", "old"]


@pytest.mark.parametrize("after", [None, "stem"])
def test_d1_a_head_stands_on_a_sequential(after: str | None) -> None:
    backbone = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="stem"), layers.Conv2D(5, 3, name="last")], name="row"
    )
    model = nameplate.attach(backbone, {"label": 3, "age": 1}, after=after, hidden=[4])
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")

    assert nameplate.check(model, "strict") == []
    assert next(iter(nameplate.layers(model))) == "input"
    assert np.array_equal(nameplate.read(model)["stem/kernel"], nameplate.read(backbone)["stem/kernel"])
    assert {key: tuple(each.shape) for key, each in model(pixels).items()} == {"label": (2, 3), "age": (2, 1)}
