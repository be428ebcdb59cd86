"""Random models as plain data, and what is built of them: shared, nested, tied, subclassed, stateful, quantized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

WIDTH = 4


@dataclass(frozen=True)
class Recipe:
    """A model of steps; each takes from what the two numbers point at among what there is."""

    form: str
    steps: tuple[tuple[str, int, int], ...]
    inputs: int
    several: bool  # outputs
    named: bool  # false leaves some names to Keras
    seed: int


@keras.saving.register_keras_serializable("drawn")
class Scales(layers.Layer):
    """A layer with an argument and a state of its own."""

    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape: Any) -> None:
        """Create the state."""
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.gain = self.add_weight(shape=(WIDTH,), initializer="ones", name="gain")

    def call(self, inputs: Any) -> Any:
        """Return its inputs, scaled."""
        return inputs * self.gain * self.factor + 0.01 * self.count

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("drawn")
class Forgets(layers.Layer):
    """A layer whose configuration does not hold its argument."""

    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        """Return its inputs, scaled."""
        return inputs * self.factor


@keras.saving.register_keras_serializable("drawn")
class Twins(layers.Layer):
    """A layer with two variables of one name and one shape."""

    def build(self, shape: Any) -> None:
        """Create both."""
        self.one = self.add_weight(shape=(WIDTH,), initializer="ones", name="w")
        self.other = self.add_weight(shape=(WIDTH,), initializer="ones", name="w")

    def call(self, inputs: Any) -> Any:
        """Return what tells them apart."""
        return inputs * self.one + ops.tanh(self.other)


@keras.saving.register_keras_serializable("drawn")
class Block(layers.Layer):
    """A layer of layers, some in a list and in a dictionary."""

    def __init__(self, depth: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.parts = [layers.Dense(WIDTH, activation="tanh", name=f"part{place}") for place in range(depth)]
        self.ends = {"norm": layers.LayerNormalization(name="norm"), "drop": layers.Dropout(0.2, name="drop")}

    def build(self, shape: Any) -> None:
        """Build the parts."""
        for part in [*self.parts, self.ends["norm"]]:
            part.build(shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Go through the parts."""
        for part in self.parts:
            inputs = part(inputs)
        return self.ends["drop"](self.ends["norm"](inputs), training=training)

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {**super().get_config(), "depth": self.depth}


@keras.saving.register_keras_serializable("drawn")
class Net(keras.Model):
    """A subclassed model with arguments that it keeps, and no `get_config`."""

    def __init__(self, activation: str = "relu", rate: float = 0.1, depth: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation, self.rate, self.depth = activation, rate, depth
        self.first = layers.Dense(WIDTH, activation=activation, name="first")
        self.blocks = [Block(1, name=f"block{place}") for place in range(depth)]
        self.drop = layers.Dropout(rate, seed=3, name="drop")
        self.norm = layers.BatchNormalization(name="norm")
        self.head = layers.Dense(2, name="head")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return (n, 2)."""
        x = self.first(inputs)
        for block in self.blocks:
            x = x + block(x, training=training)
        return self.head(self.norm(self.drop(x, training=training), training=training))


@keras.saving.register_keras_serializable("drawn")
class Forgetful(Net):
    """The same, which keeps nothing: a copy of it has to be refused."""

    def __init__(self, activation: str = "relu", rate: float = 0.1, depth: int = 1, **kwargs: Any) -> None:
        super().__init__(activation, rate, depth, **kwargs)
        del self.activation, self.rate, self.depth


@keras.saving.register_keras_serializable("drawn")
class Graph(keras.Model):
    """A functional subclass with an attribute and a variable of its own."""

    def __init__(self, *args: Any, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = alpha
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")


SIMPLE = ("dense", "relu", "norm", "drop", "add", "concat", "shared", "nested", "operator")
RICH = (
    "sequential",
    "nested_again",
    "nested_two",
    "split",
    "timed",
    "scales",
    "forgets",
    "twins",
    "block",
    "spectral",
    "lora",
    "attention",
    "recurrent",
    "net",
    "noise",
    "unused",
    "reused_activation",
)
FORMS = ("functional", "functional", "functional", "sequential", "subclassed", "functional_subclass", "forgetful")


def recipes() -> st.SearchStrategy[Recipe]:
    """Return what draws recipes."""
    step = st.tuples(st.sampled_from(SIMPLE + RICH), st.integers(0, 9), st.integers(0, 9))
    return st.builds(
        Recipe,
        form=st.sampled_from(FORMS),
        steps=st.lists(step, min_size=1, max_size=5).map(tuple),
        inputs=st.integers(1, 2),
        several=st.booleans(),
        named=st.sampled_from((True, True, False)),
        seed=st.integers(0, 999),
    )


def build(recipe: Recipe) -> keras.Model:
    """Return the model of a recipe, with values everywhere that no initializer gives."""
    model = _FORMS.get(recipe.form, _graph)(recipe)
    drawn = np.random.default_rng(recipe.seed)
    for variable in model.variables:
        if "int" not in variable.dtype:
            variable.assign(drawn.uniform(0.2, 1.0, variable.shape))
    for layer in model.layers:
        if drawn.random() < 0.2 and not isinstance(layer, layers.InputLayer):
            layer.trainable = False
    return model


def example(model: keras.Model, seed: int = 0) -> Any:
    """Return random input in the model's structure, three examples."""
    drawn = np.random.default_rng(seed)
    if not getattr(model, "inputs", None):
        return drawn.normal(size=(3, WIDTH)).astype("float32")
    values = [drawn.normal(size=(3, *each.shape[1:])).astype("float32") for each in model.inputs]
    return values[0] if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.input, values)


