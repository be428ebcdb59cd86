"""Arguments of a wrong type or value are refused in words, each of every verb."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.errors import NameplateError
from nameplate.interpret.settings import Settings

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
        (lambda: N.set_trainable(_model(), 5), "patterns=5: a list of strings is needed, not an int"),
        (lambda: N.set_trainable(_model(), ["logits", None]), "a list of strings is needed, not None"),
        (lambda: N.load_weights(_model(), {}, only=5), "only=5: a list of strings or None is needed"),
        (lambda: N.write(_model(), 5), r"weights=5: a dictionary \{string: array\} is needed"),
        (lambda: N.fit(_model(), X, Y, callbacks=[5]), "a list of keras.callbacks.Callbacks.* is needed, not 5"),
        (lambda: N.fit(_model(), X, Y, callbacks=keras.callbacks.EarlyStopping), "EarlyStopping"),
    ],
    ids=["patterns", "None among patterns", "only", "weights", "callbacks", "a class"],
)
def test_names_weights_and_callbacks_of_other_types_are_refused(call: Any, message: str) -> None:
    with pytest.raises(NameplateError, match=message):
        call()


# ---- every argument of every verb -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Arguments with which each verb works, or is refused late."""
    folder = tmp_path_factory.mktemp("arguments")
    model, file, image = _model(), folder / "m.keras", np.zeros((8, 8, 3), "float32")
    weights = folder / "m.safetensors"
    nameplate.save(model, file)
    nameplate.save(model, weights)
    pixels = keras.Input((8, 8, 3), name="image")
    seen = keras.layers.Conv2D(2, 3, padding="same", name="conv")(pixels)
    pictures = keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="scores")(seen), name="pictures")
    pair = N.join({"left": model, "right": model}, verify=False)
    new = keras.layers.Dense(2, name="new")
    one = {"model": model}
    return {
        "apply": {"plan": N.plan(model, model), **one},
        "assess": {**one, "data": (X, Y)},
        "attach": {"backbone": model, "heads": {"head": 2}},
        "branch": {"joined": pair, "name": "left"},
        "check": one,
        "draw": one,
        "dream": {"model": pictures, "objective": "conv"},
        "edit": {**one, "edits": [N.Remove("logits")], "verify": False},
        "enforce": one,
        "ensemble": {"members": {"a": model, "b": model}, "verify": False},
        "evaluate": {**one, "data": X, "y": Y},
        "export": {**one, "path": folder / "exported"},
        "extract": {**one, "outputs": "logits", "verify": False},
        "fit": {**one, "data": X, "y": Y},
        "flatten": {"model": pair, "verify": False},
        "freeze": {"model": _model()},
        "insert": {**one, "layer": new, "after": "logits", "verify": False},
        "join": {"branches": {"a": model, "b": model}, "verify": False},
        "layer": {**one, "name": "logits"},
        "layers": one,
        "load": {"path": weights},
        "load_beside": {"path": file, "others": {"other": pictures}},
        "load_choosing": {"path": file, "others": {"other": pictures}, "choose": {}},
        "load_weights": {**one, "source": weights},
        "look": {"model": pictures, "image": image},
        "mend": {"path": file, "to": folder / "mended.keras"},
        "plan": {"source": model, "target": model},
        "predict": {**one, "data": X},
        "prefixed": {**one, "prefix": "p_"},
        "read": one,
        "reconstruct": {"lost": model, "reference": model},
        "remove": {**one, "layers": "logits", "verify": False},
        "rename": {**one, "to": {"logits": "scores"}},
        "replace": {**one, "layers": {"logits": new}, "verify": False},
        "run_config": {"overrides": ["model=mlp"]},
        "saliency": {"model": pictures, "image": image, "number": 0, "at": "conv"},
        "save": {**one, "path": folder / "s.keras"},
        "set_trainable": {**one, "patterns": ["logits"]},
        "siamese": {"tower": model, "verify": False},
        "sweep": {"job": lambda **settings: 1.0, "grid": {"a": [1]}, "run": folder / "sweep"},
        "tabulate": {**one, "data": X},
        "train": {"config": None},
        "variables": one,
        "write": {**one, "weights": N.read(model)},
        "Checkpoint": {},
        "Classes": {"source": ("a",), "target": ("a",)},
        "Insert": {"layer": new},
        "Log": {},
        "Policy": {},
        "Remove": {"name": "a"},
        "Replace": {"name": "a", "layer": new},
        "Run": {"path": folder / "run", "models": model},
        "Run.open": {"path": folder / "run"},
        "RunConfig": dict.fromkeys(inspect.signature(N.RunConfig).parameters),
        "callbacks.Checkpoint": {"run": folder / "run"},
    }


