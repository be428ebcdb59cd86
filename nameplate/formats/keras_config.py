"""Configurations of Keras models as data: converted from Keras 2, and searched for anything unsafe or unknown."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nameplate.naming import names

_CONTAINERS = ("Functional", "Model", "Sequential")


def modernized(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a Keras 2 model such that Keras 3 finds every call of every nested model.

    In Keras 2 a nested model counted its own construction as call 0, so that its first use was call 1, and a single
    input or output was written as a list of one.
    """
    result = copy.deepcopy(dict(config))
    if isinstance(result.get("config"), list):  # a Sequential before Keras 2.2.3
        result["config"] = {"name": "sequential", "layers": result["config"]}
    if result.get("class_name") == "Model":
        result["class_name"] = "Functional"
    stack = [result]
    while stack:
        inner = stack.pop().get("config")
        layers = inner.get("layers") if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(layers, list):
            nested = [layer for layer in layers if isinstance(layer, dict)]
            _shift_calls(inner, nested)
            for key in ("input_layers", "output_layers"):
                ports = inner.get(key)
                if isinstance(ports, list) and len(ports) == 1 and isinstance(ports[0], list):
                    inner[key] = ports[0]
            stack += nested
    return result


def _shift_calls(graph: dict[str, Any], layers: list[dict[str, Any]]) -> None:
    calls = {
        str(layer.get("name")): len(layer.get("inbound_nodes") or ())
        for layer in layers
        if layer.get("class_name") in _CONTAINERS
    }
    uses = [use for use in _uses(graph) if use[0] in calls]
    late = {name for name, call, *_ in uses if call >= calls[name]}
    for use in uses:
        if use[0] in late and use[1] > 0:
            use[1] -= 1


