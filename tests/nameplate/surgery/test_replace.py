from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.graph.functional import SurgeryError
from nameplate.naming.policy import NamingError
from nameplate.surgery.verification import EditReport
from tests.nameplate.naming_models import (
    KINDS,
    Scale,
    example,
    functional,
    keyed,
    nested,
    operators,
    sequential,
    shared,
    subclassed,
    unbuilt,
    wrapped,
)
from tests.nameplate.surgery import graphs

QUIET: Any = {"report": lambda _: None}


def told(edit: Callable[..., keras.Model], *arguments: Any, **options: Any) -> tuple[keras.Model, EditReport]:
    reports: list[EditReport] = []
    return edit(*arguments, report=reports.append, **options), reports[0]


def test_untouched_layers_keep_names_and_weights_and_the_argument_stays() -> None:
    model = functional()
    before = nameplate.read(model)
    edited, report = told(nameplate.replace, model, {"hidden": layers.Dense(5, activation="tanh")})

    assert list(nameplate.read(edited)) == list(before)
    assert all(before[name].tobytes() == value.tobytes() for name, value in nameplate.read(edited).items())
    assert nameplate.read(model).keys() == before.keys()
    assert not {id(v) for v in model.variables} & {id(v) for v in edited.variables}
    assert [(line.name, line.what) for line in report.lines][1:3] == [
        ("hidden/kernel", "weight kept"),
        ("hidden/bias", "weight kept"),
    ]
    assert report.untouched == 4
    assert nameplate.layers(edited)["hidden"].activation is keras.activations.tanh


def test_a_consumer_that_cannot_take_the_new_shape_is_named_before_anything_is_built() -> None:
    with pytest.raises(SurgeryError) as refused:
        nameplate.replace(nested(), {"deep/core/c2": layers.Dense(9)})

    assert str(refused.value) == (
        "1 layer cannot take the shapes after the edit; nothing was built:\n"
        "  logits: Dense has kernel (8, 3), bias (3,) for (None, 8); it would get (None, 13): "
        "it would need kernel (13, 3)\n"
        "Pass rebuild=True, or rebuild=['logits'], to give them new weights."
    )


def test_consumers_are_rebuilt_on_request_and_keep_what_still_fits() -> None:
    model = nested()
    edited, report = told(nameplate.replace, model, {"deep/core/c2": layers.Dense(9)}, rebuild=["logits"])
    old, new = nameplate.read(model), nameplate.read(edited)

    assert new["logits/kernel"].shape == (13, 3)
    assert np.array_equal(old["logits/bias"], new["logits/bias"])
    assert np.array_equal(old["deep/core/c1/kernel"], new["deep/core/c1/kernel"])
    assert ("logits", "rebuilt") in [(line.name, line.what) for line in report.lines]


def test_a_convolution_becomes_a_pooling_layer() -> None:
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(3, 3, strides=2, padding="same", name="down")(x)
    model = keras.Model(image, layers.Dense(2, name="logits")(layers.Flatten(name="flat")(x)), name="net")
    edited = nameplate.replace(model, {"down": layers.MaxPooling2D(2)})

    assert type(nameplate.layer(edited, "down")) is layers.MaxPooling2D
    assert edited.output_shape == (None, 2)


def test_a_custom_layer_takes_a_place_and_a_nested_model_another() -> None:
    edited = nameplate.replace(functional(), {"hidden": Scale(5)}, **QUIET)
    assert type(nameplate.layer(edited, "hidden")) is Scale

    other = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="only")], name="small")
    trained = nameplate.read(other)
    edited = nameplate.replace(nested(), {"backbone": other}, **QUIET)
    assert np.array_equal(nameplate.read(edited)["small/only/kernel"], trained["only/kernel"])
    assert "backbone" not in nameplate.layers(edited)


def test_a_block_becomes_one_layer_and_one_layer_several() -> None:
    one = nameplate.replace(functional(), {("hidden", "drop"): layers.Dense(5)}, **QUIET)
    several = nameplate.replace(functional(), {"hidden": [layers.Dense(8, name="wide"), layers.Dense(5)]}, **QUIET)

    assert list(nameplate.layers(one)) == ["image", "drop", "logits"]
    assert list(nameplate.layers(several)) == ["image", "wide", "hidden_dense", "norm", "drop", "logits"]


