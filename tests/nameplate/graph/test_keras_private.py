"""What `nameplate.graph.keras_private` relies on, as it stands in keras 3.15.1 with tensorflow 2.21."""

from __future__ import annotations

import inspect
import itertools
import random
import re

import keras
import numpy as np
import pytest
from keras import layers

from nameplate.graph import keras_private
from nameplate.graph.copy_state import born, born_with
from nameplate.naming import names
from nameplate.naming.suggestions import examples
from tests.nameplate.naming_models import KINDS, functional, sequential, shared, wrapped


def test_a_graph_has_its_operations_and_calls() -> None:
    model = shared()
    calls = [(operation.name, call) for _, operation, call in keras_private.nodes(model)]

    assert [operation.name for operation in keras_private.operations(model)] == [op.name for op in model.operations]
    times = {"left": 1, "right": 1, "tower": 3, "project": 3, "gap": 1}
    assert sorted(calls) == sorted((name, call) for name, count in times.items() for call in range(count))


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_sublayers_and_variables_are_all_that_keras_counts(make: object) -> None:
    model = make()  # type: ignore[operator]
    found, todo = [], [model]
    while todo:
        layer = todo.pop()
        found += keras_private.own_variables(layer)
        found += [generator.state for generator in keras_private.seed_generators(layer)]
        todo += keras_private.sublayers(layer)

    assert {id(v) for v in found} == {id(v) for v in model.variables}


def test_a_sequential_hides_its_input_and_runs_a_graph() -> None:
    model = sequential()

    assert [layer.name for layer in keras_private.stacked(model)] == ["image", "hidden", "logits"]
    assert [layer.name for layer in model.layers] == ["hidden", "logits"]
    assert isinstance(keras_private.stack_graph(model), keras_private.Functional)


def test_keras_makes_the_parts_of_some_layers() -> None:
    model = wrapped()

    assert keras_private.makes_its_parts(model.get_layer("attention"))
    assert not keras_private.makes_its_parts(model)
    assert keras_private.takes_one_layer(model.get_layer("each"))
    assert keras_private.takes_one_layer(model.get_layer("both_ways"))
    assert not keras_private.makes_its_parts(layers.StackedRNNCells([layers.GRUCell(2)]))


def test_a_renamed_layer_and_variable_say_so_everywhere() -> None:
    layer = layers.Dense(2, name="old")
    layer.build((None, 3))
    keras_private.rename_layer(layer, "new", "top/new")
    keras_private.rename_variable(layer.kernel, "top/new/kernel")

    assert (layer.name, layer.path, layer._parent_path) == ("new", "top/new", "top")
    assert (layer.kernel.path, layer.kernel.value.name) == ("top/new/kernel", "top/new/kernel:0")


def test_automatic_names_are_counted_where_we_look() -> None:
    word = names.snake("Flatten")
    layers.Flatten()
    before = keras_private.automatic_counts()[word]
    name = layers.Flatten().name

    assert name == f"{word}_{before}"
    assert keras_private.automatic_counts()[word] == before + 1


def test_nothing_is_disturbed() -> None:
    state, counts = random.getstate(), dict(keras_private.automatic_counts())
    with keras_private.undisturbed():
        layers.Dense(2).build((None, 3))

    assert random.getstate() == state
    assert keras_private.automatic_counts() == counts


def test_a_scope_that_failed_is_taken_off_the_stack() -> None:
    import tensorflow as tf
    from keras.src.backend.common.name_scope import current_path
    from keras.src.backend.tensorflow.core import name_scope

    with keras_private.scopes_kept(), tf.Graph().as_default(), pytest.raises(ValueError, match="scope"):
        name_scope("a:0").__enter__()

    assert current_path() == ""


def test_an_operator_can_be_copied_without_its_graph() -> None:
    x = keras.Input((4,), name="x")
    operator = keras_private.source(keras.ops.mean(x, axis=1))
    copy = keras_private.wired_anew(operator, "average")

    assert (copy.name, copy.axis) == ("average", operator.axis)
    assert copy._inbound_nodes == []
    assert len(operator._inbound_nodes) == 1


def test_variables_can_be_born_with_their_values() -> None:
    source, fresh = layers.Dense(2, name="a"), layers.Dense(2, name="a")
    source.build((None, 3))
    made: set[int] = set()
    born_with(fresh, source, made)
    fresh.build((None, 3))
    born(fresh)

    assert np.array_equal(source.kernel, fresh.kernel)
    assert made == {id(fresh.kernel), id(fresh.bias)}
    assert "add_weight" not in vars(fresh)


