"""Which callbacks do something at every batch: Python then runs at every step."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from trainer.replicas.private.callbacks import idle_hooks

TRAINING = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
TESTING = ("on_test_batch_begin", "on_test_batch_end")


def are_wanted(callbacks: keras.callbacks.CallbackList, hooks: Sequence[str]) -> bool:
    """Say whether one of the callbacks has one of the hooks.

    A hook is a method of the callback's class or, for a LambdaCallback, an attribute of its own. Those of Keras' own
    callbacks that do nothing as they are set (a ModelCheckpoint that saves at epochs) are none.
    """
    return any(_has(callback, hook) for callback in callbacks.callbacks for hook in hooks)


def _has(callback: keras.callbacks.Callback, hook: str) -> bool:
    if hook in vars(callback):
        return True
    method = getattr(type(callback), hook)
    return method is not getattr(keras.callbacks.Callback, hook) and method not in idle_hooks(callback)