# What verbs return, and errors: nobody calls them.
RESULTS = {
    "Assessment",
    "Frozen",
    "NameplateError",
    "NamingError",
    "NotFiniteError",
    "Predictions",
    "Report",
    "StoppedError",
    "Sweep",
    "TransferPlan",
    "Violation",
}
SETTINGS = {
    "dream": [field.name for field in dataclasses.fields(Settings)],
    **{verb: ["rebuild", "share", "policy", "verify", "report"] for verb in ("insert", "remove", "replace")},
}
NOT_CHECKED = {("Insert", "layer"), ("Replace", "layer")}  # edits are values; `edit` looks into them
VALUES = [object(), [object()], {5: object()}, b"x", -1.5, ""]


def _verb(name: str) -> Any:
    return functools.reduce(getattr, name.split("."), N)


def test_every_public_verb_is_tried(given: dict[str, dict[str, Any]]) -> None:
    assert {*given, *RESULTS, "callbacks"} - {"Run.open", "callbacks.Checkpoint"} == set(N.__all__)


def _tried(verb: str, arguments: dict[str, Any]) -> str | None:
    """Return what the verb says to these arguments; None if it takes them. Anything but our errors is raised."""
    layers = [arguments.pop("layers")] if verb == "remove" else []
    try:
        _verb(verb)(*([arguments.pop("model"), *layers] if layers else []), **arguments)
    except NameplateError as error:
        return str(error)
    return None


@pytest.mark.parametrize("verb", sorted({*N.__all__, "Run.open", "callbacks.Checkpoint"} - RESULTS - {"callbacks"}))
def test_no_argument_of_another_kind_gives_a_raw_error(
    verb: str, given: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = inspect.signature(_verb(verb)).parameters.values()
    names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in [*names, *SETTINGS.get(verb, [])]:
        for value in VALUES:
            said = _tried(verb, given[verb] | {name: value})
            if type(value) is object and (verb, name) not in NOT_CHECKED:
                assert said, f"{verb}({name}={value}) is taken"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: N.fit(_model(), X, Y, epochs="3", seed=None), "epochs='3': a whole number is needed, not a str"),
        (lambda: N.fit(_model(), X, Y, epochs="3", seed=None), "seed=None: a whole number is needed, not None"),
        (lambda: N.fit(_model(), X, Y, epochs=True), "epochs=True: a whole number is needed, not a bool"),
        (lambda: N.fit(_model(), X, Y, validation_split=float("nan")), "validation_split=nan: a share"),
        (lambda: N.fit(_model(), X, Y, naming="strictly"), "no naming policy 'strictly'.*Did you mean 'strict'"),
        (lambda: N.fit(_model(), X, Y, []), r"sample_weight=\[\]: give an array"),
        (lambda: N.load("m.keras", which="first"), "which='first': 'best', 'latest', or the number of a step"),
        (lambda: N.insert(_model(), keras.layers.Dense(2), after="logits", at=[]), r"at=\[\] is not the index"),
        (lambda: N.edit(_model(), [], rebuild=["logit"]), "Did you mean 'logits'"),
        (lambda: N.extract(_model(), "logits", at={"logit": 0}), "'logit' is neither among the outputs"),
        (lambda: N.draw(_model(), reach=-1), "reach=-1: at least 0"),
        (lambda: N.Checkpoint(mode="up"), "Checkpoint: mode='up': 'auto', 'min' or 'max' is needed, not 'up'"),
        (lambda: N.Checkpoint(keep_last="3"), "Checkpoint: keep_last='3': a whole number is needed, not a str"),
        (lambda: N.run_config("model=mlp"), "overrides='model=mlp': a list"),
    ],
)
def test_messages_name_the_argument_what_came_and_what_is_possible(call: Any, message: str) -> None:
    with pytest.raises(NameplateError, match=message):
        call()


def test_what_a_user_means_is_taken() -> None:
    model = _model()
    for epochs in (np.int64(1), 1):
        N.fit(model, X, Y, epochs=epochs, verbose=False, shuffle=np.True_, validation_split=np.float32(0.5))
    N.set_trainable(model, ("logits",))
    assert N.set_trainable(model, np.array(["logits"]), trainable=1)
    assert N.Checkpoint(mode="max").improves_upwards("loss")
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        N.fit(model, X, Y, epoch=1)
