"""What `nameplate.graph.keras_private` relies on in keras 3.15.1: each symbol, then what each is for."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import random
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from keras.src.backend.common import global_state

from nameplate.graph import keras_private
from nameplate.graph.copy_state import initialize_from, restore_initializers
from nameplate.naming import names
from nameplate.naming.suggestions import examples
from tests.nameplate.naming_models import KINDS, functional, sequential, shared, wrapped

# Each import from `keras.src`, and what calls of it look like.
IMPORTED = {
    "keras.src.backend.common.global_state.get_global_attribute": "(name, default=None, set_to_default=False)",
    "keras.src.backend.common.global_state.set_global_attribute": "(name, value)",
    "keras.src.models.functional.Functional": "(inputs, outputs, name=None, **kwargs)",
    "keras.src.models.functional.functional_like_constructor": "(cls)",
    "keras.src.ops.core.Cast": "(dtype, *, name=None)",
    "keras.src.ops.function.make_node_key": "(op, node_index)",
    "keras.src.saving.saving_lib.ObjectSharingScope": "()",
    "keras.src.saving.serialization_lib.SafeModeScope": "(safe_mode=True)",
    "keras.src.utils.rng_utils.GLOBAL_RANDOM_SEED": "",
}


def _graph() -> Any:
    image = keras.Input((4,), name="image")
    return keras.Model(image, layers.Dense(2, name="logits")(image), name="net")


def _built() -> Any:
    layer = layers.Dense(2, name="logits")
    layer.build((None, 4))
    return layer


def _stack() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


def _operator() -> Any:
    return keras_private.source(keras.ops.mean(keras.Input((4,)), axis=1))


def _node() -> Any:
    return keras_private.nodes(_graph())[-1][0]


def _lambda() -> Any:
    return layers.Lambda(abs, output_shape=(1,))


def _compiled() -> Any:
    model, seen = _graph(), types.SimpleNamespace()
    noting = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: vars(seen).update(vars(model)))
    model.compile("sgd", "mse")
    data = np.ones((2, 4)), np.ones((2, 2))
    model.fit(*data, validation_data=data, callbacks=[noting], verbose=0)
    return seen  # as it was in `fit`, which deletes some of it


def _masked() -> Any:
    return layers.Masking()(keras.Input((3, 4)))


# Each attribute that is read or written: an object that has it, and its type; for a method, its signature.
ATTRIBUTES: dict[str, tuple[Callable[[], Any], type | tuple[type, ...] | str]] = {
    "_operations": (_graph, list),
    "_nodes": (_graph, set),
    "_nodes_by_depth": (_graph, dict),
    "_inputs_struct": (_graph, object),
    "_outputs_struct": (_graph, object),
    "_inbound_nodes": (_operator, list),
    "_outbound_nodes": (_operator, list),
    "_call_context_args": (_built, set),
    "_layers": (_graph, list),
    "_metrics": (_built, list),
    "_losses": (_built, list),
    "_trainable_variables": (_built, list),
    "_non_trainable_variables": (_built, list),
    "_seed_generators": (lambda: layers.Dropout(0.5), list),
    "_trainable": (_built, bool),
    "_called": (_built, bool),
    "_supports_masking": (_built, bool),
    "_path": (_built, str),
    "_parent_path": (_built, str),
    "_auto_config": (_built, object),
    "_is_default": (lambda: keras.Model.get_config, bool),
    "_assert_input_compatibility": (_built, "(arg_0)"),
    "_kernel": (_built, keras.Variable),
    "_embeddings": (lambda: _seen(layers.Embedding(3, 2)), keras.Variable),
    "_output_shape": (_lambda, tuple),
    "_functional": (_stack, keras_private.Functional),
    "_keras_history": (lambda: keras.Input((4,)), tuple),
    "_keras_mask": (_masked, keras.KerasTensor),
    "_value": (lambda: _built().kernel, object),
    "_handle_name": (lambda: _built().kernel._value, str),
    "_initial_seed": (lambda: keras.random.SeedGenerator(1), int),
    "_compile_config": (_compiled, object),
    "_compiled_trainable_state": (_compiled, object),
    "_eval_epoch_iterator": (_compiled, object),
    "_jax_state": (_compiled, object),
}
# The same without an underscore, of classes that Keras does not export (ops/node.py, ops/symbolic_arguments.py).
NODES: dict[str, tuple[Callable[[], Any], type | str]] = {
    "operation": (_node, keras.Operation),
    "arguments": (_node, object),
    "outputs": (_node, list),
    "parent_nodes": (_node, list),
    "is_input": (_node, bool),
    "keras_tensors": (lambda: _node().arguments, list),
    "fill_in": (lambda: _node().arguments, "(tensor_dict)"),
}
NAMES = [*ATTRIBUTES, *NODES]
BACKEND = {"_handle_name": "tensorflow", "_jax_state": "jax"}
# Names under which Keras keeps its state of the whole process.
GLOBAL_KEYS = {
    "name_scope_stack": (list, lambda: _scoped()),
    "object_name_uids": (dict, layers.Flatten),
    "uninitialized_variables": (list, lambda: _uninitialized()),
    "global_random_seed": (int, lambda: keras.utils.set_random_seed(1)),
}


def _seen(layer: Any) -> Any:
    layer(keras.KerasTensor((None, 4)))
    return layer


def _scoped() -> None:
    with keras.name_scope("top"):
        pass


def _uninitialized() -> None:
    with keras.StatelessScope(initialize_variables=False):
        layers.Dense(1).build((None, 1))


@pytest.mark.parametrize("symbol", IMPORTED)
def test_an_imported_symbol_is_there_with_its_signature(symbol: str) -> None:
    module, _, name = symbol.rpartition(".")
    found = getattr(importlib.import_module(module), name, None)

    assert found is not None, f"keras {keras.__version__} has no {symbol}; see nameplate/graph/keras_private.py"
    if IMPORTED[symbol]:
        called = found.__init__ if inspect.isclass(found) and "__init__" in vars(found) else found
        signature = str(inspect.signature(called)).replace("(self, ", "(").replace("(self)", "()")
        assert signature == IMPORTED[symbol], f"{symbol} of keras {keras.__version__} takes {signature}"


@pytest.mark.parametrize("name", NAMES)
def test_an_attribute_is_there_with_its_type(name: str) -> None:
    if keras.backend.backend() != BACKEND.get(name, keras.backend.backend()):
        pytest.skip(f"only Keras on {BACKEND[name]} has it")
    make, kind = {**ATTRIBUTES, **NODES}[name]
    holder = make()

    assert hasattr(holder, name), f"{type(holder).__name__} of keras {keras.__version__} has no {name}"
    value = getattr(holder, name)
    if isinstance(kind, str):
        assert str(inspect.signature(value)) == kind, f"{name} of keras {keras.__version__} is called otherwise"
    else:
        assert isinstance(value, kind), f"{name} of keras {keras.__version__} is a {type(value).__name__}"


@pytest.mark.parametrize("key", GLOBAL_KEYS)
def test_the_state_of_the_process_is_under_its_key(key: str) -> None:
    kind, use = GLOBAL_KEYS[key]
    with keras_private.undisturbed():
        use()
        value = global_state.get_global_attribute(key)

    assert isinstance(value, kind), f"keras {keras.__version__} keeps {key!r} elsewhere: found {value!r}"


def test_the_tables_have_all_that_the_module_uses() -> None:
    tree = _parsed(Path(inspect.getfile(keras_private)))
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "keras.src" in str(node.module)]
    imported = {f"{node.module}.{alias.name}" for node in modules for alias in node.names}

    of_modules = {name for name in imported if inspect.ismodule(_resolved(name))}
    used = {
        f"{module}.{node.attr}"
        for node in ast.walk(tree)
        for module in of_modules
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and module.endswith(f".{node.value.id}")
    }
    assert (imported - of_modules) | used == set(IMPORTED)
    assert set(_private_attributes(tree)) == set(ATTRIBUTES)


ROOMS = ("graph", "io", "surgery")


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_module_uses_what_is_private(room: str) -> None:
    strays = []
    for path in sorted(Path(inspect.getfile(keras_private)).parents[1].joinpath(room).glob("*.py")):
        if path.name == "keras_private.py":
            continue
        tree = _parsed(path)
        strays += [f"{path.name}: {name}" for name in _private_attributes(tree) if not name.startswith("_nameplate")]
        strays += [
            f"{path.name}: {text}"
            for node in ast.walk(tree)
            for text in [getattr(node, "module", None) or getattr(node, "value", None)]
            if isinstance(text, str) and text.startswith("keras.src")
        ]

    assert not strays, "these belong in nameplate/graph/keras_private.py"


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _resolved(symbol: str) -> Any:
    module, _, name = symbol.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _private_attributes(tree: ast.Module) -> Iterator[str]:
    """Yield the attributes with an underscore of other objects, whether written out, in a string or as a keyword."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    documentation |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        name: object = None
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            name = node.attr
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            name = node.value
        elif isinstance(node, ast.keyword):
            name = node.arg
        if isinstance(name, str) and re.fullmatch(r"_[a-z][a-z_]+", name) and name not in OURS:
            yield name


