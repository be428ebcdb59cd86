"""Every use of Keras' private API, each as it stands in keras 3.15.1 with tensorflow 2.21.

tests/models/test_keras_private.py fails when one of them changes.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import StatelessScope
from keras.src.models.functional import Functional as Functional
from keras.src.models.functional import functional_like_constructor
from keras.src.ops.core import Cast
from keras.src.ops.function import make_node_key
from keras.src.saving import saving_lib
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

from nameplate.graph import global_state as random_stream

# ---- what a model is made of ------------------------------------------------------------------------------------


def operations(model: Any) -> Sequence[Any]:
    """Return the operations of a functional graph, inputs first (`Function._operations`, ops/function.py)."""
    return model._operations


def sublayers(layer: Any) -> Sequence[Any]:
    """Return the layers that a layer tracks, in the order they came (`Layer._layers`, layers/layer.py)."""
    return getattr(layer, "_layers", ())


def stacked(model: Any) -> Sequence[Any]:
    """Return a Sequential's layers with its input, which its `layers` leaves out (models/sequential.py)."""
    return model._layers


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer itself, without its sublayers' (layers/layer.py)."""
    return [*getattr(layer, "_trainable_variables", ()), *getattr(layer, "_non_trainable_variables", ())]


def seed_generators(layer: Any) -> Sequence[Any]:
    """Return the seed generators of a layer itself (`Layer._seed_generators`, layers/layer.py)."""
    return getattr(layer, "_seed_generators", ())


def has_state(layer: Any) -> bool:
    """Tell whether a layer itself has a variable or a seed generator."""
    held = vars(layer)
    return any(held.get(key) for key in ("_trainable_variables", "_non_trainable_variables", "_seed_generators"))


def takes_one_layer(layer: Any) -> bool:
    """Tell whether a layer wraps one that the caller gave: a wrapper, or an RNN around its cell."""
    one = (keras.layers.Wrapper, keras.layers.Bidirectional)
    return isinstance(layer, one) or type(layer) is keras.layers.RNN


def makes_its_parts(layer: Any) -> bool:
    """Tell whether a layer's sublayers are made by code of Keras, as MultiHeadAttention's are."""
    if isinstance(layer, keras.Model) or takes_one_layer(layer):
        return False
    return any(kind.__module__.startswith("keras.src.layers.") and kind not in _GIVEN for kind in type(layer).__mro__)


_GIVEN = (keras.layers.Layer, keras.layers.StackedRNNCells, keras.layers.Pipeline)


def stack_graph(model: Any) -> Any:
    """Return the graph that a Sequential runs, None before it is built (`Sequential._functional`)."""
    return model._functional


def graph_of(model: Any) -> Any:
    """Return the functional graph of a model that has one: a Sequential's is inside it."""
    return stack_graph(model) if isinstance(model, keras.Sequential) else model


# ---- a functional graph -----------------------------------------------------------------------------------------


def nodes(model: Any) -> list[tuple[Any, Any, int]]:
    """Return (node, operation, which call of the operation) of a graph, deepest first (ops/function.py).

    The call counts among the operation's calls in this graph.
    """
    place: dict[int, int] = {}
    for operation in model._operations:
        own = (
            node
            for index, node in enumerate(operation._inbound_nodes)
            if make_node_key(operation, index) in model._nodes
        )
        place.update({id(node): call for call, node in enumerate(own)})
    depths = sorted(model._nodes_by_depth, reverse=True)
    found = [node for depth in depths for node in model._nodes_by_depth[depth]]
    return [(node, node.operation, place[id(node)]) for node in found]


def source(tensor: Any) -> Any:
    """Return the operation that a symbolic tensor comes from (`KerasTensor._keras_history`, ops/node.py)."""
    return tensor._keras_history.operation


def has_source(tensor: Any) -> bool:
    """Return whether a symbolic tensor comes from an operation: one made by hand, as a spec, does not."""
    return getattr(tensor, "_keras_history", None) is not None


def mask_of(tensor: Any) -> Any:
    """Return the mask that a tensor carries, None where it has none (`_keras_mask`, backend/common/masking.py)."""
    return getattr(tensor, "_keras_mask", None)


def inputs_struct(model: Any) -> Any:
    """Return a graph's input tensors in the structure that its caller gave (`Function._inputs_struct`)."""
    return getattr(model, "_inputs_struct", None)


def outputs_struct(model: Any) -> Any:
    """Return a graph's output tensors in the structure that its caller gave (`Function._outputs_struct`)."""
    return getattr(model, "_outputs_struct", None)


def rebuilds_from_tensors(model: Any) -> bool:
    """Tell whether a functional model's class is constructed as `cls(inputs, outputs, name=)` (functional.py)."""
    return bool(functional_like_constructor(type(model)))


