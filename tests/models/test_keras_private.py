"""What `trainer.models.keras_private` relies on in keras 3.15.1."""

from __future__ import annotations

import inspect
from pathlib import Path

import keras
import pytest
from keras.src.backend import config
from keras.src.utils import file_utils

import trainer.models
from tests.private_names import private_imports
from trainer.models import keras_private

ROOM = Path(inspect.getfile(trainer.models)).parent


def test_keras_keeps_its_downloads_in_a_folder_of_its_own() -> None:
    assert config.keras_home() == str(keras_private.cache_folder())


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "EfficientNetB0", "VGG16", "DenseNet121"])
def test_an_architecture_asks_for_its_file_where_we_answer(name: str) -> None:
    asked = []

    def answer(fname: str, origin: str, **options: str) -> str:
        asked.append((fname, origin, options))
        raise LookupError

    own = file_utils.get_file
    with pytest.raises(LookupError), keras_private.downloads_answered(answer):
        getattr(keras.applications, name)(include_top=False, weights="imagenet", input_shape=(224, 224, 3))
    (fname, origin, options), *others = asked
    assert not others
    assert fname.endswith(".h5")
    assert origin.startswith("https://")
    assert set(options) <= {"cache_subdir", "file_hash"}
    assert options["cache_subdir"] == "models"
    assert file_utils.get_file is own is keras.utils.get_file


def test_no_other_module_imports_what_is_private() -> None:
    strays = {path.name: list(private_imports(path)) for path in ROOM.glob("*.py") if path.name != "keras_private.py"}
    assert {name: found for name, found in strays.items() if found} == {}