def test_a_residual_block_with_its_side_branch_is_a_block_and_a_leak_is_named() -> None:
    x = image = keras.Input((4,), name="image")
    x = layers.Dense(4, name="stem")(x)
    y = layers.Dense(4, name="inner")(x)
    z = layers.Add(name="sum")([y, layers.Dense(4, name="side")(x)])
    model = keras.Model(image, layers.Dense(2, name="head")(z), name="net")

    assert list(nameplate.layers(nameplate.replace(model, {("inner", "sum"): layers.Dense(4)}, **QUIET))) == [
        "image",
        "stem",
        "sum",
        "head",
    ]
    leaky = keras.Model(image, [layers.Dense(2, name="head2")(z), y], name="leaky")
    with pytest.raises(SurgeryError, match="'inner' in it is also an output"):
        nameplate.replace(leaky, {("inner", "sum"): layers.Dense(4)})


def test_an_input_of_another_shape_goes_through_nested_models() -> None:
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.Conv2D(4, 3, name="conv")(pixels)
    inner = keras.Model(pixels, layers.GlobalAveragePooling2D(name="pool")(x), name="inner")
    image = keras.Input((16, 16, 3), name="image")
    outer = keras.Model(image, layers.Dense(2, name="head")(inner(image)), name="outer")
    edited = nameplate.replace(outer, {"image": keras.Input((24, 24, 3), name="photo")}, **QUIET)

    assert edited.input_shape == (None, 24, 24, 3)
    assert [each.name for each in edited.inputs] == ["photo"]
    assert nameplate.layer(edited, "inner/pixels").batch_shape == (None, 24, 24, 3)
    assert all(np.array_equal(value, nameplate.read(outer)[name]) for name, value in nameplate.read(edited).items())


def test_an_input_that_weights_do_not_fit_names_all_of_them() -> None:
    with pytest.raises(SurgeryError, match=r"(?s)2 layers cannot take.*backbone/c1.*deep/core/c1"):
        nameplate.replace(nested(), {"image": keras.Input((8,))})


def test_one_call_of_a_shared_layer_is_replaced_and_gets_a_second_name_with_a_warning() -> None:
    model = shared()
    edited, report = told(nameplate.replace, model, {"project": layers.Dense(3)}, at=1)

    assert {"project", "project_b"} <= set(nameplate.layers(edited))
    assert [line.detail for line in report.warnings()] == ["stays at its other calls; the new layer is 'project_b'"]
    assert np.array_equal(nameplate.read(edited)["project/kernel"], nameplate.read(model)["project/kernel"])
    data = [np.ones((2, 6), "float32")] * 2
    assert np.array_equal(model(data)[0], edited(data)[0])


def test_call_arguments_stay() -> None:
    x = image = keras.Input((4,), name="image")
    x = layers.Dropout(0.9, seed=3, name="drop")(x, training=True)
    model = keras.Model(image, layers.Dense(2, name="head")(x), name="net")
    edited = nameplate.replace(model, {"drop": layers.GaussianDropout(0.9, seed=3)}, **QUIET)
    _, report = told(nameplate.replace, model, {"drop": layers.ReLU()})

    assert edited.get_config()["layers"][1]["inbound_nodes"][0]["kwargs"] == {"training": True}
    assert "was called with training=, which a ReLU does not take" in report.table()


def test_an_operator_becomes_a_layer() -> None:
    edited = nameplate.replace(operators(), {"add": layers.Add(name="sum")})

    assert type(nameplate.layer(edited, "sum")) is layers.Add
    assert graphs.equal(operators_with_weights_of(edited), edited)


def operators_with_weights_of(edited: keras.Model) -> keras.Model:
    model = operators()
    nameplate.write(model, nameplate.read(edited))
    return model


def test_output_keys_stay_and_a_new_output_name_is_a_warning() -> None:
    edited, _ = told(nameplate.replace, keyed(), {"score": layers.Dense(1, name="points")})
    assert sorted(edited.output) == ["label", "score"]

    _, report = told(nameplate.replace, functional(), {"logits": layers.Dense(3, name="scores")})
    assert ("scores", "output name", "was logits") in [
        (each.name, each.what, each.detail) for each in report.warnings()
    ]


def test_a_stack_stays_one_and_an_unbuilt_one_too() -> None:
    for make in (sequential, unbuilt):
        edited = nameplate.insert(make(), layers.ReLU(name="act"), after="hidden")
        assert type(edited) is keras.Sequential
        assert [layer.name for layer in edited.layers] == ["hidden", "act", "logits"]


