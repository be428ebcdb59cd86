from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.clone import RebuildError
from nameplate.graph.rename import rename
from nameplate.naming.policy import NamingError, Policy
from nameplate.naming.rules import Rule, RuleError
from tests.long import drawn
from tests.nameplate.naming_models import KINDS, Net, example, functional, keyed, nested, sequential, shared, wrapped

EVERY = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def assert_identical(one: keras.Model, other: keras.Model) -> None:
    """Compare names, paths, weights, flags and configuration."""
    left, right = nameplate.read(one), nameplate.read(other)
    assert list(left) == list(right)
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)
    assert [v.path for v in one.variables] == [v.path for v in other.variables]
    assert [getattr(each, "path", None) for each in nameplate.layers(one).values()] == [
        getattr(each, "path", None) for each in nameplate.layers(other).values()
    ]
    assert [v.trainable for v in one.variables] == [v.trainable for v in other.variables]
    assert one.name == other.name
    assert getattr(one, "output_names", None) == getattr(other, "output_names", None)
    if not isinstance(one, Net):  # Keras has no configuration for what is inside a class
        assert _plain(one.get_config()) == _plain(other.get_config())


def _plain(config: Any) -> Any:
    """Return a configuration without the bytes of lambdas' code, which hold the file's line numbers."""
    if isinstance(config, dict):
        return {key: _plain(value) for key, value in config.items() if key != "code"}
    return (
        [_plain(value) for value in config] if isinstance(config, Sequence) and not isinstance(config, str) else config
    )


def assert_same_function(one: keras.Model, other: keras.Model) -> None:
    data = example(one)
    if data is None:
        return
    old, new = keras.tree.flatten(one(data)), keras.tree.flatten(other(_keys_as(other, data)))
    assert all(
        np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
        for a, b in zip(old, new, strict=True)
    )


def _keys_as(model: keras.Model, data: Any) -> Any:
    return dict(zip(model.input, data.values(), strict=True)) if isinstance(data, dict) else data


def prefixed(model: keras.Model) -> keras.Model:
    return rename(model, lambda layer: f"x_{layer.name}")


@EVERY
def test_a_callable_renames_every_layer_of_every_kind_of_model(make: Any) -> None:
    model = make()
    before = list(nameplate.layers(model))
    fresh = prefixed(model)

    assert all(
        name.startswith("x_") for name, layer in nameplate.layers(fresh).items() if isinstance(layer, keras.Layer)
    )
    assert list(nameplate.layers(model)) == before
    assert_same_function(model, fresh)


@EVERY
def test_a_renaming_and_its_inverse_give_the_identical_model(make: Any) -> None:
    model = make()

    assert_identical(model, rename(prefixed(model), lambda layer: layer.name.removeprefix("x_")))


@EVERY
def test_weights_are_kept_bit_for_bit_and_shared_with_nobody(make: Any) -> None:
    model = make()
    fresh = prefixed(model)
    old, new = list(nameplate.read(model).values()), list(nameplate.read(fresh).values())

    assert [value.tobytes() for value in old] == [value.tobytes() for value in new]
    assert not {id(v) for v in model.variables} & {id(v) for v in fresh.variables}


@EVERY
def test_no_path_says_an_old_name(make: Any) -> None:
    model = make()
    old = {name.rpartition("/")[2] for name, layer in nameplate.layers(model).items() if isinstance(layer, keras.Layer)}
    fresh = prefixed(model)
    kept = {part for name in nameplate.layers(fresh) for part in name.split("/")}  # Keras' own parts keep their names
    paths = [v.path for v in fresh.variables] + [each.path for each in fresh.layers if each.path]

    assert not [path for path in paths for part in path.split("/")[:-1] if part in old - kept]


@pytest.mark.tensorflow
def test_everything_agrees_on_the_new_names() -> None:
    fresh = rename(functional(), {"image": "pixels", "hidden": "fc", "logits": "scores", "flat": "net"})
    fresh.compile(keras.optimizers.Adam(), loss={"scores": "mse"}, metrics={"scores": ["mae"]})
    history = fresh.fit(np.zeros((4, 6)), np.zeros((4, 3)), verbose=0)
    lines: list[str] = []
    fresh.summary(print_fn=lambda line, **_: lines.append(line))

    assert fresh.name == "net"
    assert fresh.get_layer("fc").path == "fc"
    assert fresh.inputs[0].name == "pixels"
    assert fresh.output_names == ["scores"]
    assert [each["name"] for each in fresh.get_config()["layers"]] == ["pixels", "fc", "norm", "drop", "scores"]
    assert "fc/kernel" in [v.path for v in fresh.variables]
    assert "fc/kernel:0" in [v.value.name for v in fresh.variables]
    assert "fc_kernel_momentum" in " ".join(v.path for v in fresh.optimizer.variables)
    assert "fc (Dense)" in "\n".join(lines)
    assert {"loss", "mae"} <= set(history.history)


