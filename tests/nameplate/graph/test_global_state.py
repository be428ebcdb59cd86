"""Verbs draw random numbers of their own and leave the caller's where they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.naming.policy import PolicyMode
from tests.nameplate.naming_models import functional


def drawn(model: keras.Model, name: str) -> np.ndarray:
    return np.asarray(nameplate.read(model)[name])


VERBS: dict[str, Callable[[keras.Model], np.ndarray]] = {
    "attach": lambda model: drawn(nameplate.attach(model, {"y": 5}, after="drop"), "y/kernel"),
    "replace": lambda model: drawn(nameplate.replace(model, {"logits": layers.Dense(5)}), "logits/kernel"),
    "insert": lambda model: drawn(nameplate.insert(model, layers.Dense(5, name="more"), before="drop"), "more/kernel"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_c9_what_a_verb_makes_is_other_than_what_it_made_before_and_than_the_next_layer(verb: str) -> None:
    keras.utils.set_random_seed(3)
    model = functional()
    one, other = VERBS[verb](model), VERBS[verb](model)
    after = layers.Dense(one.shape[1])
    after.build((None, one.shape[0]))

    assert not np.array_equal(one, other)
    assert not np.array_equal(one, after.kernel)
    assert not np.array_equal(other, after.kernel)


def test_c9_the_same_seed_gives_the_same_layers() -> None:
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = functional()
        found.append([VERBS["attach"](model), VERBS["attach"](model)])
    again = []
    for _ in range(2):  # with nothing drawn between the seed and the verb
        keras.utils.set_random_seed(4)
        again.append(VERBS["attach"](model))

    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))
    assert np.array_equal(again[0], again[1])
    assert not np.array_equal(found[0][0], again[0])


def everything(folder: Path) -> dict[str, Callable[[keras.Model], Any]]:
    """Return verbs, with what the caller makes for them made beforehand."""
    act, wide = layers.ReLU(name="act"), layers.Dense(5)
    nameplate.save(functional(), folder / "m.keras")
    return {
        "attach": VERBS["attach"],
        "insert": lambda model: nameplate.insert(model, act, before="drop"),
        "replace": lambda model: nameplate.replace(model, {"logits": wide}),
        "load": lambda _: nameplate.load(folder / "m.keras"),
        "repair": lambda model: nameplate.enforce(
            model, nameplate.Policy(mode=PolicyMode.repair, forbidden=["logits"])
        ),
        "rename": lambda model: nameplate.rename(model, {"logits": "out"}),
        "join": lambda model: nameplate.join({"a": model, "b": model}),
        "ensemble": lambda model: nameplate.ensemble({"a": model, "b": model}),
        "flatten": nameplate.flatten,
        "extract": lambda model: nameplate.extract(model, "drop"),
        "check": nameplate.check,
        "apply": lambda model: nameplate.apply(nameplate.plan(model, model), model),
    }


def test_c9_a_verb_leaves_the_global_random_state_as_it_found_it(tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)
    model = functional()
    moved = [verb for verb, run in everything(tmp_path).items() if _moves(run, model)]
    assert moved == []


def _moves(run: Callable[[keras.Model], Any], model: keras.Model) -> bool:
    states = random.getstate(), repr(np.random.get_state())
    run(model)
    return (random.getstate(), repr(np.random.get_state())) != states
