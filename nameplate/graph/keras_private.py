"""The private parts of Keras that `graph`, `io` and `surgery` rely on, of keras 3.15.1.

No other module of these rooms imports `keras.src` or reads an attribute of Keras that begins with an underscore.
tests/nameplate/graph/test_keras_private.py has a table of every symbol used here and says which one has changed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional as Functional
from keras.src.models.functional import functional_like_constructor
from keras.src.ops.core import Cast
from keras.src.ops.function import make_node_key
from keras.src.saving import saving_lib
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

from nameplate.graph.global_state import private_random_numbers

# ---- the parts of a layer ---------------------------------------------------------------------------------------


def operations(model: Any) -> Sequence[Any]:
    """Return the operations of a functional graph, inputs first (`Function._operations`, ops/function.py)."""
    return model._operations


def sublayers(layer: Any) -> Sequence[Any]:
    """Return the layers that a layer tracks, in the order of their assignment (`Layer._layers`, layers/layer.py)."""
    return getattr(layer, "_layers", ())


def stacked(model: Any) -> Sequence[Any]:
    """Return a Sequential's layers with its input layer, which `Sequential.layers` hides (models/sequential.py)."""
    return model._layers


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer itself, without its sublayers' (layers/layer.py)."""
    return [*getattr(layer, "_trainable_variables", ()), *getattr(layer, "_non_trainable_variables", ())]


def seed_generators(layer: Any) -> Sequence[Any]:
    """Return the seed generators of a layer itself (`Layer._seed_generators`, layers/layer.py)."""
    return getattr(layer, "_seed_generators", ())


def has_state(layer: Any) -> bool:
    """Return whether a layer itself has a variable or a seed generator."""
    held = vars(layer)
    return any(held.get(key) for key in ("_trainable_variables", "_non_trainable_variables", "_seed_generators"))


def takes_one_layer(layer: Any) -> bool:
    """Return whether a layer wraps one that the caller passed: a wrapper, or an RNN around its cell."""
    wrappers = (keras.layers.Wrapper, keras.layers.Bidirectional)
    return isinstance(layer, wrappers) or type(layer) is keras.layers.RNN


def makes_its_parts(layer: Any) -> bool:
    """Return whether Keras' own code creates a layer's sublayers, as in MultiHeadAttention."""
    if isinstance(layer, keras.Model) or takes_one_layer(layer):
        return False
    classes = (kind for kind in type(layer).__mro__ if kind not in _TAKES_LAYERS)
    return any(kind.__module__.startswith("keras.src.layers.") for kind in classes)


_TAKES_LAYERS = (keras.layers.Layer, keras.layers.StackedRNNCells, keras.layers.Pipeline)

# Lists in which a layer keeps what it tracks, beside the author's own attributes (layers/layer.py).
TRACKING_LISTS = frozenset(
    ["_trainable_variables", "_non_trainable_variables", "_layers", "_metrics", "_seed_generators", "_losses"]
)


def adapted_variable(layer: Any) -> Any:
    """Return the variable that LoRA adapts: a kernel or an embedding table, without the adapter (`_kernel`)."""
    kernel = getattr(layer, "_kernel", None)
    return getattr(layer, "_embeddings", None) if kernel is None else kernel


def stack_graph(model: Any) -> Any:
    """Return the graph that a Sequential runs; None before it is built (`Sequential._functional`)."""
    return model._functional


def graph_of(model: Any) -> Any:
    """Return the functional graph of a model that has one; a Sequential keeps its graph inside."""
    return stack_graph(model) if isinstance(model, keras.Sequential) else model


# ---- a functional graph -----------------------------------------------------------------------------------------


def nodes(model: Any) -> list[tuple[Any, Any, int]]:
    """Return (node, operation, index of the call) for every call in a graph, deepest first (ops/function.py).

    The index counts the operation's calls in this graph only; other graphs may call it too.
    """
    call_index: dict[int, int] = {}
    for operation in model._operations:
        own = (
            node
            for index, node in enumerate(operation._inbound_nodes)
            if make_node_key(operation, index) in model._nodes
        )
        call_index.update({id(node): call for call, node in enumerate(own)})
    depths = sorted(model._nodes_by_depth, reverse=True)
    ordered = [node for depth in depths for node in model._nodes_by_depth[depth]]
    return [(node, node.operation, call_index[id(node)]) for node in ordered]


def source(tensor: Any) -> Any:
    """Return the operation that produced a symbolic tensor (`KerasTensor._keras_history`, ops/node.py)."""
    return tensor._keras_history.operation


def has_source(tensor: Any) -> bool:
    """Return whether an operation produced a symbolic tensor; a `KerasTensor` made by hand has no history."""
    return getattr(tensor, "_keras_history", None) is not None