def test_loss_and_metric_keys_of_several_outputs_move_along() -> None:
    fresh = rename(shared(), {"project": "head", "gap": "difference"})
    fresh.compile("sgd", loss={"head": "mse", "difference": "mse"}, metrics={"difference": ["mae"]})
    data = [np.zeros((4, 6)), np.zeros((4, 6))]
    history = fresh.fit(data, {"head": np.zeros((4, 3)), "difference": np.zeros((4, 3))}, verbose=0)

    assert {"head_loss", "difference_loss", "difference_mae"} <= set(history.history)


def test_keys_of_inputs_and_outputs_move_with_the_names_they_stand_for() -> None:
    model = keyed()
    fresh = rename(model, {"wide": "broad", "score": "rating", "classes": "kinds"})

    assert list(fresh.input) == ["broad", "deep"]
    assert list(fresh.output) == ["rating", "label"]
    assert_same_function(model, fresh)


def test_a_model_with_keys_can_be_renamed_inside_another() -> None:
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    out = keyed()({"wide": a, "deep": b})
    model = keras.Model([a, b], [out["score"], out["label"]], name="outer")
    fresh = rename(model, {"tabular/wide": "zone", "tabular/score": "apex"})
    data = [np.random.default_rng(0).normal(size=(2, 6)) for _ in range(2)]

    assert all(
        np.array_equal(x, y)
        for x, y in zip(model.predict(data, verbose=0), fresh.predict(data, verbose=0), strict=True)
    )


