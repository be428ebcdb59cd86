from __future__ import annotations

from typing import Any

import keras
import pytest

from nameplate.graph.serializable import advice


class LeavesOutTheName(keras.layers.Layer):
    def __init__(self, u: int = 3, **k: Any) -> None:
        super().__init__(**k)
        self.u = u

    def get_config(self) -> dict[str, Any]:
        return {"u": self.u}


class UsesAnotherWord(keras.layers.Layer):
    def __init__(self, u: int = 3, **k: Any) -> None:
        super().__init__(**k)
        self.u = u


class TakesNoName(keras.layers.Layer):
    def __init__(self, u: int = 3) -> None:
        super().__init__(name="fixed")
        self.u = u


class KeepsItsOwn(keras.layers.Layer):
    def __init__(self, u: int = 3, name: str | None = None) -> None:
        super().__init__(name="fixed")
        self.u = u


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (LeavesOutTheName, r"add to LeavesOutTheName.get_config: return {**super().get_config(), ...}"),
        (UsesAnotherWord, "def __init__(self, ..., **kwargs): super().__init__(**kwargs)"),
        (TakesNoName, "def __init__(self, ..., **kwargs): super().__init__(**kwargs)"),
        (KeepsItsOwn, "call super().__init__(**kwargs) in KeepsItsOwn.__init__"),
    ],
)
def test_the_advice_is_about_what_drops_the_name(kind: Any, words: str) -> None:
    assert words in advice(kind())
