"""What Keras 2 wrote differently in a configuration, put as Keras 3 reads it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nameplate.naming import names

_CONTAINERS = ("Functional", "Model", "Sequential")


def modernized(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a Keras 2 model such that Keras 3 finds every call of every nested model.

    A nested model of Keras 2 counted its own construction as its call 0, so that the first use was call 1; one input or
    output alone was written as a list of one.
    """
    found = copy.deepcopy(dict(config))
    if isinstance(found.get("config"), list):  # a Sequential before Keras 2.2.3
        found["config"] = {"name": "sequential", "layers": found["config"]}
    if found.get("class_name") == "Model":
        found["class_name"] = "Functional"
    stack = [found]
    while stack:
        inner = stack.pop().get("config")
        layers = inner.get("layers") if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(layers, list):
            nested = [each for each in layers if isinstance(each, dict)]
            _shift_calls(inner, nested)
            for key in ("input_layers", "output_layers"):
                ports = inner.get(key)
                if isinstance(ports, list) and len(ports) == 1 and isinstance(ports[0], list):
                    inner[key] = ports[0]
            stack += nested
    return found


def _shift_calls(graph: dict[str, Any], layers: list[dict[str, Any]]) -> None:
    calls = {
        str(each.get("name")): len(each.get("inbound_nodes") or ())
        for each in layers
        if each.get("class_name") in _CONTAINERS
    }
    uses = [use for use in _uses(graph) if use[0] in calls]
    late = {name for name, call, *_ in uses if call >= calls[name]}
    for use in uses:
        if use[0] in late and use[1] > 0:
            use[1] -= 1


def _uses(graph: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield each [layer, call, output, ...] in a graph, to be changed in place."""
    layers = [each for each in graph.get("layers", []) if isinstance(each, Mapping)]
    stack: list[Any] = [graph.get("output_layers"), *(each.get("inbound_nodes") for each in layers)]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int:
                yield value
            else:
                stack += value


# Layers whose configuration is code, or says what else to load.
_CODE = frozenset(["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__", "__typespec__"])
_PATHS = frozenset(["vocabulary", "idf_weights", "filepath", "file_path", "path", "filename", "url", "origin"])
_LAYER_MODULES = ("keras.layers", "keras.src.layers")  # of which the layers in `names.KERAS_WORDS` are built
_MODEL_MODULES = ("keras", "keras.models")
_OTHER_NAMES = frozenset(  # under which Keras has some of them, and what is beside them
    """
    InputLayer GroupQueryAttention AvgPool1D AvgPool2D AvgPool3D Convolution1D Convolution1DTranspose Convolution2D
    Convolution2DTranspose Convolution3D Convolution3DTranspose GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D
    GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D MaxPool1D MaxPool2D MaxPool3D SeparableConvolution1D
    SeparableConvolution2D
    """.split()  # noqa: SIM905  a list of so many lines is harder to compare
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
_OLD = ("InputLayer", "Model")  # what Keras 2 has beside the layers that are in `names.KERAS_WORDS`
_PLAIN = frozenset(["DTypePolicy", "FloatDTypePolicy", "KerasTensor", "Variable"])  # what `keras` itself has beside
# Layers that `keras.applications` keeps beside functions that do more than a layer; each by its name alone.
_LAYERS = frozenset(
    [
        ("keras.src.applications.convnext", "LayerScale"),
        ("keras.src.applications.convnext", "StochasticDepth"),
        ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"),
    ]
)
_COMPILED = frozenset(["compile_config", "training_config"])  # `uncompiled` leaves them out: nothing is built from them


def dangers(config: Any, *, known: Callable[[str], bool]) -> list[str]:
    """Return what would execute, import or open something, in words; empty when it is layers of Keras' only.

    Args:
        config: a configuration of Keras 2 or 3.
        known: whether a name is among the caller's own objects.
    """
    found = []
    for where, item in _objects(config):
        class_name, module = str(item.get("class_name")), item.get("module")
        inner = item.get("config")
        own = known(class_name) or known(str(item.get("registered_name")))
        if class_name in _CODE and not own and not (class_name == "Lambda" and _names_known(inner, known)):
            found.append(f"{where}: a {class_name} is code, or says what else to load")
        elif isinstance(module, str) and module and not _is_allowed(module, class_name) and not own:
            if module.partition(".")[0] == "keras":
                found.append(f"{where}: {module}.{class_name} is no layer, and what goes with one")
        elif isinstance(inner, Mapping):
            found += [
                f"{where}: {class_name} would open {inner[key]!r:.120} for its {key}"
                for key in sorted(_PATHS & inner.keys())
                if isinstance(inner[key], str) and not own
            ]
    return list(dict.fromkeys(found))


def strangers(config: Any, *, known: Callable[[str], bool]) -> list[str]:
    """Return the classes and functions that are not Keras' and that the caller did not give, sorted."""
    found = set()
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
            found.add(own)
    return sorted(found)


def uncompiled(config: Any) -> Any:
    """Return a configuration without what compiles, of the models in it too: `load` compiles nothing.

    Keras would build the losses and optimizers of a nested model while it builds that one.
    """
    if isinstance(config, Mapping):
        left_out = _COMPILED if _is_object(config) else ()
        return {key: uncompiled(value) for key, value in config.items() if key not in left_out}
    return [uncompiled(value) for value in config] if isinstance(config, list) else config


def _is_object(value: Mapping[str, Any]) -> bool:
    return "class_name" in value and "config" in value


def _objects(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (name of the layer it is in, object) for every serialized object."""
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
            stack += [(where, each) for key, each in list(value.items())[::-1] if key not in skipped]
        elif isinstance(value, list):
            stack += [(where, each) for each in reversed(value)]


def _is_allowed(module: str, class_name: str) -> bool:
    if _is_in(module, _LAYER_MODULES):
        return class_name in _OTHER_NAMES or names.snake(class_name) in names.KERAS_WORDS
    if module in _MODEL_MODULES or _is_in(module, ("keras.src.models",)):
        return class_name in _MODELS or (module == "keras" and class_name in _PLAIN)
    return module == "builtins" or (module, class_name) in _LAYERS or _is_in(module, _ALLOWED)


def _is_in(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _names_known(inner: Any, known: Callable[[str], bool]) -> bool:
    """Tell whether a Lambda's function is one of the caller's, by name."""
    function = inner.get("function") if isinstance(inner, Mapping) else None
    if isinstance(function, Mapping):
        named = (str(function.get("config")), str(function.get("registered_name")))
        return function.get("class_name") == "function" and any(map(known, named))
    return isinstance(function, str) and known(function)
