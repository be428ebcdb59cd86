"""Keras' callbacks: hooks that would do nothing, and the epoch that one goes on at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def idle_hooks(callback: keras.callbacks.Callback) -> list[Any]:
    """Return the batch hooks of Keras' own callbacks that do nothing as this one of them is set (callbacks/*.py)."""
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
    """Return the epoch that BackupAndRestore brought a model back to, once: Keras would start the next `fit` there too.

    It leaves it as `_initial_epoch` (callbacks/backup_and_restore.py, trainers/trainer.py).
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

    A hook is a method of the callback's class or, for a LambdaCallback, an attribute of its own. Those of Keras' own
    callbacks that do nothing as they are set (a ModelCheckpoint that saves at epochs) are none.
    """
    return any(_has(callback, hook) for callback in callbacks.callbacks for hook in hooks)


def _has(callback: keras.callbacks.Callback, hook: str) -> bool:
    if hook in vars(callback):
        return True
    method = getattr(type(callback), hook)
    return method is not getattr(keras.callbacks.Callback, hook) and method not in idle_hooks(callback)
