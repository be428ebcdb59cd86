from __future__ import annotations

from collections.abc import Callable

import keras
import pytest

import nameplate
from nameplate.engine.optimizer_state import named_variables
from nameplate.errors import NameplateError


def colliding() -> keras.Model:
    """Return a model whose slot names collide in Keras: `a_b/kernel` and `a/b_kernel` flatten alike."""
    inputs = keras.Input((3,), name="features")
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="b_c")], name="a")
    x = keras.layers.Dense(3, name="a_b")(inner(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, name="c")(x), name="colliding")


OPTIMIZERS: dict[str, tuple[Callable[[], keras.Optimizer], set[str]]] = {
    "sgd": (lambda: keras.optimizers.SGD(0.1), set()),
    "momentum": (lambda: keras.optimizers.SGD(0.1, momentum=0.9), {"momentum"}),
    "adam": (lambda: keras.optimizers.Adam(0.1), {"momentum", "velocity"}),
    "amsgrad": (lambda: keras.optimizers.Adam(0.1, amsgrad=True), {"momentum", "velocity", "velocity_hat"}),
    "lion": (lambda: keras.optimizers.Lion(0.1), {"momentum"}),
    "adafactor": (lambda: keras.optimizers.Adafactor(0.1), {"r", "c", "velocity"}),
    "ema": (lambda: keras.optimizers.SGD(0.1, use_ema=True), {"average"}),
    "accumulating": (
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        {"gradient_accumulator"},
    ),
    "loss scaling": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
        {"momentum", "velocity"},
    ),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_slot_of_every_optimizer_is_keyed_by_its_variable(kind: str) -> None:
    make, expected = OPTIMIZERS[kind]
    model, optimizer = colliding(), make()
    optimizer.build(model.trainable_variables)
    variables = nameplate.variables(model)
    found = named_variables(optimizer, variables)
    assert {key for key in found if "@" in key} == {f"{name}@{slot}" for name in variables for slot in expected}
    assert sorted(map(id, found.values())) == sorted(map(id, optimizer.variables))


def test_a_slot_holds_what_belongs_to_its_variable() -> None:
    model, optimizer = colliding(), keras.optimizers.SGD(1.0, momentum=0.9)
    optimizer.build(model.trainable_variables)
    gradients = [keras.ops.full(each.shape, float(place)) for place, each in enumerate(model.trainable_variables)]
    optimizer.apply(gradients, model.trainable_variables)
    variables = nameplate.variables(model)
    found = named_variables(optimizer, variables)
    for place, variable in enumerate(model.trainable_variables):
        name = next(name for name, each in variables.items() if each is variable)
        assert found[f"{name}@momentum"].numpy().flat[0] == -place


def test_an_optimizer_whose_state_has_no_names_is_refused() -> None:
    class Nameless(keras.optimizers.SGD):
        def build(self, variables: list[keras.Variable]) -> None:
            super().build(variables)
            self.first, self.second = (self.add_variable((), name="same") for _ in range(2))

    model, optimizer = colliding(), Nameless(0.1)
    optimizer.build(model.trainable_variables)
    with pytest.raises(NameplateError, match="cannot be told apart"):
        named_variables(optimizer, nameplate.variables(model))
