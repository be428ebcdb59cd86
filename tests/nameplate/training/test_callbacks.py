"""What callbacks remember comes back: EarlyStopping, ReduceLROnPlateau, and one of a user's own."""

from __future__ import annotations

import copy
import enum
import json
from typing import Any

import keras
import numpy as np
import pytest

from nameplate.errors import NameplateError
from nameplate.training.callbacks import CallbackState

LOSSES = [1.0, 0.5, 0.6, 0.55, 0.7, 0.4, 0.45, 0.46, 0.47]


class Counts(keras.callbacks.Callback):
    """Counts epochs, and keeps the best."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs, self.best = 0, float("inf")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1
        self.best = min(self.best, logs["loss"])


def made(patience: int = 3) -> tuple[keras.Model, list[Any], CallbackState]:
    model = keras.Sequential(
        [keras.Input((2,), name="x"), keras.layers.Dense(1, kernel_initializer="ones", name="y")], name="m"
    )
    model.compile("sgd", loss="mse")
    stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=patience, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=2, factor=0.5)
    callbacks = [stopping, plateau, Counts()]
    memory = CallbackState(callbacks)
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    return model, callbacks, memory


def told(model: keras.Model, callbacks: list[Any], losses: list[float], *, first: int) -> None:
    for epoch, loss in enumerate(losses, first):
        model.layers[-1].bias.assign([float(epoch)])
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"loss": loss})


def test_cut_at_any_epoch_the_callbacks_end_as_if_they_had_not_been() -> None:
    model, whole, _ = made()
    told(model, whole, LOSSES, first=0)
    for cut in range(1, len(LOSSES)):
        before, callbacks, memory = made()
        told(before, callbacks, LOSSES[:cut], first=0)
        plain, arrays = memory.capture()
        rate = float(before.optimizer.learning_rate)
        after, again, fresh = made()
        fresh.restore(json.loads(json.dumps(plain)), arrays)
        after.optimizer.learning_rate = rate  # in a run the optimizer's state brings it
        told(after, again, LOSSES[cut:], first=cut)
        assert float(after.optimizer.learning_rate) == float(model.optimizer.learning_rate)
        for one, other in zip(whole, again, strict=True):
            own = {key: value for key, value in vars(one).items() if key not in ("_model", "best_weights")}
            assert own == {key: vars(other)[key] for key in own}
        assert all(map(np.array_equal, whole[0].best_weights, again[0].best_weights))


class Phase(enum.IntEnum):
    warm, late = 1, 2


VALUES: dict[str, Any] = {
    "losses": [1.0, float("nan"), 2, None, True, "x"],
    "pairs": {"a": (1, 2.5), 3: {"b": [float("inf")]}},
    "seen": {1, 2, (3, 4)},
    "phase": Phase.late,
    "scalar": np.float32(0.1),
    "flag": np.bool_(True),
    "empty": [],
}


def test_every_kind_of_plain_value_comes_back_as_it_was() -> None:
    class Keeps(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            for name, value in VALUES.items():
                setattr(self, name, type(value)() if name != "phase" else Phase.warm)

    before = Keeps()
    memory = CallbackState([before])
    for name, value in copy.deepcopy(VALUES).items():
        setattr(before, name, value)
    plain, arrays = memory.capture()
    after = Keeps()
    held_elsewhere = after.losses
    CallbackState([after]).restore(json.loads(json.dumps(plain)), arrays)
    found = {name: getattr(after, name) for name in VALUES}
    assert repr(found | {"scalar": np.float32(found["scalar"]), "flag": np.bool_(found["flag"])}) == repr(VALUES)
    assert found["phase"] is Phase.late
    assert held_elsewhere is after.losses


def test_what_is_not_plain_stays_as_the_process_made_it() -> None:
    callback = Counts()
    memory = CallbackState([callback])
    callback.model_of = [object()]
    callback.loop = []
    callback.loop.append(callback.loop)
    callback.long = ["x" * 100] * 20_000
    plain, _ = memory.capture()
    assert plain == {"0_Counts": {}}


@pytest.mark.parametrize("encoded", [["enum", "late"], ["container", "{"], ["int", "x"], ["container", '{"$os": []}']])
def test_state_that_nobody_wrote_is_refused_or_ignored(encoded: list[str]) -> None:
    callback = Counts()
    memory = CallbackState([callback])
    if encoded[0] == "enum":
        memory.restore({"0_Counts": {"epochs": encoded}}, {})
        assert callback.epochs == 0
    else:
        with pytest.raises(NameplateError, match="the state of a callback has"):
            memory.restore({"0_Counts": {"epochs": encoded}}, {})


def test_a_setting_is_what_the_process_was_configured_with() -> None:
    model, callbacks, memory = made()
    told(model, callbacks, LOSSES[:4], first=0)
    _, (stopping, *_), other = made(patience=7)
    other.restore(*memory.capture())
    assert (stopping.patience, stopping.wait, stopping.best) == (7, 2, 0.5)


def test_going_back_in_one_process_brings_back_what_had_not_changed_yet() -> None:
    model, callbacks, memory = made()
    plain, arrays = memory.capture()
    told(model, callbacks, LOSSES[:3], first=0)
    memory.restore(plain, arrays)
    assert (callbacks[2].epochs, callbacks[2].best) == (0, float("inf"))


@pytest.mark.parametrize("name", ["load", "__loader__", "absent", "backend"])
def test_f1_a_memory_from_elsewhere_names_operations_alone(name: str) -> None:
    _, _, memory = made()
    plain, arrays = memory.capture()
    first = next(iter(plain))
    plain[first]["monitor_op"] = ["keras.ops", name]
    with pytest.raises(NameplateError, match="not an operation of Keras"):
        memory.restore(plain, arrays)


def test_f1_a_memory_from_elsewhere_does_not_change_what_a_callback_is() -> None:
    _, callbacks, memory = made()
    plain, arrays = memory.capture()
    plain[next(iter(plain))] |= {"__class__": ["str", "x"], "_model": ["str", "x"], "a b": ["str", "x"]}
    model = callbacks[0].model
    memory.restore(plain, arrays)
    assert callbacks[0].model is model
    assert "a b" not in vars(callbacks[0])