def test_the_words_of_keras_layers_are_known() -> None:
    kinds = [kind for _, kind in inspect.getmembers(layers, inspect.isclass) if issubclass(kind, keras.Layer)]
    words = {names.snake(kind.__name__) for kind in kinds} | {"functional", "sequential"}

    assert words - {"input_layer"} == names.KERAS_WORDS


def test_automatic_names_are_recognized_for_every_layer_class() -> None:
    from keras.src.utils.naming import auto_name

    kinds = [kind.__name__ for _, kind in inspect.getmembers(layers, inspect.isclass) if issubclass(kind, keras.Layer)]

    assert all(names.is_automatic(auto_name(kind), kind) for kind in [*kinds, "ReLU", "Conv2DTranspose", "MyHTTPLayer"])


def test_the_parse_tree_of_regular_expressions_is_as_it_was() -> None:
    made = list(itertools.islice(examples(r"(a|b)[0-9]{2}.*", "x", iter(range(9))), 2))

    assert all(re.fullmatch(r"(a|b)[0-9]{2}.*", each) for each in made)


def test_functional_models_are_built_from_tensors() -> None:
    assert keras_private.rebuilds_from_tensors(functional())


def test_variables_made_while_probing_have_shapes_and_are_forgotten() -> None:
    layer = keras.layers.Dense(3)
    with keras_private.probing():
        output = layer(keras.KerasTensor((None, 4)))
    assert tuple(output.shape) == (None, 3)
    assert tuple(layer.kernel.shape) == (4, 3)
    assert layer.kernel._value is None
    with keras.StatelessScope():
        pass  # at its end Keras would make what was left waiting
    assert layer.kernel._value is None


def test_a_cast_is_an_operator_with_a_name() -> None:
    operator = keras_private.cast_operator("float16", "door")
    output = operator(keras.Input((2,)))
    assert (operator.name, output.dtype) == ("door", "float16")


def test_a_container_hands_training_down_to_layers_and_not_to_operators() -> None:
    assert keras_private.takes_context(keras.layers.Dropout(0.1), "training")
    assert not keras_private.takes_context(keras_private.cast_operator("float16", "door"), "training")


def test_a_graph_says_which_inputs_it_does_not_take() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.ReLU()(x))
    keras_private.assert_takes(model, keras.KerasTensor((None, 4)))
    with pytest.raises(ValueError, match="incompatible"):
        keras_private.assert_takes(model, keras.KerasTensor((None, 5)))


class Kept(layers.Layer):
    def __init__(self, rate: float = 0.1, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.rate = rate


class Lost(keras.Model):
    def __init__(self, rate: float = 0.1, **kwargs: object) -> None:
        super().__init__(**kwargs)


def test_keras_keeps_the_arguments_of_a_layer_and_not_those_of_a_model() -> None:
    assert keras_private.kept_arguments(Kept(0.5)) == {"rate": 0.5}
    assert Lost(0.5).get_config()["rate"] == 0.1  # which is why they are not looked at
    assert keras_private.kept_arguments(Lost(0.5)) == {}
    assert keras_private.makes_its_config(Kept())
    assert not keras_private.makes_its_config(layers.Dense(1))


def test_what_keras_itself_keeps_on_a_model_is_known() -> None:
    model = functional()
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 6)), np.ones((2, 3)), verbose=0)

    assert set(vars(model)) <= keras_private.bookkeeping()
    assert "rate" not in keras_private.bookkeeping()


def test_a_layer_in_two_configurations_becomes_one_within_the_scope() -> None:
    inner = layers.Dense(2, name="inner")
    first, second = layers.TimeDistributed(inner, name="first"), layers.TimeDistributed(inner, name="second")
    copies: dict[int, object] = {}
    with keras_private.sharing(copies, [id(inner)]):
        one, other = (type(each).from_config(each.get_config()) for each in (first, second))

    assert one.layer is other.layer is copies[id(inner)]
    assert one.layer is not inner


def test_raw_is_the_value_that_no_autocast_rounds() -> None:
    layer = layers.Dense(1, dtype="mixed_float16")
    layer.build((None, 1))

    assert keras_private.raw(layer._kernel).dtype == "float32"
