"""Keras' callbacks: which of their hooks do anything, and the epoch that one has restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def idle_hooks(callback: keras.callbacks.Callback) -> list[Any]:
    """Return the batch hooks that do nothing in this callback as it is configured (callbacks/*.py)."""
    its = keras.callbacks
    match callback:
        case its.ModelCheckpoint() | its.BackupAndRestore() if callback.save_freq == "epoch":
            return [its.ModelCheckpoint.on_train_batch_end, its.BackupAndRestore.on_train_batch_end]
        case its.TensorBoard() if callback.update_freq == "epoch" and not callback._should_trace:
            if not callback.write_steps_per_second:
                return [
                    its.TensorBoard.on_train_batch_begin,
                    its.TensorBoard.on_train_batch_end,
                    its.TensorBoard.on_test_batch_begin,
                ]
    return []


def restored_epoch(model: keras.Model) -> int | None:
    """Return the epoch that BackupAndRestore has restored a model to, and forget it, lest the next `fit` start there.

    BackupAndRestore stores it as `_initial_epoch` (callbacks/backup_and_restore.py, trainers/trainer.py).
    """
    epoch, model._initial_epoch = model._initial_epoch, None
    return epoch


def stop_on_nan(callbacks: keras.callbacks.CallbackList) -> bool:
    """Say whether one of the callbacks decides what happens when a loss is NaN or infinite."""
    return any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in callbacks.callbacks)


TRAINING = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
TESTING = ("on_test_batch_begin", "on_test_batch_end")


def are_wanted(callbacks: keras.callbacks.CallbackList, hooks: Sequence[str]) -> bool:
    """Say whether one of the callbacks has one of the hooks.

    A hook is a method of the callback's class or, in a LambdaCallback, an attribute of the instance. Hooks of Keras'
    own callbacks that do nothing as configured (a ModelCheckpoint that saves at epochs) do not count.
    """
    return any(_has(callback, hook) for callback in callbacks.callbacks for hook in hooks)


def _has(callback: keras.callbacks.Callback, hook: str) -> bool:
    if hook in vars(callback):
        return True
    method = getattr(type(callback), hook)
    return method is not getattr(keras.callbacks.Callback, hook) and method not in idle_hooks(callback)