def outputs(model: keras.Model, given: Any) -> list[np.ndarray]:
    """Return what a model gives, as a flat list."""
    return [np.asarray(each) for each in keras.tree.flatten(model(given, training=False))]


def _subclassed(recipe: Recipe) -> keras.Model:
    kind = Forgetful if recipe.form == "forgetful" else Net
    model = kind(("tanh", "relu")[recipe.seed % 2], 0.5, depth=len(recipe.steps), name="drawn")
    model(np.zeros((1, WIDTH), "float32"))
    return model


def _sequential(recipe: Recipe) -> keras.Model:
    alone = [step for step, _, _ in recipe.steps if step in _ALONE]
    made = [_ALONE[step](**_name(recipe, f"{step}{place}")) for place, step in enumerate(alone)]
    return keras.Sequential([keras.Input((WIDTH,), name="x"), *made, layers.Dense(2, name="head")], name="drawn")


def _name(recipe: Recipe, name: str) -> dict[str, str]:
    return {"name": name} if recipe.named or recipe.seed % 3 else {}


def _graph(recipe: Recipe) -> keras.Model:
    inputs = [keras.Input((WIDTH,), name=f"in{place}") for place in range(recipe.inputs)]
    tensors: list[Any] = [layers.Dense(WIDTH, name=f"enter{place}")(each) for place, each in enumerate(inputs)]
    kept: dict[str, Any] = {}
    for place, (step, first, second) in enumerate(recipe.steps):
        one, other = tensors[first % len(tensors)], tensors[second % len(tensors)]
        name = f"{step}{place}"
        if step in _ALONE:
            tensors.append(_ALONE[step](**_name(recipe, name))(one))
        else:
            tensors.append(_JOINING[step](kept, name, one, other))
    ends = [*tensors[: len(inputs)], tensors[-1]] if recipe.several else [sum_of(tensors)]
    heads = [layers.Dense(2, name=f"head{place}")(each) for place, each in enumerate(ends)]
    given = (inputs if len(inputs) > 1 else inputs[0], heads if len(heads) > 1 else heads[0])
    if recipe.form == "functional_subclass":
        return Graph(*given, alpha=3.0, name="drawn")
    return keras.Model(*given, name="drawn")


def sum_of(tensors: list[Any]) -> Any:
    """Return all tensors as one, so that nothing leads nowhere."""
    return layers.Add(name="all")(tensors) if len(tensors) > 1 else tensors[0]


def _nested_model(name: str, outputs: int = 1, inputs: int = 1) -> keras.Model:
    given = [keras.Input((WIDTH,), name=f"x{place}") for place in range(inputs)]
    x = given[0] if inputs == 1 else layers.Add(name="sum")(given)
    inner = layers.BatchNormalization(name="norm")(layers.Dense(WIDTH, name="inner")(x))
    ends = [layers.Dense(WIDTH, name=f"end{place}")(inner) for place in range(outputs)]
    return keras.Model(given if inputs > 1 else given[0], ends if outputs > 1 else ends[0], name=name)


