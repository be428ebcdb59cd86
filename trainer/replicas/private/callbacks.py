"""Hooks of Keras' callbacks that would do nothing."""

from __future__ import annotations

from typing import Any

import keras


def idle_hooks(callback: keras.callbacks.Callback) -> list[Any]:
    """Return the batch hooks of Keras' own callbacks that do nothing as this one of them is set (callbacks/*.py).

    The loop looks for NaN itself, at every step.
    """
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
        case its.TerminateOnNaN():
            return [its.TerminateOnNaN.on_batch_end]
    return []
