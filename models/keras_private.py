"""Every use of Keras' private API, each as it stands in keras 3.15.1 with tensorflow 2.21.

tests/models/test_keras_private.py fails when one of them changes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import StatelessScope
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.ops.core import Cast
from keras.src.ops.function import make_node_key
from keras.src.ops.operation import Operation
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

from models import random_stream

__all__ = [
    "Functional",
    "Operation",
    "assert_takes",
    "automatic_counts",
    "carry_functions",
    "carry_seed",
    "cast_operator",
    "constructor_arguments",
    "copy_flags",
    "deep_graphs",
    "graph_of",
    "has_state",
    "inputs_struct",
    "live_code",
    "live_lambda",
    "makes_its_parts",
    "mark_seed",
    "mask_of",
    "nodes",
    "operations",
    "outputs_struct",
    "own_variables",
    "probing",
    "reads_configuration",
    "rebuilds_from_tensors",
    "rename_layer",
    "rename_outputs",
    "rename_variable",
    "seed_generators",
    "seed_given",
    "source",
    "stack_graph",
    "stacked",
    "sublayers",
    "takes_context",
    "takes_one_layer",
    "undisturbed",
    "wired_anew",
]


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


def born_with(layer: Any, source: Any, made: set[int]) -> None:
    """Let a new layer make its variables with the values of another's (`Layer.add_weight`, layer.py), until `born`.

    It saves drawing random numbers that nobody will see. Matched by name and shape, the ids go to `made`; the rest
    begins as usual.
    """
    values = {(each.name, tuple(each.shape)): each for each in own_variables(source)}
    add_weight = layer.add_weight

    def add_weight_with_value(*arguments: Any, **keywords: Any) -> Any:
        shape = keywords.get("shape", arguments[0] if arguments else ())
        known = values.pop((keywords.get("name"), tuple(shape or ())), None)
        if known is None or len(arguments) > 1:
            return add_weight(*arguments, **keywords)
        value = known._value  # `value` would be rounded inside a call in lower precision
        variable = add_weight(
            *arguments, **{**keywords, "initializer": lambda *_, **__: keras.ops.convert_to_tensor(value)}
        )
        made.add(id(variable))
        return variable

    layer.__dict__["add_weight"] = add_weight_with_value


def born(layer: Any) -> None:
    """Give a layer its own `add_weight` back."""
    layer.__dict__.pop("add_weight", None)


def carry_functions(source: Any, target: Any) -> None:
    """Give a Lambda the functions of another, for one that was made from a configuration."""
    target.function, target.mask, target._output_shape = source.function, source.mask, source._output_shape


def carry_seed(source: Any, target: Any) -> None:
    """Give a seed generator the name and first seed of another (random/seed_generator.py); its state is a variable."""
    target.name, target._initial_seed = source.name, source._initial_seed


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
    `models.random_stream`; a layer whose name TensorFlow refuses leaves its scope on the stack
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