def mask_of(tensor: Any) -> Any:
    """Return the mask that a tensor carries, or None (`_keras_mask`, backend/common/masking.py)."""
    return getattr(tensor, "_keras_mask", None)


def inputs_struct(model: Any) -> Any:
    """Return a graph's input tensors in the structure that the caller passed (`Function._inputs_struct`)."""
    return getattr(model, "_inputs_struct", None)


def outputs_struct(model: Any) -> Any:
    """Return a graph's output tensors in the structure that the caller passed (`Function._outputs_struct`)."""
    return getattr(model, "_outputs_struct", None)


def rebuilds_from_tensors(model: Any) -> bool:
    """Return whether a functional model's class is constructed as `cls(inputs, outputs, name=)` (functional.py)."""
    return bool(functional_like_constructor(type(model)))


def assert_takes(model: Any, *arguments: Any) -> None:
    """Raise ValueError if a graph does not accept these inputs (`Layer._assert_input_compatibility`, layer.py)."""
    model._assert_input_compatibility(*arguments)


def takes_context(operation: Any, key: str) -> bool:
    """Return whether a container passes a call argument on to this operation (`operation_fn`, functional.py)."""
    return key in getattr(operation, "_call_context_args", {})


def detached(operation: Any, name: str) -> Any:
    """Return a copy of an operator under another name, in no graph; operators have no state (ops/operation.py)."""
    fresh = object.__new__(type(operation))
    fresh.__dict__.update(operation.__dict__)
    fresh.__dict__.update(name=name, _inbound_nodes=[], _outbound_nodes=[])
    return fresh


def cast_operator(dtype: str, name: str) -> Any:
    """Return the operator behind `keras.ops.cast`, under a name (ops/core.py)."""
    return Cast(dtype, name=name)


def live_lambda(layer: Any, name: str) -> Any:
    """Return a Lambda around the same Python functions, which are not serialized (layers/core/lambda_layer.py)."""
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=layer.dtype_policy,
    )


def raw(variable: Any) -> Any:
    """Return a variable's value in its own dtype (`_value`); `value` is cast inside a call in lower precision."""
    return variable._value


def copy_functions(source: Any, target: Any) -> None:
    """Give a Lambda that was made from a configuration the functions of the original."""
    target.function, target.mask, target._output_shape = source.function, source.mask, source._output_shape


def copy_seed(source: Any, target: Any) -> None:
    """Give a seed generator the name and initial seed of another (random/seed_generator.py), not its state."""
    target.name, target._initial_seed = source.name, source._initial_seed


def constructor_arguments(layer: Any) -> dict[str, Any]:
    """Return the constructor's arguments that Keras recorded, with defaults and without the name (operation.py).

    Empty if one of them is not plain data.
    """
    return getattr(getattr(layer, "_auto_config", None), "config", None) or {}


def recorded_arguments(layer: Any) -> dict[str, Any]:
    """Return `constructor_arguments`; none for a model, of which Keras records only the defaults."""
    return {} if isinstance(layer, keras.Model) else dict(constructor_arguments(layer))


def has_default_config(layer: Any) -> bool:
    """Return whether Keras derives a layer's configuration from its constructor (`python_utils.default`)."""
    return bool(getattr(type(layer).get_config, "_is_default", False))


@functools.cache
def internal_attributes() -> frozenset[str]:
    """Return the attributes that Keras itself sets on layers and models, whatever their class."""
    with undisturbed():
        image, layer = keras.Input((1,), name="image"), keras.layers.Identity(name="layer")
        graph = keras.Model(image, layer(image), name="graph")
        stack = keras.Sequential([keras.Input((1,), name="image"), layer], name="stack")
        model = keras.Model(name="model")
    # What compile and fit add (trainers/trainer.py).
    trained = {"history", "optimizer", "stop_evaluating", "stop_predicting", "stop_training", "_jax_state"}
    trained |= {"_compile_config", "_compiled_trainable_state", "_eval_epoch_iterator"}
    return frozenset(trained).union(*(vars(part) for part in (layer, graph, stack, model)))


