"""Keras' callbacks: hooks that would do nothing, and the epoch that one goes on at."""

from __future__ import annotations

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