@pytest.mark.parametrize(
    ("make", "to", "names"),
    [
        (functional, ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"]),
        (sequential, ["b", "c"], ["image", "b", "c"]),
        (sequential, ["a", "b", "c"], ["a", "b", "c"]),
        (nested, ["a", "b", "c", "d", "e"], ["a", "b", "b/pixels", "b/c1", "b/c2", "c"]),
        (functional, {"hidden": "norm", "norm": "hidden"}, ["image", "norm", "hidden"]),
        (functional, {"hidden": "norm", "norm": "drop", "drop": "hidden"}, ["image", "norm", "drop", "hidden"]),
        (nested, {"backbone": "deep", "deep": "backbone", "deep/core/c1": "x"}, ["image", "deep"]),
        (nested, [(r"c(\d)", r"conv\1")], ["image", "backbone", "backbone/pixels", "backbone/conv1"]),
        (
            nested,
            [Rule(r"deep/core/c(\d)", r"deep/core/conv\1", regular=True)],
            ["image", "backbone", "backbone/pixels", "backbone/c1"],
        ),
        (nested, [(re.compile(r"(\w+)bone"), r"\1_bone")], ["image", "back_bone"]),
        (functional, lambda layer: "fc" if layer.name == "hidden" else None, ["image", "fc", "norm"]),
    ],
)
def test_every_form_renames(make: Any, to: Any, names: list[str]) -> None:
    assert list(nameplate.layers(rename(make(), to)))[: len(names)] == names


@pytest.mark.parametrize(
    ("make", "to", "error", "words"),
    [
        (functional, ["a", "b"], RuleError, "2 names for 5 layers"),
        (functional, {"hiden": "x"}, RuleError, "'hiden' matches nothing. Did you mean 'hidden'"),
        (functional, {"hidden": "norm"}, NamingError, "norm .*used twice"),
        (functional, {"hidden": "Norm"}, NamingError, "but for case"),
        (functional, {"hidden": "a b"}, NamingError, "allowed are"),
        (functional, {"hidden": "é", "norm": "x:0"}, NamingError, "x:0 "),
        (functional, {"flat": "a b"}, NamingError, "allowed are"),
        (functional, [("conv.*", "x")], RuleError, "matches nothing"),
        (functional, 5, RuleError, "cannot rename to a int"),
        (functional, "hidden", RuleError, "cannot rename to a str"),
        (wrapped, {"attention/query": "q"}, NamingError, "named by its MultiHeadAttention"),
        (nested, {"backbone/c1": "deep/c1"}, RuleError, "does not move"),
        (functional, {5: "a"}, RuleError, "5 is not the name of a layer: names are strings, as 'image', 'hidden'"),
        (functional, [("a",)], RuleError, r"has \('a',\): give only names"),
        (functional, [("a", 5)], RuleError, r"has \('a', 5\): give only names"),
        (functional, [("a", lambda match: "x")], RuleError, r"has \('a', <function.*pass the callable itself"),
        (functional, [("a", "b", "c")], RuleError, r"has \('a', 'b', 'c'\)"),
        (functional, [("hidden", "q"), "b"], RuleError, r"has \('hidden', 'q'\), 'b': give only names"),
        (functional, [["a", "z"]], RuleError, r"has \['a', 'z'\]"),
        (functional, [1, 2, 3, 4, 5], RuleError, "has 1, 2, 3, 4, 5"),
        (functional, lambda layer: layer.units.x, RuleError, "failed for 'image' .InputLayer.: AttributeError"),
        (functional, {"flat": "q/r"}, RuleError, "the model itself cannot become 'q/r'"),
    ],
)
def test_what_cannot_be_done_is_refused_whole(make: Any, to: Any, error: type[Exception], words: str) -> None:
    model = make()
    before = list(nameplate.layers(model))

    with pytest.raises(error, match=words):
        rename(model, to)
    assert list(nameplate.layers(model)) == before


@pytest.mark.filterwarnings("ignore:`build..` was called on layer")
def test_a_model_that_keras_only_calls_built_is_renamed() -> None:
    model = Net(name="mixer")
    model.build((None, 6))
    fresh = rename(model, {"stem": "trunk"})
    data = np.ones((2, 6), "float32")

    assert fresh.built
    assert "trunk" in nameplate.layers(fresh)
    assert fresh(data).shape == model(data).shape
    assert [v.shape for v in fresh.weights] == [v.shape for v in model.weights]


def test_what_is_no_model_is_refused() -> None:
    for use in (
        nameplate.check,
        nameplate.enforce,
        lambda model: rename(model, {}),
        lambda model: nameplate.layer(model, "a"),
    ):
        with pytest.raises(NameplateError, match=r"a keras\.Model is needed, not None"):
            use(None)
    with pytest.raises(NameplateError, match=r"name=None: a string is needed, not None"):
        nameplate.layer(functional(), None)  # type: ignore[arg-type]


def test_a_given_policy_holds_for_the_new_names() -> None:
    policy = Policy(patterns={"Dense": r"fc\d"})

    assert "fc1" in nameplate.layers(rename(functional(), {"hidden": "fc1"}, policy=policy))
    with pytest.raises(NamingError, match="must match"):
        rename(functional(), {"hidden": "dense_layer"}, policy=policy)


def test_a_compiled_model_is_refused_unless_an_uncompiled_copy_is_asked_for() -> None:
    model = functional()
    model.compile("adam", "mse")

    with pytest.raises(NamingError, match=r"compiled.*uncompiled=True"):
        rename(model, {"hidden": "fc"})
    copy = rename(model, {"hidden": "fc"}, uncompiled=True)
    assert not copy.compiled
    assert model.compiled


def test_a_rename_inside_a_scope_gives_mirrored_variables(strategy: Any) -> None:
    with strategy.scope():
        model = functional()
        fresh = rename(model, {"hidden": "fc"})

    kernel = nameplate.variables(fresh)["fc/kernel"]
    assert len(kernel.value.values) == 2
    assert all(np.array_equal(part, nameplate.read(model)["hidden/kernel"]) for part in kernel.value.values)


def test_frozen_layers_stay_frozen() -> None:
    model = nested()
    nameplate.layer(model, "backbone/c1").trainable = False
    fresh = rename(model, {"backbone": "trunk"})

    assert not nameplate.layer(fresh, "trunk/c1").trainable
    assert nameplate.layer(fresh, "trunk/c2").trainable
    assert [v.path for v in fresh.trainable_variables] == [v.path for v in model.trainable_variables]


def test_regularizers_constraints_and_precision_are_kept() -> None:
    x = keras.Input((4,), name="x")
    dense = layers.Dense(3, kernel_regularizer="l2", bias_constraint="non_neg", dtype="mixed_bfloat16", name="fc")
    model = keras.Model(x, dense(x), name="m")
    fresh = nameplate.layer(rename(model, {"fc": "head"}), "head")

    assert fresh.get_config() == {**dense.get_config(), "name": "head"}
    assert fresh.kernel.regularizer is not None
    assert fresh.bias.constraint is not None


@pytest.mark.tensorflow
def test_what_a_preprocessing_layer_learned_is_kept() -> None:
    model = KINDS["preprocessing"]()
    fresh = rename(model, {"lookup": "ids"})

    assert nameplate.layer(fresh, "ids").get_vocabulary() == nameplate.layer(model, "lookup").get_vocabulary()


def test_seeds_go_on_where_they_were() -> None:
    model = functional()
    data = np.ones((8, 6), "float32")
    model(data, training=True)
    fresh = prefixed(model)

    assert np.array_equal(model(data, training=True), fresh(data, training=True))


def test_a_rename_leaves_no_trace_in_the_process() -> None:
    import random

    model = functional()
    keras.utils.set_random_seed(0)
    state, expected = random.getstate(), layers.Dense(1).name
    keras.utils.set_random_seed(0)
    prefixed(model)

    assert random.getstate() == state
    word, _, number = expected.rpartition("_")
    assert layers.Dense(1).name == (f"{word}_{int(number) + 1}" if number.isdigit() else "dense_1")


class Nameless(layers.Layer):
    def __init__(self, units: int) -> None:
        super().__init__(name="fixed")
        self.units = units

    def call(self, x: Any) -> Any:
        return x


class Greedy(layers.Layer):
    def __init__(self, table: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table

    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            lambda: Nameless(3),
            r"fixed: its class drops the name; add to Nameless: def __init__\(self, ..., \*\*kwargs\)",
        ),
        (lambda: Greedy(object(), name="fixed"), r"Greedy cannot be rebuilt.*add to Greedy: def get_config"),
    ],
)
def test_a_layer_that_cannot_take_the_new_name_is_told_with_the_line_to_add(layer: Any, words: str) -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layer()(x), name="m")

    with pytest.raises(RebuildError, match=words):
        rename(model, {"fixed": "free"})


