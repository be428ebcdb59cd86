"""Random functional graphs: branches, shared layers, nested models, operators, several inputs and outputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers

STEPS = ("dense", "relu", "norm", "drop", "add", "concat", "shared", "nested", "operator")


Recipe = tuple[list[tuple[str, int, int]], int, bool]

# Plain data: Keras draws from `random` when it makes layers, which a strategy must not.
RECIPES = st.tuples(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=7),
    st.integers(1, 2),
    st.booleans(),
)


def build(recipe: Recipe) -> keras.Model:
    """Return the model of a recipe: steps with where they take from, inputs, whether there are more outputs."""
    steps, count, several = recipe
    inputs = [keras.Input((4,), name=f"in{place}") for place in range(count)]
    tensors: list[Any] = [layers.Dense(4, name=f"enter{place}")(each) for place, each in enumerate(inputs)]
    shared = layers.Dense(4, name="shared")
    for place, (step, first, second) in enumerate(steps):
        one, other = tensors[first % len(tensors)], tensors[second % len(tensors)]
        tensors.append(_step(step, f"{step}{place}", one, other, shared))
    ends = [*tensors[: len(inputs)], tensors[-1]] if several else [tensors[-1]]
    used = [each for each in inputs if _reaches(each, ends)]
    heads = [layers.Dense(2, name=f"head{place}")(each) for place, each in enumerate(ends)]
    return keras.Model(used if len(used) > 1 else used[0], heads if len(heads) > 1 else heads[0], name="drawn")


def _step(step: str, name: str, one: Any, other: Any, shared: Any) -> Any:
    if step == "add":
        return layers.Add(name=name)([one, other])
    if step == "concat":
        return layers.Dense(4, name=f"{name}_mix")(layers.Concatenate(name=name)([one, other]))
    if step == "shared":
        return shared(one)
    if step == "operator":
        return one + other
    if step == "nested":
        x = keras.Input((4,), name="x")
        inner = keras.Model(x, layers.ReLU(name="act")(layers.Dense(4, name="inner")(x)), name=name)
        return inner(one)
    made = {
        "dense": layers.Dense(4, name=name),
        "relu": layers.ReLU(name=name),
        "norm": layers.BatchNormalization(name=name),
        "drop": layers.Dropout(0.3, seed=1, name=name),
    }
    return made[step](one)


def _reaches(tensor: Any, ends: list[Any]) -> bool:
    waiting, seen = list(ends), set()
    while waiting:
        each = waiting.pop()
        if each is tensor:
            return True
        node = each._keras_history.operation._inbound_nodes[each._keras_history.node_index]
        fresh = [parent for parent in node.input_tensors if id(parent) not in seen]
        seen |= {id(parent) for parent in fresh}
        waiting += fresh
    return False


def fresh_copy(layer: Any) -> Any:
    """Return an unbuilt layer like this one, without a name of its own."""
    config = layer.get_config()
    config.pop("name")
    with_name = type(layer).from_config({**config, "name": None})
    assert not with_name.weights
    return with_name


def outputs(model: keras.Model, seed: int = 0) -> list[np.ndarray]:
    """Return what a model gives for random input."""
    drawn = np.random.default_rng(seed)
    values = [drawn.normal(size=(3, *each.shape[1:])).astype("float32") for each in model.inputs]
    struct = values[0] if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.input, values)
    return [np.asarray(each) for each in keras.tree.flatten(model(struct))]


def equal(one: keras.Model, other: keras.Model) -> bool:
    """Tell whether two models give the same for random input."""
    return all(np.allclose(a, b, atol=1e-5) for a, b in zip(outputs(one), outputs(other), strict=True))
