"""Every family of `keras.applications` once through rename, replace, extract, join with itself, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.surgery.verification import equal_outputs

# The smallest of each family, with the size that it takes.
FAMILIES: dict[str, dict[str, Any]] = {
    "ConvNeXtTiny": {"side": 32},
    "DenseNet121": {"side": 32},
    "EfficientNetB0": {"side": 32},
    "EfficientNetV2B0": {"side": 32},
    "InceptionResNetV2": {"side": 75},
    "InceptionV3": {"side": 75},
    "MobileNet": {"side": 32},
    "MobileNetV2": {"side": 32},
    "MobileNetV3Small": {"side": 32},
    "NASNetMobile": {"side": 32},
    "ResNet50": {"side": 32},
    "ResNet50V2": {"side": 32},
    "VGG16": {"side": 32},
    "Xception": {"side": 71},
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_every_edit(family: str, tmp_path: Path) -> None:
    side = FAMILIES[family]["side"]
    model = getattr(keras.applications, family)(weights=None, input_shape=(side, side, 3), classes=4)
    renamed = nameplate.rename(model, lambda layer: f"a_{layer.name}")
    assert [each.tobytes() for each in nameplate.read(renamed).values()] == [
        each.tobytes() for each in nameplate.read(model).values()
    ]

    stem = next(name for name, each in nameplate.layers(renamed).items() if isinstance(each, layers.Conv2D))
    old = nameplate.layer(renamed, stem)
    fresh = type(old).from_config({**old.get_config(), "name": None})
    replaced = nameplate.replace(renamed, {stem: fresh}, verify=False)
    assert equal_outputs(renamed, replaced) == []

    weighty = (layers.Dense, layers.Conv2D)
    last = [name for name, each in nameplate.layers(renamed).items() if isinstance(each, weighty) and "/" not in name][
        -1
    ]
    part = nameplate.extract(renamed, last, verify=False)
    inside = keras.Model(renamed.inputs, nameplate.layer(renamed, last).output)
    assert equal_outputs(inside, part) == []

    twice = nameplate.join({"one": renamed, "two": renamed}, verify=False)
    read = nameplate.read(twice)
    assert all(np.array_equal(read[f"two/{name}"], value) for name, value in nameplate.read(renamed).items())

    nameplate.save(replaced, tmp_path / "model.keras")
    loaded = nameplate.load(tmp_path / "model.keras", trust=True)  # some have layers of a class of their own
    assert list(nameplate.read(loaded)) == list(nameplate.read(replaced))
    assert equal_outputs(replaced, loaded) == []