def test_a_layer_inside_a_wrapper_is_replaced_through_its_configuration() -> None:
    model = wrapped()
    edited = nameplate.replace(model, {"each/dense": layers.Dense(4, activation="relu")}, **QUIET)

    assert nameplate.layer(edited, "each").layer.activation is keras.activations.relu
    assert np.array_equal(nameplate.read(edited)["each/dense/kernel"], nameplate.read(model)["each/dense/kernel"])


def test_what_a_class_makes_itself_is_refused_with_the_way_out() -> None:
    with pytest.raises(SurgeryError, match=r"Net .the model itself. creates it, and would create it again.*get_config"):
        nameplate.replace(subclassed(), {"stem": layers.Dense(6)})
    with pytest.raises(SurgeryError, match=r"the code of Net calls its layers\. Only replace"):
        nameplate.remove(subclassed(), "stem")


@keras.saving.register_keras_serializable("surgery_tests")
class Holder(keras.Model):
    """A model that is given its body."""

    def __init__(self, body: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = body
        self.head = layers.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(self.body(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "body": keras.saving.serialize_keras_object(self.body)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Holder:
        return cls(**{**config, "body": keras.saving.deserialize_keras_object(config["body"])})


def test_a_subclassed_model_that_is_given_its_layer_can_have_another() -> None:
    model = Holder(layers.Dense(6, name="body"), name="holder")
    model(np.zeros((1, 6)))
    edited = nameplate.replace(model, {"body": layers.Dense(6, activation="relu")}, **QUIET)

    assert edited.body.activation is keras.activations.relu
    assert np.array_equal(edited.head.kernel, model.head.kernel)


def test_many_edits_are_one_pass_and_all_that_cannot_be_done_is_one_error() -> None:
    edited = nameplate.edit(
        nested(),
        [
            nameplate.Replace("backbone/c1", layers.Dense(4, activation="relu")),
            nameplate.Insert(layers.Dropout(0.1, name="drop"), after="both"),
            nameplate.Remove("deep/core/c2"),
        ],
        **QUIET,
    )
    assert {"drop", "backbone/c1"} <= set(nameplate.layers(edited))
    assert "deep/core/c2" not in nameplate.layers(edited)
    with pytest.raises(SurgeryError) as refused:
        nameplate.edit(nested(), [nameplate.Remove("bth"), nameplate.Replace("logit", layers.Dense(3))])
    assert str(refused.value).count("Did you mean") == 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: nameplate.replace(m, {"hiden": layers.ReLU()}), "Did you mean 'hidden'?"),
        (lambda m: nameplate.replace(m, {"hidden": "relu"}), "cannot put str into a graph"),
        (lambda m: nameplate.replace(m, {"image": layers.ReLU()}), "'image' is an input: give keras.Input"),
        (
            lambda m: nameplate.replace(m, {"hidden": layers.ReLU()}, at=1),
            "it is called once, and calls are counted from 0",
        ),
        (lambda m: nameplate.insert(m, layers.ReLU(name="x")), "insert needs after=NAME, before=NAME"),
        (
            lambda m: nameplate.insert(m, layers.ReLU(name="x"), before="image"),
            "nothing can be inserted before the input",
        ),
        (lambda m: nameplate.remove(m, "image"), "is an input and cannot be removed"),
        (lambda m: nameplate.insert(m, layers.ReLU(), after="hidden"), "made up by Keras"),
        (lambda m: nameplate.insert(m, layers.ReLU(name="norm"), after="hidden"), "used twice"),
        (lambda m: nameplate.insert(m, layers.ReLU(name="Norm"), after="hidden"), "but for case"),
        (lambda m: nameplate.replace(m, {("drop", "hidden"): layers.ReLU()}), "does not follow 'drop'"),
        (lambda m: nameplate.replace(m, {"hidden": layers.Conv2D(3, 3)}), "expected min_ndim=4"),
        (lambda m: nameplate.extract(m, "norm", inputs=["drop"]), "also on 'image'"),
        (lambda m: nameplate.flatten(m, separator="/"), "no name can contain '/'"),
        (lambda m: nameplate.draw(m, style="svg"), "there are text, mermaid, dot"),
    ],
)
def test_every_refusal_says_what_to_do(edit: Callable[[keras.Model], Any], message: str) -> None:
    with pytest.raises((SurgeryError, NamingError)) as refused:
        edit(functional())
    assert message in str(refused.value)