def _timed(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    """Use one Dense alone and inside TimeDistributed: the ties that surgery must keep."""
    dense = kept.setdefault("tied", layers.Dense(WIDTH, name="tied"))
    timed = layers.TimeDistributed(dense, name=name)(layers.RepeatVector(3, name=f"{name}_repeat")(one))
    return layers.Add(name=f"{name}_sum")([layers.GlobalAveragePooling1D(name=f"{name}_mean")(timed), dense(other)])


def _attention(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    repeat = layers.RepeatVector(2, name=f"{name}_repeat")
    attended = layers.MultiHeadAttention(2, 3, name=name)(repeat(one), repeat(other))
    return layers.GlobalAveragePooling1D(name=f"{name}_mean")(attended)


def _recurrent(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    steps = layers.Reshape((2, 2), name=f"{name}_steps")(one)
    read = layers.Bidirectional(layers.GRU(2, name=f"{name}_gru"), name=name)(steps)
    return layers.Add(name=f"{name}_sum")([read, other])


def _lora(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    dense = layers.Dense(WIDTH, name=name)
    result = dense(one)
    dense.enable_lora(2)
    return result


def _nested_again(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    model = kept.setdefault("again", _nested_model("again"))
    return layers.Add(name=f"{name}_sum")([model(one), model(other)])


def _nested_two(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    first, second = _nested_model(name, outputs=2, inputs=2)([one, other])
    return layers.Add(name=f"{name}_sum")([first, second])


def _split(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    left, right = ops.split(one, 2, axis=-1)
    return layers.Concatenate(name=f"{name}_turned")([right, left])


def _concat(kept: dict[str, Any], name: str, one: Any, other: Any) -> Any:
    return layers.Dense(WIDTH, name=f"{name}_mix")(layers.Concatenate(name=name)([one, other]))


def _sequential_inside(**name: Any) -> keras.Model:
    name = name or {"name": "stack"}
    return keras.Sequential(
        [layers.Dense(WIDTH, name="one"), layers.ReLU(name="act"), layers.Dense(WIDTH, name="two")], **name
    )


_ALONE: dict[str, Callable[..., Any]] = {
    "dense": lambda **name: layers.Dense(WIDTH, **name),
    "relu": lambda **name: layers.ReLU(**name),
    "norm": lambda **name: layers.BatchNormalization(**name),
    "drop": lambda **name: layers.Dropout(0.3, seed=1, **name),
    "noise": lambda **name: layers.GaussianNoise(0.1, seed=2, **name),
    "scales": lambda **name: Scales(2.5, **name),
    "forgets": lambda **name: Forgets(2.5, **name),
    "twins": lambda **name: Twins(**name),
    "block": lambda **name: Block(2, **name),
    "spectral": lambda **name: layers.SpectralNormalization(layers.Dense(WIDTH, name="inside"), **name),
    "sequential": _sequential_inside,
    "reused_activation": lambda **name: layers.Dense(WIDTH, activation=layers.LeakyReLU(0.2, name="leak"), **name),
}
_JOINING: dict[str, Callable[[dict[str, Any], str, Any, Any], Any]] = {
    "add": lambda kept, name, one, other: layers.Add(name=name)([one, other]),
    "concat": _concat,
    "shared": lambda kept, name, one, other: kept.setdefault("shared", layers.Dense(WIDTH, name="shared"))(one),
    "nested": lambda kept, name, one, other: _nested_model(name)(one),
    "operator": lambda kept, name, one, other: one * 0.5 + other,
    "nested_again": _nested_again,
    "nested_two": _nested_two,
    "split": _split,
    "timed": _timed,
    "lora": _lora,
    "attention": _attention,
    "recurrent": _recurrent,
    "net": lambda kept, name, one, other: layers.Concatenate(name=f"{name}_twice")(
        [Net("tanh", 0.5, name=name)(one)] * 2
    ),
    "unused": lambda kept, name, one, other: one,
}
_FORMS = {"subclassed": _subclassed, "forgetful": _subclassed, "sequential": _sequential}
