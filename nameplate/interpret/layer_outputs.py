"""The outputs of named layers: a model runs up to the last of them.

The model itself is called, and the call stops after the last wanted layer: a layer inside a nested backbone or a
subclassed model needs no graph of its own, and deeper layers are never run. For a layer that is called more than once,
the first call counts. Only the layers themselves check sizes, so convolutions take images of any size.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import nameplate
from nameplate.engine.private import any_size, takes_training
from nameplate.errors import NameplateError
from nameplate.graph import keras_private as graphs
from nameplate.graph.tree import walk
from nameplate.interpret.objectives import ObjectiveError
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import NameKind

WHOLE = ""  # stands for the model itself among its layers: its outputs


@dataclass(frozen=True)
class Port:
    """An input of a model."""

    name: str
    shape: tuple[int | None, ...]  # without the batch dimension

    @property
    def is_image(self) -> bool:
        """Say whether it takes (height, width, channels)."""
        return len(self.shape) == 3 and self.shape[-1] is not None


class Cut:
    """A model that runs up to the layers `names`; `WHOLE` stands for the model's outputs."""

    def __init__(
        self, model: keras.Model, names: Sequence[str], *, inputs: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Find the layers and the input that takes the image.

        `inputs` has a value for every other input by its name, without a batch dimension.

        Raises:
            ObjectiveError: names that no layer has, with the nearest; no input that takes an image, or several and
                no value for the others.
        """
        self.model, self.names = model, tuple(names)
        self._layers = _layers_by_name(model, self.names)
        self._graphs = [entry.layer for entry in walk(model) if _is_graph(entry.layer)]
        self._graphs += [model] if _is_graph(model) else []
        self._inputs = {name: np.asarray(value) for name, value in (inputs or {}).items()}
        self._ports = _ports(model)
        self.port = _image_port(model, self._ports, self._inputs)

    def __call__(self, images: tf.Tensor) -> dict[str, Any]:
        """Return each layer's output for images (n, height, width, channels), by name.

        Raises:
            ObjectiveError: a layer cannot take images of this size, or is never run.
        """
        outputs = self.reached(images)
        idle = [name for name in self.names if name not in outputs]
        if idle:
            raise ObjectiveError(
                f"{self.model.name!r} does not run {', '.join(idle)} on its inputs; choose another layer"
            )
        return outputs

    def reached(self, images: tf.Tensor) -> dict[str, Any]:
        """Return the outputs of those layers that are run."""
        inputs = self._with_images(images)
        training = {"training": False} if takes_training(self.model) else {}
        with any_size(self._graphs), capturing(self._layers, stop=True) as captured:
            try:
                self.model(inputs, **training)
            except NameplateError:
                raise
            except Exception as error:  # from Keras, TensorFlow or the user's own layers
                raise ObjectiveError(self._unfit(images, error)) from error
        return {name: captured[name] for name in self.names if name in captured}

    def _with_images(self, images: tf.Tensor) -> Any:
        def value(port: Port) -> tf.Tensor:
            if port.name == self.port.name:
                return images
            one = tf.constant(self._inputs[port.name])
            return tf.repeat(one[None], tf.shape(images)[0], axis=0)

        return keras.tree.map_structure(value, self._ports)

    def _unfit(self, images: tf.Tensor, error: Exception) -> str:
        reason = " ".join(str(error).split())
        size = " by ".join(map(str, images.shape[1:3]))
        height, width = self.port.shape[:2]
        own = f" The model was built for {height} by {width} pixels: start with that size" if height and width else ""
        own += f", or give tile={height}, which processes a larger image in parts." if own and height == width else ""
        deepest = ", ".join(name or "the outputs" for name in self.names)
        problem = f"{self.model.name!r} cannot run images of {size} pixels up to {deepest}."
        return f"{problem}{own} Keras says: {reason:.300}"


def matching(model: keras.Model, patterns: Sequence[str]) -> list[str]:
    """Return the layers whose qualified names match shell patterns such as `mixed*`, in build order, without inputs.

    Raises:
        ObjectiveError: patterns that match nothing, with the nearest names.
    """
    known = [entry.name for entry in walk(model) if entry.kind is not NameKind.INPUT]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)]
    if idle:
        problems = [
            f"no layer of {model.name!r} matches {pattern!r}.{did_you_mean(pattern.strip('*'), known)}"
            for pattern in idle
        ]
        raise ObjectiveError("\n".join([*problems, f"It has {len(known)} layers: {_listed(known)}"]))
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def flat(output: Any, name: str) -> tf.Tensor:
    """Return a layer's one tensor as float32 (n, positions..., channels); ObjectiveError if it has several."""
    tensors = keras.tree.flatten(output)
    if len(tensors) != 1:
        raise ObjectiveError(f"{name!r} outputs {len(tensors)} tensors; name a layer that outputs one")
    return tf.cast(tensors[0], tf.float32)


def _layers_by_name(model: keras.Model, names: Sequence[str]) -> dict[str, Any]:
    known = nameplate.layers(model)
    unknown = [name for name in names if name != WHOLE and name not in known]
    if unknown:
        lines = [f"no layer {name!r} in {model.name!r}.{_hint(name, known)}" for name in unknown]
        raise ObjectiveError("\n".join([*lines, f"It has {len(known)} layers: {_listed(list(known))}"]))
    return {name: known[name] if name != WHOLE else model for name in names}


def _hint(name: str, known: Mapping[str, Any]) -> str:
    inside = [other for other in known if other.rpartition("/")[2] == name]
    if inside:
        return f" It is inside: {', '.join(inside[:3])}."
    own = {other.rpartition("/")[2]: other for other in known}
    return did_you_mean(name, known) or did_you_mean(name, own)


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def _is_graph(layer: Any) -> bool:
    return isinstance(layer, graphs.Functional | keras.Sequential)


def _ports(model: keras.Model) -> Any:
    """Return a Port for each input, in the structure in which the model takes them."""
    graph = graphs.stack_graph(model) if isinstance(model, keras.Sequential) else model
    struct = graphs.inputs_struct(graph) if graph is not None else None
    if struct is not None:
        ports = keras.tree.map_structure(lambda tensor: Port(tensor.name, tuple(tensor.shape[1:])), struct)
        return ports[0] if isinstance(ports, list | tuple) and len(ports) == 1 else ports
    # A subclassed model remembers the shapes that it was built for.
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if isinstance(shape, Mapping):
        return {str(name): Port(str(name), tuple(sizes[1:])) for name, sizes in shape.items()}
    return Port("image", tuple(shape[1:]) if shape else (None, None, 3))


def _image_port(model: keras.Model, ports: Any, inputs: Mapping[str, Any]) -> Port:
    by_name = {port.name: port for port in keras.tree.flatten(ports)}
    unknown = [name for name in inputs if name not in by_name]
    if unknown:
        problems = "; ".join(f"no input {name!r}.{did_you_mean(name, by_name)}" for name in unknown)
        raise ObjectiveError(f"{model.name!r} has inputs {', '.join(by_name)}: {problems}")
    left = [port for name, port in by_name.items() if name not in inputs]
    if len(left) == 1 and left[0].is_image:
        return left[0]
    shapes = ", ".join(f"{port.name} {port.shape}" for port in by_name.values())
    what = "an image (height, width, channels) is dreamt over" if len(left) == 1 else "one image is dreamt over"
    raise ObjectiveError(
        f"{what}, and {model.name!r} takes {shapes}; give a value for every other input, "
        "inputs={name: one example without the batch dimension}"
    )


@contextmanager
def capturing(layers: Mapping[str, Any], *, stop: bool) -> Iterator[dict[str, Any]]:
    """Inside, the output of a layer's first call is stored under its key; with `stop` the last of them ends the block.

    `Operation.__call__` (ops/operation.py) runs the attribute `call`, or `quantized_call` of a quantized layer; it is
    shadowed on the instance until the block ends.
    """
    found: dict[str, Any] = {}
    shadowed = []
    try:
        for name, layer in layers.items():
            for method in ("call", "quantized_call"):
                if hasattr(layer, method):
                    shadowed.append((layer, method, layer.__dict__.get(method)))
                    layer.__dict__[method] = _kept(getattr(layer, method), name, found, len(layers) if stop else None)
        with contextlib.suppress(Enough):
            yield found
    finally:
        for layer, method, before in reversed(shadowed):
            layer.__dict__.pop(method)
            if before is not None:
                layer.__dict__[method] = before


class Enough(BaseException):  # not an Exception: it must pass `except Exception` on its way out of a model
    """All wanted outputs have been captured."""


def _kept(call: Any, name: str, found: dict[str, Any], enough: int | None) -> Any:
    @functools.wraps(call)
    def keep(*arguments: Any, **keywords: Any) -> Any:
        output = call(*arguments, **keywords)
        found.setdefault(name, output)
        if len(found) == enough:
            raise Enough
        return output

    return keep
