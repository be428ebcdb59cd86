"""The part of a model up to named layers: images in, what the layers make of them out.

The model is called as it is, and the call ends at the last layer that is wanted: a layer inside a nested backbone or
inside a subclassed model needs no graph of its own, and what comes after the deepest one is never run. A layer that the
model calls more than once gives what its first call gave. Sizes that the model was built for are compared by its layers
alone, so that convolutions take images of any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import nameplate
from nameplate.engine.private.compiled import takes_training
from nameplate.engine.private.tracing import any_size, capturing
from nameplate.errors import NameplateError
from nameplate.graph import keras_private as graphs
from nameplate.graph.tree import walk
from nameplate.interpret.objectives import ObjectiveError
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import NameKind

WHOLE = ""  # the name of the model itself among its layers: what it gives


@dataclass(frozen=True)
class Port:
    """An input of a model."""

    name: str
    shape: tuple[int | None, ...]  # without the batch

    @property
    def is_image(self) -> bool:
        """Say whether it takes (height, width, channels)."""
        return len(self.shape) == 3 and self.shape[-1] is not None


class Cut:
    """A model up to the layers `names`; `WHOLE` among them means the model's outputs."""

    def __init__(
        self, model: keras.Model, names: Sequence[str], *, inputs: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Find the layers and the input that takes the image.

        `inputs` has a value for every other input by its name, without a batch dimension.

        Raises:
            ObjectiveError: names that no layer has, all of them, with the nearest; no input that takes an image, or
                several and no value for the others.
        """
        self.model, self.names = model, tuple(names)
        self._layers = _found(model, self.names)
        self._graphs = [each.layer for each in walk(model) if _is_graph(each.layer)]
        self._graphs += [model] if _is_graph(model) else []
        self._inputs = {name: np.asarray(value) for name, value in (inputs or {}).items()}
        self._ports = _ports(model)
        self.port = _image_port(model, self._ports, self._inputs)

    def __call__(self, images: tf.Tensor) -> dict[str, Any]:
        """Return what each layer gives for images (n, height, width, channels), by name.

        Raises:
            ObjectiveError: a layer cannot take images of this size, or is not run.
        """
        found = self.reached(images)
        idle = [name for name in self.names if name not in found]
        if idle:
            raise ObjectiveError(
                f"{self.model.name!r} does not run {', '.join(idle)} on its inputs; choose another layer"
            )
        return found

    def reached(self, images: tf.Tensor) -> dict[str, Any]:
        """Return the same for those of the layers that are run."""
        given = self._given(images)
        training = {"training": False} if takes_training(self.model) else {}
        with any_size(self._graphs), capturing(self._layers, stop=True) as found:
            try:
                self.model(given, **training)
            except NameplateError:
                raise
            except Exception as error:  # whatever Keras, TensorFlow and classes of the user's raise
                raise ObjectiveError(self._unfit(images, error)) from error
        return {name: found[name] for name in self.names if name in found}

    def _given(self, images: tf.Tensor) -> Any:
        def value(port: Port) -> tf.Tensor:
            if port.name == self.port.name:
                return images
            one = tf.constant(self._inputs[port.name])
            return tf.repeat(one[None], tf.shape(images)[0], axis=0)

        return keras.tree.map_structure(value, self._ports)

    def _unfit(self, images: tf.Tensor, error: Exception) -> str:
        reason = " ".join(str(error).split())
        size = " by ".join(str(each) for each in images.shape[1:3])
        height, width = self.port.shape[:2]
        own = f" The model was built for {height} by {width} pixels: begin with that size" if height and width else ""
        own += f", or give tile={height}, which goes over a larger image in parts." if own and height == width else ""
        deepest = ", ".join(name or "the outputs" for name in self.names)
        what = f"{self.model.name!r} cannot take images of {size} pixels as far as {deepest}."
        return f"{what}{own} Keras says: {reason:.300}"


def matching(model: keras.Model, patterns: Sequence[str]) -> list[str]:
    """Return the layers whose qualified names match shell patterns as `mixed*`, in build order, inputs left out.

    Raises:
        ObjectiveError: patterns that match nothing, all of them, with the nearest names.
    """
    known = [entry.name for entry in walk(model) if entry.kind is not NameKind.INPUT]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)]
    if idle:
        told = [f"no layer of {model.name!r} matches {each!r}.{did_you_mean(each.strip('*'), known)}" for each in idle]
        raise ObjectiveError("\n".join([*told, f"It has {len(known)} layers: {_some(known)}"]))
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def flat(output: Any, name: str) -> tf.Tensor:
    """Return a layer's one tensor as float32 (n, positions..., channels); ObjectiveError where it gives several."""
    tensors = keras.tree.flatten(output)
    if len(tensors) != 1:
        raise ObjectiveError(f"{name!r} gives {len(tensors)} tensors; name a layer that gives one")
    return tf.cast(tensors[0], tf.float32)


def _found(model: keras.Model, names: Sequence[str]) -> dict[str, Any]:
    known = nameplate.layers(model)
    unknown = [name for name in names if name != WHOLE and name not in known]
    if unknown:
        lines = [f"no layer {name!r} in {model.name!r}.{_hint(name, known)}" for name in unknown]
        raise ObjectiveError("\n".join([*lines, f"It has {len(known)} layers: {_some(list(known))}"]))
    return {name: known[name] if name != WHOLE else model for name in names}


def _hint(name: str, known: Mapping[str, Any]) -> str:
    inside = [other for other in known if other.rpartition("/")[2] == name]
    if inside:
        return f" It is inside: {', '.join(inside[:3])}."
    own = {other.rpartition("/")[2]: other for other in known}
    return did_you_mean(name, known) or did_you_mean(name, own)


def _some(known: Sequence[str]) -> str:
    return ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def _is_graph(layer: Any) -> bool:
    return isinstance(layer, graphs.Functional | keras.Sequential)


def _ports(model: keras.Model) -> Any:
    """Return a Port for each input, in the structure in which the model takes them."""
    graph = graphs.stack_graph(model) if isinstance(model, keras.Sequential) else model
    struct = graphs.inputs_struct(graph) if graph is not None else None
    if struct is not None:
        ports = keras.tree.map_structure(lambda each: Port(each.name, tuple(each.shape[1:])), struct)
        return ports[0] if isinstance(ports, list | tuple) and len(ports) == 1 else ports
    # A subclassed model remembers the shapes that it was built for.
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if isinstance(shape, Mapping):
        return {str(name): Port(str(name), tuple(each[1:])) for name, each in shape.items()}
    return Port("image", tuple(shape[1:]) if shape else (None, None, 3))


def _image_port(model: keras.Model, ports: Any, inputs: Mapping[str, Any]) -> Port:
    every = {port.name: port for port in keras.tree.flatten(ports)}
    unknown = [name for name in inputs if name not in every]
    if unknown:
        told = "; ".join(f"no input {name!r}.{did_you_mean(name, every)}" for name in unknown)
        raise ObjectiveError(f"{model.name!r} has inputs {', '.join(every)}: {told}")
    left = [port for name, port in every.items() if name not in inputs]
    if len(left) == 1 and left[0].is_image:
        return left[0]
    shapes = ", ".join(f"{port.name} {port.shape}" for port in every.values())
    what = "an image (height, width, channels) is dreamt over" if len(left) == 1 else "one image is dreamt over"
    raise ObjectiveError(
        f"{what}, and {model.name!r} takes {shapes}; give a value for every other input, "
        "inputs={name: one example without batch}"
    )