def assert_takes(model: Any, *arguments: Any) -> None:
    """Raise ValueError where a graph does not take these inputs (`Layer._assert_input_compatibility`, layer.py)."""
    model._assert_input_compatibility(*arguments)


def takes_context(operation: Any, key: str) -> bool:
    """Tell whether a container hands a call argument down to this operation (`operation_fn`, functional.py)."""
    return key in getattr(operation, "_call_context_args", {})


def wired_anew(operation: Any, name: str) -> Any:
    """Return an operator like this one, under another name and in no graph: it holds no state (operation.py)."""
    fresh = object.__new__(type(operation))
    fresh.__dict__.update(operation.__dict__)
    fresh.__dict__.update(name=name, _inbound_nodes=[], _outbound_nodes=[])
    return fresh


def cast_operator(dtype: str, name: str) -> Any:
    """Return the operator behind `keras.ops.cast`, with a name (ops/core.py)."""
    return Cast(dtype, name=name)


def live_lambda(layer: Any, name: str) -> Any:
    """Return a Lambda around the same Python functions (layers/core/lambda_layer.py); no code goes through bytes."""
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=layer.dtype_policy,
    )


def raw(variable: Any) -> Any:
    """Return a variable's value in its own dtype, which `value` rounds inside a call in lower precision (`_value`)."""
    return variable._value


def carry_functions(source: Any, target: Any) -> None:
    """Give a Lambda the functions of another, for one that was made from a configuration."""
    target.function, target.mask, target._output_shape = source.function, source.mask, source._output_shape


def carry_seed(source: Any, target: Any) -> None:
    """Give a seed generator the name and first seed of another (random/seed_generator.py); its state is a variable."""
    target.name, target._initial_seed = source.name, source._initial_seed


def kept_arguments(layer: Any) -> dict[str, Any]:
    """Return the constructor's arguments, defaults too, as Keras keeps them (`Operation.__new__`, operation.py).

    Empty where one is no plain value, and for every model: `Model.__new__` hands none of them on.
    """
    return {} if isinstance(layer, keras.Model) else dict(constructor_arguments(layer))


def makes_its_config(layer: Any) -> bool:
    """Tell whether Keras makes a layer's configuration from its constructor's arguments (`python_utils.default`)."""
    return bool(getattr(type(layer).get_config, "_is_default", False))


@functools.cache
def bookkeeping() -> frozenset[str]:
    """Return the attributes that Keras itself gives to layers and models, whatever their class."""
    with undisturbed():
        image, layer = keras.Input((1,), name="image"), keras.layers.Identity(name="layer")
        graph = keras.Model(image, layer(image), name="graph")
        stack = keras.Sequential([keras.Input((1,), name="image"), layer], name="stack")
        model = keras.Model(name="model")
    return frozenset(_TRAINED).union(*(vars(each) for each in (layer, graph, stack, model)))


_TRAINED = (  # what compile and fit add (trainers/trainer.py)
    *("_compile_config", "_compiled_trainable_state", "_eval_epoch_iterator", "history", "optimizer"),
    *("stop_evaluating", "stop_predicting", "stop_training"),
)


@contextlib.contextmanager
def sharing(copies: MutableMapping[int, Any], known: Collection[int]) -> Iterator[None]:
    """Let each layer that a configuration holds become the copy that there is, or the one that all others get.

    Keras marks what it serialized before by its id, and makes one object of each mark (`ObjectSharingScope`,
    saving/serialization_lib.py); here every layer in `known`, and nothing else, is marked from the start.

    Args:
        copies: `{id(layer): copy}`; read, and written to.
        known: ids of layers that live as long as the scope.
    """
    keys = ("shared_objects/id_to_obj_map", "shared_objects/id_to_config_map")
    before = [global_state.get_global_attribute(key) for key in keys]
    try:
        for key, value in zip(keys, (copies, _Marked({key: {} for key in known})), strict=True):
            global_state.set_global_attribute(key, value)
        yield
    finally:
        for key, value in zip(keys, before, strict=True):
            global_state.set_global_attribute(key, value)


@contextlib.contextmanager
def marked(known: Collection[int]) -> Iterator[None]:
    """Let a file that Keras writes say of each of these layers which one it is (`saving_lib.save_model`).

    Keras marks what it meets again, and the first time after the fact; where that lies in a wrapper, the mark goes to a
    dictionary that is not in the file, and what was one layer comes back as two.
    """
    scope = saving_lib.ObjectSharingScope
    saving_lib.ObjectSharingScope = lambda: sharing({}, known)
    try:
        yield
    finally:
        saving_lib.ObjectSharingScope = scope


class _Marked(dict[int, Any]):
    """What counts as serialized before; an id that comes later may be that of something gone, and is not kept."""

    def __setitem__(self, key: int, value: Any) -> None:
        if key in self:
            super().__setitem__(key, value)