def test_a_layer_given_twice_is_refused_and_repair_names_what_has_no_name() -> None:
    layer = layers.Dense(4)
    with pytest.raises(SurgeryError, match="given twice"):
        nameplate.replace(nested(), {"backbone/c1": layer, "deep/core/c1": layer})
    edited = nameplate.insert(functional(), layers.ReLU(), after="hidden", policy="repair")
    assert "re_lu1" in nameplate.layers(edited)


@pytest.mark.parametrize("make", [make for name, make in KINDS.items() if name != "subclassed"])
def test_an_identity_behind_the_last_layer_of_every_kind_changes_nothing(make: Callable[[], keras.Model]) -> None:
    model = make()
    last = [
        name for name, each in nameplate.layers(model).items() if isinstance(each, keras.Layer) and "/" not in name
    ][-1]
    edited = nameplate.insert(model, layers.Identity(name="extra"), after=last, **QUIET)
    data = example(model)

    assert nameplate.read(edited).keys() == nameplate.read(model).keys()
    if data is not None:
        pairs = zip(keras.tree.flatten(model(data)), keras.tree.flatten(edited(data)), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_graph_deeper_than_the_recursion_limit_is_edited() -> None:
    from nameplate.graph.global_state import deep_graphs

    with deep_graphs(1500):
        x = first = keras.Input((2,), name="x")
        for index in range(1200):
            x = layers.ReLU(name=f"r{index}")(x)
        model = keras.Model(first, x, name="deep")
    edited = nameplate.remove(model, "r600", verify=False, **QUIET)

    assert len(edited.layers) == len(model.layers) - 1


def test_edits_are_made_in_the_callers_strategy_scope(strategy: Any) -> None:
    model = nested()
    with strategy.scope():
        edited = nameplate.replace(model, {"backbone/c1": layers.Dense(4)}, **QUIET)
        flat = nameplate.flatten(model)
        part = nameplate.extract(model, "deep/core/c1")
    for made in (edited, flat, part):
        assert all(len(each._value.values) == 2 for each in made.weights)
    assert all(np.array_equal(value, nameplate.read(model)[name]) for name, value in nameplate.read(edited).items())


def test_a_lambda_stays_the_same_function() -> None:
    x = image = keras.Input((4,), name="image")
    x = layers.Lambda(lambda t: t * 3.0, name="triple")(x)
    model = keras.Model(image, layers.Dense(2, name="head")(x), name="net")
    edited = nameplate.replace(model, {"head": layers.Dense(2)}, **QUIET)

    assert nameplate.layer(edited, "triple").function is nameplate.layer(model, "triple").function


def test_a_drawing_shows_the_surroundings_before_and_after() -> None:
    model = functional()
    drawn = nameplate.draw(
        model, "norm", reach=1, after=nameplate.insert(model, layers.ReLU(name="act"), after="norm", **QUIET)
    )

    assert drawn.splitlines() == [
        "flat before:",
        "  hidden  Dense               (n, 5)  <- image",
        "  norm    BatchNormalization  (n, 5)  <- hidden",
        "~ drop    Dropout             (n, 5)  <- norm",
        "flat after:",
        "  hidden  Dense               (n, 5)  <- image",
        "  norm    BatchNormalization  (n, 5)  <- hidden",
        "+ act     ReLU                (n, 5)  <- norm",
    ]
    assert nameplate.draw(model, style="mermaid").startswith("flowchart TD")
    assert '"hidden\\nDense (n, 5)"' in nameplate.draw(model, style="dot")


def test_shared_upstream_layers_are_the_very_same_and_only_downstream_is_made_anew() -> None:
    model = functional()
    edited = nameplate.replace(model, {"drop": layers.ReLU()}, share=True, **QUIET)
    mine, theirs = nameplate.layers(edited), nameplate.layers(model)

    assert all(mine[name] is theirs[name] for name in ("image", "hidden", "norm"))
    assert mine["logits"] is not theirs["logits"]
    assert np.array_equal(nameplate.read(edited)["logits/kernel"], nameplate.read(model)["logits/kernel"])
    assert len(theirs["logits"]._inbound_nodes) == 1


def test_a_layer_called_before_and_behind_an_edit_is_never_half_shared() -> None:
    x = image = keras.Input((4,), name="image")
    again = layers.Dense(4, name="again")
    y = layers.ReLU(name="act")(again(x))
    model = keras.Model(image, again(y), name="loop")
    edited = nameplate.replace(model, {"act": layers.LeakyReLU(name="leaky")}, share=True, **QUIET)

    assert nameplate.layer(edited, "again") is not again
    assert len(nameplate.layer(edited, "again")._inbound_nodes) == 2