def test_a_lambda_that_reaches_weights_outside_is_refused() -> None:
    dense = layers.Dense(3, name="hidden_one")
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Lambda(lambda t: dense(t), name="sneaky")(x), name="m")

    with pytest.raises(RebuildError, match="uses dense without tracking it"):
        rename(model, {"sneaky": "fine"})


def test_a_deep_row_of_layers_is_renamed() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        x = first = keras.Input((1,), name="x")
        for index in range(1050):
            x = layers.Dense(1, use_bias=False, name=f"d{index}")(x)
        model = keras.Model(first, x, name="deep")
    finally:
        sys.setrecursionlimit(limit)

    fresh = rename(model, [(r"d(\d+)", r"layer\1")])

    assert list(nameplate.layers(fresh))[-1] == "layer1049"
    assert sys.getrecursionlimit() == limit


STEPS = st.lists(
    st.tuples(st.sampled_from(["dense", "add", "operator", "shared", "model"]), st.integers(0, 99), st.integers(0, 99)),
    min_size=1,
    max_size=8,
)


def graph(steps: list[tuple[str, int, int]]) -> keras.Model:
    """Return a graph of dense and additive layers, some shared, some in a model of their own."""
    tensors = [keras.Input((3,), name="in0")]
    made: list[Any] = []
    for index, (what, first, second) in enumerate(steps):
        source, other = tensors[first % len(tensors)], tensors[second % len(tensors)]
        if what == "add":
            tensors.append(layers.Add(name=f"n{index}")([source, other]))
        elif what == "operator":
            tensors.append(source + other)
        elif what == "shared" and made:
            tensors.append(made[second % len(made)](source))
        elif what == "model":
            inner = keras.Input((3,), name="in")
            made.append(keras.Model(inner, layers.Dense(3, name="n0")(inner), name=f"n{index}"))
            tensors.append(made[-1](source))
        else:
            made.append(layers.Dense(3, name=f"n{index}"))
            tensors.append(made[-1](source))
    return keras.Model(tensors[0], tensors[-1] + tensors[-2], name="random")


