"""Compiling: which methods of a model are a user's own."""

from __future__ import annotations

from typing import Any

import keras

from nameplate.engine.compile import overridden


def test_a_train_step_of_the_users_own_is_seen() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {}

    assert overridden(Own(), "train_step")
    assert not overridden(keras.Sequential(), "train_step")
    assert not overridden(Own(), "test_step")