def _uses(graph: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield each [layer, call, output, ...] in a graph, for changes in place."""
    layers = [layer for layer in graph.get("layers", []) if isinstance(layer, Mapping)]
    stack: list[Any] = [graph.get("output_layers"), *(layer.get("inbound_nodes") for layer in layers)]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int:
                yield value
            else:
                stack += value


# Layers whose configuration is code, or names something else to load.
_CODE = frozenset(["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__", "__typespec__"])
_PATHS = frozenset(["vocabulary", "idf_weights", "filepath", "file_path", "path", "filename", "url", "origin"])
_LAYER_MODULES = ("keras.layers", "keras.src.layers")  # allowed for the layers in `names.KERAS_WORDS`
_MODEL_MODULES = ("keras", "keras.models")
_OTHER_NAMES = frozenset(  # aliases of some of these layers, and classes without a word there
    """
    InputLayer GroupQueryAttention AvgPool1D AvgPool2D AvgPool3D Convolution1D Convolution1DTranspose Convolution2D
    Convolution2DTranspose Convolution3D Convolution3DTranspose GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D
    GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D MaxPool1D MaxPool2D MaxPool3D SeparableConvolution1D
    SeparableConvolution2D
    """.split()  # noqa: SIM905  shorter than a list
)
_MODELS = frozenset(["Functional", "Model", "Sequential"])
_ALLOWED = (
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.activations",
    "keras.losses",
    "keras.metrics",
    "keras.optimizers",
    "keras.quantizers",
    "keras.dtype_policies",
    "keras.random",
    "keras.ops",
    "keras.src.ops",
    "keras.src.activations",
    "keras.src.initializers",
    "keras.src.backend.common.keras_tensor",
)
_OLD = ("InputLayer", "Model")  # classes of Keras 2 without a word in `names.KERAS_WORDS`
_PLAIN = frozenset(["DTypePolicy", "FloatDTypePolicy", "KerasTensor", "Variable"])  # allowed from the module `keras`
# Layers of `keras.applications`, whose modules also hold functions that do more than a layer: allowed one by one.
_LAYERS = frozenset(
    [
        ("keras.src.applications.convnext", "LayerScale"),
        ("keras.src.applications.convnext", "StochasticDepth"),
        ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"),
    ]
)
_COMPILED = frozenset(["compile_config", "training_config"])  # `uncompiled` drops them, so they build nothing


def dangers(config: Any, *, known: Callable[[str], bool]) -> list[str]:
    """Return a description of everything that would execute, import or open something; empty for plain Keras layers.

    Args:
        config: a configuration of Keras 2 or 3.
        known: whether a name belongs to the caller's own objects.
    """
    messages = []
    for where, item in _objects(config):
        class_name, module = str(item.get("class_name")), item.get("module")
        inner = item.get("config")
        own = known(class_name) or known(str(item.get("registered_name")))
        if class_name in _CODE and not own and not (class_name == "Lambda" and _names_known(inner, known)):
            messages.append(f"{where}: a {class_name} is code, or names something else to load")
        elif isinstance(module, str) and module and not _is_allowed(module, class_name) and not own:
            if module.partition(".")[0] == "keras":
                messages.append(f"{where}: {module}.{class_name} is neither a layer nor part of one")
        elif isinstance(inner, Mapping):
            messages += [
                f"{where}: {class_name} would open {inner[key]!r:.120} for its {key}"
                for key in sorted(_PATHS & inner.keys())
                if isinstance(inner[key], str) and not own
            ]
    return list(dict.fromkeys(messages))


def is_plain(module: str, class_name: str) -> bool:
    """Return whether a class of one of Keras' modules is a layer or part of one that runs no code and loads no file."""
    return class_name not in _CODE and _is_allowed(module, class_name)


def opened(arguments: Mapping[str, Any]) -> list[str]:
    """Return the arguments of one of Keras' layers that are the path of a file, which it would open."""
    return sorted(name for name in _PATHS & arguments.keys() if isinstance(arguments[name], str))


def unknown_classes(config: Any, *, known: Callable[[str], bool]) -> list[str]:
    """Return the classes and functions that are neither in Keras nor given by the caller, sorted."""
    unknown = set()
    for _, item in _objects(config):
        class_name, module = str(item.get("class_name")), item.get("module")
        registered = item.get("registered_name")
        if class_name.startswith("__") or known(class_name) or (isinstance(registered, str) and known(registered)):
            continue
        own = str(item.get("config")) if class_name == "function" else class_name
        if known(own):
            continue
        foreign = isinstance(module, str) and module and module != "builtins" and module.partition(".")[0] != "keras"
        if "module" not in item and isinstance(item.get("config"), Mapping) and "name" in item["config"]:  # of Keras 2
            foreign = names.snake(class_name) not in names.KERAS_WORDS and class_name not in _OLD
        if foreign or ("module" in item and module is None) or (isinstance(registered, str) and ">" in registered):
            unknown.add(own)
    return sorted(unknown)


def uncompiled(config: Any) -> Any:
    """Return a configuration without the parts that compile, also of nested models.

    `load` compiles nothing, but Keras would build the losses and optimizer of a nested model along with it.
    """
    if isinstance(config, Mapping):
        dropped = _COMPILED if _is_object(config) else ()
        return {key: uncompiled(value) for key, value in config.items() if key not in dropped}
    return [uncompiled(value) for value in config] if isinstance(config, list) else config


def _is_object(value: Mapping[str, Any]) -> bool:
    return "class_name" in value and "config" in value


def _objects(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (name of its layer, object) for every serialized object."""
    stack: list[tuple[str, Any]] = [("the model", config)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, Mapping):
            if "class_name" in value:
                inner = value.get("config")
                own = inner.get("name") if isinstance(inner, Mapping) else None
                where = own if isinstance(own, str) else where
                yield where, value
            skipped = _COMPILED if _is_object(value) else ()
            stack += [(where, inner) for key, inner in list(value.items())[::-1] if key not in skipped]
        elif isinstance(value, list):
            stack += [(where, item) for item in reversed(value)]


def _is_allowed(module: str, class_name: str) -> bool:
    if _is_in(module, _LAYER_MODULES):
        return class_name in _OTHER_NAMES or names.snake(class_name) in names.KERAS_WORDS
    if module in _MODEL_MODULES or _is_in(module, ("keras.src.models",)):
        return class_name in _MODELS or (module == "keras" and class_name in _PLAIN)
    return module == "builtins" or (module, class_name) in _LAYERS or _is_in(module, _ALLOWED)


def _is_in(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _names_known(inner: Any, known: Callable[[str], bool]) -> bool:
    """Return whether a Lambda's function is, by name, one of the caller's."""
    function = inner.get("function") if isinstance(inner, Mapping) else None
    if isinstance(function, Mapping):
        named = (str(function.get("config")), str(function.get("registered_name")))
        return function.get("class_name") == "function" and any(map(known, named))
    return isinstance(function, str) and known(function)