# ---- names ------------------------------------------------------------------------------------------------------


def rename_layer(layer: Any, name: str, path: str | None) -> None:
    """Give a layer that is in nobody's hands yet its name and path (`name`, `_path`, `_parent_path`, layer.py).

    An input's tensor has the same name (layers/core/input_layer.py); a graph's `output_names` come after its layers.
    """
    layer.name = name
    if path is not None:
        layer._path = path
        if layer._parent_path is not None:
            layer._parent_path = path.rpartition("/")[0]
    if isinstance(layer, keras.layers.InputLayer):
        layer.output.name = name


def rename_outputs(model: Any) -> None:
    """Bring a graph's `output_names` up to its layers' names (`Functional.__init__`)."""
    model.output_names = [source(tensor).name for tensor in model.outputs]


def rename_variable(variable: Any, path: str) -> None:
    """Give a variable its path, and TensorFlow's variable behind it the name that exports show.

    `Variable._path` (backend/common/variables.py); `_handle_name` of tensorflow 2.21's resource variables, of which a
    mirrored one has several.
    """
    variable._path = path
    inner = variable._value
    for index, component in enumerate(getattr(inner, "values", None) or [inner]):
        if hasattr(component, "_handle_name"):
            component._handle_name = f"{path}{f'/replica_{index}' if index else ''}:0"


def reads_configuration() -> bool:
    """Tell whether Keras is making objects of a configuration (`SafeModeScope`, saving/serialization_lib.py)."""
    return global_state.get_global_attribute("safe_mode_saving") is not None


def constructor_arguments(layer: Any) -> dict[str, Any]:
    """Return what a layer was made with, without its name, where that is plain data (`Operation.__new__`)."""
    return getattr(getattr(layer, "_auto_config", None), "config", None) or {}


def automatic_counts() -> dict[str, int]:
    """Return Keras' counters of automatic names, live: word -> how many there were (utils/naming.py)."""
    counts: dict[str, int] | None = global_state.get_global_attribute("object_name_uids")
    if counts is None:
        keras.backend.get_uid("")  # makes them
        counts = global_state.get_global_attribute("object_name_uids")
        counts.pop("", None)
    return counts


# ---- scopes -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leave no trace: automatic names, Python's random numbers and the stack of name scopes are as before.

    Keras draws a seed from `random` for every initializer without one, so what is made inside draws from
    `nameplate.graph.global_state`; a layer whose name TensorFlow refuses leaves its scope on the stack
    (`name_scope.__enter__`, backend/tensorflow/core.py).
    """
    counts = automatic_counts()
    before = dict(counts)
    try:
        with scopes_kept(), random_stream.own(seed_given, mark_seed):
            yield
    finally:
        counts.clear()
        counts.update(before)


def seed_given() -> Any:
    """Return what `keras.utils.set_random_seed` stored, None where nobody called it (utils/rng_utils.py)."""
    return global_state.get_global_attribute(GLOBAL_RANDOM_SEED)


def mark_seed(seed: int) -> None:
    """Put an equal integer in its place, which the next `set_random_seed` takes away again."""
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)


@contextlib.contextmanager
def scopes_kept() -> Iterator[None]:
    """Take what a failure leaves on the stack of name scopes off it (`name_scope.__enter__`)."""
    stack = global_state.get_global_attribute("name_scope_stack", default=[], set_to_default=True)
    depth = len(stack)
    try:
        yield
    finally:
        del stack[depth:]


@contextlib.contextmanager
def deep_graphs(nodes: int) -> Iterator[None]:
    """Let Keras walk a graph of this many nodes in a row: it recurses once a node (`_build_map_helper`).

    Frames of Python 3.11 and later take no C stack, so that only the limit stands in the way.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 2 * nodes + 1000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def live_code() -> Any:
    """Return a scope in which a configuration's Python lambdas may become functions (serialization_lib.py).

    For the configuration of an object in memory only: its code runs in this process already.
    """
    return SafeModeScope(False)


@contextlib.contextmanager
def probing() -> Iterator[None]:
    """Learn shapes: variables made inside have a shape and no value, and are forgotten (`StatelessScope`).

    Keras keeps them in a list to make them later (`register_uninitialized_variable`, backend/common/variables.py).
    """
    waiting = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    count = len(waiting)
    try:
        with StatelessScope(initialize_variables=False):
            yield
    finally:
        del waiting[count:]


def copy_flags(source: Any, target: Any) -> None:
    """Give a layer the flags that a configuration does not carry for every part of it (layers/layer.py)."""
    target._trainable = source._trainable
    target._called = source._called  # an export asks for it
    target.autocast = source.autocast
    target._supports_masking = source._supports_masking
    for old, new in zip(own_variables(source), own_variables(target), strict=True):
        new.trainable = old.trainable
