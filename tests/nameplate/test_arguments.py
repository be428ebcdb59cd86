"""Arguments of a wrong type are refused in words, by every verb that takes a path, a model, names or callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.errors import NameplateError

N: Any = nameplate


def _model() -> keras.Model:
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="logits")], name="mine")
    model.compile("sgd", "mse")
    return model


X, Y = np.zeros((4, 4), "float32"), np.zeros((4, 2), "float32")
PATHS = {
    "load": lambda path: N.load(path),
    "load_beside": lambda path: N.load_beside(path, _model()),
    "load_weights": lambda path: N.load_weights(_model(), path),
    "save": lambda path: N.save(_model(), path),
    "export": lambda path: N.export(_model(), path),
    "mend": lambda path: N.mend(path, "to.keras"),
    "mend to": lambda path: N.mend("from.keras", path),
    "draw": lambda path: N.draw(_model(), to=path),
    "Run.open": lambda path: N.Run.open(path),
}


@pytest.mark.parametrize("verb", PATHS)
@pytest.mark.parametrize("path", [5, [], {}, 1.5], ids=repr)
def test_what_is_not_a_path_is_refused(verb: str, path: Any) -> None:
    with pytest.raises(NameplateError, match=r"path|mapping|weights"):
        PATHS[verb](path)


MODELS = {
    "fit": lambda model: N.fit(model, X, Y),
    "evaluate": lambda model: N.evaluate(model, X, Y),
    "predict": lambda model: N.predict(model, X),
    "save": lambda model: N.save(model, "a.keras"),
    "rename": lambda model: N.rename(model, {}),
    "set_trainable": lambda model: N.set_trainable(model, ["a"]),
    "layers": lambda model: N.layers(model),
    "check": lambda model: N.check(model),
    "read": lambda model: N.read(model),
}


@pytest.mark.parametrize("verb", MODELS)
@pytest.mark.parametrize("model", [None, 5, "mine.keras", Path("mine.keras"), keras.layers.Dense(2)], ids=str)
def test_what_is_not_a_model_is_refused(verb: str, model: Any) -> None:
    with pytest.raises(NameplateError, match=r"keras\.Model is needed, not"):
        MODELS[verb](model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: N.set_trainable(_model(), 5), "patterns=5: 5 is not a name"),
        (lambda: N.set_trainable(_model(), ["logits", None]), "None is not a name"),
        (lambda: N.load_weights(_model(), {}, only=5), "only=5: 5 is not a name"),
        (lambda: N.write(_model(), 5), r"weights=5: give \{variable name: array\}"),
        (lambda: N.fit(_model(), X, Y, callbacks=[5]), "callbacks: 5 is not a callback"),
        (lambda: N.fit(_model(), X, Y, callbacks=keras.callbacks.EarlyStopping), "EarlyStopping"),
    ],
    ids=["patterns", "None among patterns", "only", "weights", "callbacks", "a class"],
)
def test_names_weights_and_callbacks_of_other_types_are_refused(call: Any, message: str) -> None:
    with pytest.raises(NameplateError, match=message):
        call()
