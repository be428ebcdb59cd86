"""What `fit`, `evaluate` and `predict` held of their data is gone when they return, whatever Python collects later."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.data import feeds, source
from tests.nameplate.engine.replication.training import OnDisk

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
Y = X[:, :2].copy()
DATA: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "arrays through the pipeline": lambda: OnDisk((X, Y)),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),
}
VERBS: dict[str, Callable[[keras.Model, Any], Any]] = {
    "fit": lambda model, data: nameplate.fit(model, data, batch_size=8, epochs=2, validation_data=data),
    "evaluate": lambda model, data: nameplate.evaluate(model, data, batch_size=8),
    "predict": lambda model, data: nameplate.predict(model, data, batch_size=8),
}


class Seen:
    """What was made of the data: where it is in memory, and the objects that lead there."""

    def __init__(self) -> None:
        self.handles: list[tf.Tensor] = []
        self.objects: list[weakref.ref[Any]] = []

    def alive(self) -> list[str]:
        """Return what is still there."""
        found = [type(held()).__name__ for held in self.objects if held() is not None]
        return found + [f"{size} numbers" for handle in self.handles if (size := _size(handle))]


def _size(handle: tf.Tensor) -> int:
    if not tf.raw_ops.VarIsInitializedOp(resource=handle):
        return 0
    return int(np.prod(tf.raw_ops.VariableShape(input=handle)))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Note what feeds hold, while Python does not collect cycles."""
    found = Seen()

    def watch(kind: Any, handles: Callable[[Any], list[Any]]) -> None:
        original = kind.__init__

        def made(self: Any, *arguments: Any, **keywords: Any) -> None:
            original(self, *arguments, **keywords)
            found.objects.append(weakref.ref(self))
            found.handles.extend(handles(self))

        monkeypatch.setattr(kind, "__init__", made)

    def of_replicas(resident: feeds.ResidentFeed) -> list[Any]:
        local = tf.distribute.get_strategy().experimental_local_results
        return [copy.handle for held in tf.nest.flatten(resident._held) for copy in local(held)]

    def begin(host: feeds.HostFeed, step: int) -> Any:
        iterator = begins(host, step)
        found.objects.append(weakref.ref(iterator))
        return iterator

    def hold(resident: feeds.ResidentFeed, place: Any) -> None:
        holds(resident, place)
        found.handles.extend(of_replicas(resident))

    begins, holds = feeds.HostFeed.begin, feeds.ResidentFeed.hold
    monkeypatch.setattr(feeds.ResidentFeed, "hold", hold)
    watch(feeds.ResidentFeed, lambda _: [])
    watch(feeds.HostFeed, lambda _: [])
    watch(source._Held, lambda held: [held._handle])
    monkeypatch.setattr(feeds.HostFeed, "begin", begin)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


def compiled(strategy: Any) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, name="value")], name="model")
        model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("verb", VERBS)
def test_b7_nothing_of_the_data_is_held_afterwards(strategy: Any, seen: Seen, verb: str, kind: str) -> None:
    VERBS[verb](compiled(strategy), DATA[kind]())
    assert seen.objects
    assert seen.alive() == []


def test_b7_nothing_is_held_after_an_error_either(strategy: Any, seen: Seen) -> None:
    y = Y.copy()
    y[3] = np.nan
    with pytest.raises(RuntimeError, match="NaN or Inf loss") as error:
        nameplate.fit(
            compiled(strategy), (X, y), batch_size=8, callbacks=keras.callbacks.TerminateOnNaN(raise_error=True)
        )
    assert seen.handles
    assert [each for each in seen.alive() if "numbers" in each] == []
    del error


def test_b7_repeated_calls_take_no_more_memory(strategy: Any, seen: Seen) -> None:
    """Two megabytes on each replica would be 40 after ten calls."""
    model, x = compiled(strategy), np.zeros((90_000, 6), "float32")
    for _ in range(10):
        nameplate.predict(model, x, batch_size=45_000)
    held = sum(_size(handle) for handle in seen.handles)
    assert (len(seen.handles), held) == (20, 0)