def shuffled(model: keras.Model, random: Any) -> dict[str, str]:
    own = [
        name for name, layer in nameplate.layers(model).items() if isinstance(layer, keras.Layer) and "/" not in name
    ]
    return dict(zip(own, random.sample(own, len(own)), strict=True))


RANDOM = st.randoms(use_true_random=False)


@drawn(few=10, many=40)
@given(STEPS, RANDOM)
def test_any_permutation_of_any_graph_can_be_undone(steps: list[tuple[str, int, int]], random: Any) -> None:
    model = graph(steps)
    there = shuffled(model, random)
    renamed = rename(model, there)

    assert_identical(model, rename(renamed, {new: old for old, new in there.items()}))
    assert np.array_equal(model(np.ones((1, 3))), renamed(np.ones((1, 3))))


@drawn(few=6, many=20)
@given(STEPS, RANDOM)
def test_two_renamings_are_their_composition(steps: list[tuple[str, int, int]], random: Any) -> None:
    model = graph(steps)
    first, second = shuffled(model, random), shuffled(model, random)

    assert_identical(
        rename(rename(model, first), second), rename(model, {old: second[new] for old, new in first.items()})
    )


@drawn(few=6, many=20)
@given(STEPS)
def test_repair_is_idempotent_and_keeps_the_function(steps: list[tuple[str, int, int]]) -> None:
    model = rename(graph(steps), lambda layer: f"dense_{layer.name[1:]}" if isinstance(layer, layers.Dense) else None)
    repaired = nameplate.enforce(model, "repair")

    assert nameplate.enforce(repaired, "repair") is repaired
    assert np.array_equal(model(np.ones((1, 3))), repaired(np.ones((1, 3))))


class Blueprint(keras.Model):
    """A graph whose constructor makes it."""

    def __init__(self, units: int = 3) -> None:
        image = keras.Input((4,), name="image")
        super().__init__(image, layers.Dense(units, name="fc")(image), name="blueprint")


class Stepping(keras.Model):
    """A graph with a step of its own."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


class Stack(keras.Sequential):
    """A Sequential of another class."""


def stepping() -> keras.Model:
    image = keras.Input((4,), name="image")
    return Stepping(image, layers.Dense(3, name="fc")(image), name="stepping")


def with_lambda_activation() -> keras.Model:
    image = keras.Input((4,), name="image")
    return keras.Model(image, layers.Dense(3, activation=lambda x: x * 2, name="fc")(image), name="m")


@pytest.mark.parametrize(
    "make",
    [
        Blueprint,
        stepping,
        lambda: Stack([keras.Input((4,), name="image"), layers.Dense(3, name="fc")], name="stack"),
        with_lambda_activation,
    ],
)
def test_models_of_a_class_of_ones_own_keep_their_class_and_function(make: Any) -> None:
    model = make()
    fresh = rename(model, {"image": "pixels", "fc": "head"})
    data = np.ones((2, 4), "float32")

    assert type(fresh) is type(model)
    assert list(nameplate.layers(fresh)) == ["pixels", "head"]
    assert np.array_equal(model(data), fresh(data))


def test_an_operator_can_be_given_a_name() -> None:
    fresh = rename(KINDS["operators"](), {"add": "skip"})

    assert "skip" in nameplate.layers(fresh)
    assert "skip" in [operation.name for operation in fresh.operations]


def test_repair_of_a_compiled_model_is_refused() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2)(x), name="unnamed")
    model.compile("sgd", "mse")

    with pytest.raises(NamingError, match="compiled"):
        nameplate.enforce(model, "repair")


def test_a_model_that_is_built_in_part_is_renamed_with_the_weights_that_it_has() -> None:
    model = keras.Sequential([layers.Dense(3, name="one"), layers.Dense(2, name="two")], name="row")
    model.layers[0].build((None, 4))
    fresh = rename(model, {"one": "first"})

    assert list(nameplate.variables(fresh)) == ["first/kernel", "first/bias"]
    assert not fresh.built
    assert np.array_equal(fresh.layers[0].kernel, model.layers[0].kernel)
    assert fresh(np.ones((1, 4))).shape == (1, 2)


def test_a_class_of_which_one_layer_was_built_by_hand_is_renamed() -> None:
    model = Net(name="mixer")
    model.stem.build((None, 6))
    fresh = rename(model, {"stem": "root"})

    assert list(nameplate.variables(fresh))[:2] == ["root/kernel", "root/bias"]
    assert np.array_equal(fresh.stem.kernel, model.stem.kernel)