OURS = ("_fields", "_self_")  # of named tuples; a prefix


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


@pytest.mark.tensorflow
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


@pytest.mark.tensorflow
def test_a_scope_that_failed_is_taken_off_the_stack() -> None:
    import tensorflow as tf
    from keras.src.backend.common.name_scope import current_path
    from keras.src.backend.tensorflow.core import name_scope

    with keras_private.name_scopes_restored(), tf.Graph().as_default(), pytest.raises(ValueError, match="scope"):
        name_scope("a:0").__enter__()

    assert current_path() == ""


def test_an_operator_can_be_copied_without_its_graph() -> None:
    x = keras.Input((4,), name="x")
    operator = keras_private.source(keras.ops.mean(x, axis=1))
    copy = keras_private.detached(operator, "average")

    assert (copy.name, copy.axis) == ("average", operator.axis)
    assert copy._inbound_nodes == []
    assert len(operator._inbound_nodes) == 1


def test_variables_can_be_born_with_their_values() -> None:
    source, fresh = layers.Dense(2, name="a"), layers.Dense(2, name="a")
    source.build((None, 3))
    made: set[int] = set()
    initialize_from(fresh, source, made)
    fresh.build((None, 3))
    restore_initializers(fresh)

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
    assert keras_private.recorded_arguments(Kept(0.5)) == {"rate": 0.5}
    assert Lost(0.5).get_config()["rate"] == 0.1  # which is why they are not looked at
    assert keras_private.recorded_arguments(Lost(0.5)) == {}
    assert keras_private.has_default_config(Kept())
    assert not keras_private.has_default_config(layers.Dense(1))


def test_what_keras_itself_keeps_on_a_model_is_known() -> None:
    model = functional()
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 6)), np.ones((2, 3)), verbose=0)

    assert set(vars(model)) <= keras_private.internal_attributes()
    assert "rate" not in keras_private.internal_attributes()


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