@contextlib.contextmanager
def sharing(copies: MutableMapping[int, Any], known: Collection[int]) -> Iterator[None]:
    """Deserialize each of these layers once, so that configurations that contain the same layer share its copy.

    Keras marks an object that it has serialized before with its id and makes one object per mark (`ObjectSharingScope`,
    saving/serialization_lib.py). Here the layers in `known`, and nothing else, are marked from the start.

    Args:
        copies: `{id(layer): copy}`; copies in it are used, new ones are added.
        known: ids of layers that live at least as long as the scope.
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
    """Let Keras mark these layers as shared objects in the file that it writes (`saving_lib.save_model`).

    Keras marks an object when it meets it the second time, and then adds the mark to the first configuration. Inside a
    wrapper that first configuration is a copy that is not in the file, so one layer would come back as two.
    """
    scope = saving_lib.ObjectSharingScope
    saving_lib.ObjectSharingScope = lambda: sharing({}, known)
    try:
        yield
    finally:
        saving_lib.ObjectSharingScope = scope


class _Marked(dict[int, Any]):
    """The objects that count as serialized before; later ids are not added, since Python reuses ids of dead objects."""

    def __setitem__(self, key: int, value: Any) -> None:
        if key in self:
            super().__setitem__(key, value)


# ---- names ------------------------------------------------------------------------------------------------------


def rename_layer(layer: Any, name: str, path: str | None) -> None:
    """Give a layer that no caller has seen yet its name and path (`name`, `_path`, `_parent_path`, layer.py).

    The tensor of an input layer has the layer's name (layers/core/input_layer.py). `rename_outputs` comes after this.
    """
    layer.name = name
    if path is not None:
        layer._path = path
        if layer._parent_path is not None:
            layer._parent_path = path.rpartition("/")[0]
    if isinstance(layer, keras.layers.InputLayer):
        layer.output.name = name


def rename_outputs(model: Any) -> None:
    """Set a graph's `output_names` to the names of its layers, as `Functional.__init__` does."""
    model.output_names = [source(tensor).name for tensor in model.outputs]


def rename_variable(variable: Any, path: str) -> None:
    """Give a variable its path, and the TensorFlow variable behind it the name that exports show.

    `Variable._path` (backend/common/variables.py); `_handle_name` of the resource variables of tensorflow 2.21, of
    which a mirrored variable has one a replica.
    """
    variable._path = path
    inner = variable._value
    for index, component in enumerate(getattr(inner, "values", None) or [inner]):
        if hasattr(component, "_handle_name"):
            component._handle_name = f"{path}{f'/replica_{index}' if index else ''}:0"


def is_deserializing() -> bool:
    """Return whether Keras is making objects from a configuration (`SafeModeScope`, saving/serialization_lib.py)."""
    return global_state.get_global_attribute("safe_mode_saving") is not None


def automatic_counts() -> dict[str, int]:
    """Return Keras' own dictionary `{word: how many automatic names it has had}`, to be changed (utils/naming.py)."""
    counts: dict[str, int] | None = global_state.get_global_attribute("object_name_uids")
    if counts is None:
        keras.backend.get_uid("")  # creates the dictionary
        counts = global_state.get_global_attribute("object_name_uids")
        counts.pop("", None)
    return counts


# ---- scopes -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Restore automatic names, the global random generators and the stack of name scopes afterwards.

    Keras draws a seed from `random` for every initializer without one, so layers made inside draw from a generator of
    our own (`global_state.private_random_numbers`). A layer whose name TensorFlow refuses leaves its scope on the stack
    (`name_scope.__enter__`, backend/tensorflow/core.py).
    """
    counts = automatic_counts()
    before = dict(counts)
    try:
        with name_scopes_restored(), private_random_numbers(global_seed, mark_global_seed):
            yield
    finally:
        counts.clear()
        counts.update(before)


def global_seed() -> Any:
    """Return what `keras.utils.set_random_seed` stored, or None if it was never called (utils/rng_utils.py)."""
    return global_state.get_global_attribute(GLOBAL_RANDOM_SEED)


def mark_global_seed(seed: int) -> None:
    """Store an equal integer of another type, which the next `set_random_seed` overwrites."""
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)


@contextlib.contextmanager
def name_scopes_restored() -> Iterator[None]:
    """Remove afterwards what a failure left on the stack of name scopes (`name_scope.__enter__`)."""
    stack = global_state.get_global_attribute("name_scope_stack", default=[], set_to_default=True)
    depth = len(stack)
    try:
        yield
    finally:
        del stack[depth:]


def live_code() -> Any:
    """Return a scope in which Keras deserializes Python lambdas (`SafeModeScope`, serialization_lib.py).

    Only for configurations of objects in memory, whose code runs in this process already.
    """
    return SafeModeScope(False)


@contextlib.contextmanager
def probing() -> Iterator[None]:
    """Create variables that have a shape and no value, to learn what a layer would build.

    Keras lists such variables to initialize them later (`register_uninitialized_variable`, common/variables.py); they
    are removed from that list.
    """
    waiting = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    count = len(waiting)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        del waiting[count:]


def copy_flags(source: Any, target: Any) -> None:
    """Give a layer the flags of another that its configuration does not contain (layers/layer.py)."""
    target._trainable = source._trainable
    target._called = source._called  # an export requires it
    target.autocast = source.autocast
    target._supports_masking = source._supports_masking
    for old, new in zip(own_variables(source), own_variables(target), strict=True):
        new.trainable = old.trainable
