"""What cannot be built is answered in words."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from trainer.models.checks import BuildError

IMAGE: dict[str, tuple[int, ...]] = {"image": (8, 8, 1)}
LABEL = {"label": 10}
PAIR: dict[str, tuple[int, ...]] = {"left": (8, 8, 1), "right": (8, 8, 1)}


def _refused(architecture: str, inputs: Any = IMAGE, outputs: Any = LABEL, **parameters: Any) -> str:
    with pytest.raises(BuildError) as caught:
        import_module(f"trainer.models.{architecture}").build(inputs, outputs, **parameters)
    return str(caught.value)


@pytest.mark.parametrize("architecture", ["mlp", "convnet", "resnet", "vit", "subclassed", "applications"])
def test_data_with_two_inputs_and_outputs_is_sent_to_two_tower(architecture: str) -> None:
    message = _refused(architecture, PAIR, {"same": 2, "sum": 19})
    assert message.startswith(f"the model '{architecture}' cannot be built:")
    assert "inputs: takes exactly one, the data has 2 (left, right); model=two_tower" in message
    assert "outputs: takes exactly one, the data has 2 (same, sum); model=two_tower" in message


@pytest.mark.parametrize("architecture", ["convnet", "resnet", "vit", "subclassed", "applications"])
def test_a_vector_is_sent_to_mlp(architecture: str) -> None:
    message = _refused(architecture, {"row": (4,)})
    assert "'row' has the shape (4,), but an image is (height, width, channels); model=mlp takes any shape" in message


@pytest.mark.parametrize(
    ("inputs", "outputs", "part"),
    [
        (IMAGE, LABEL, "takes exactly two of one shape, the data has 1 (image); choose data with two"),
        ({}, LABEL, "the data has none"),
        ({"a": (2,), "b": (2,), "c": (2,)}, LABEL, "the data has 3 (a, b, c)"),
        ({"a": (2,), "b": (3,)}, LABEL, "needs one shape, the data has 'a' (2,) and 'b' (3,)"),
        (PAIR, {}, "outputs: needs at least one, the data has none"),
        (PAIR, {"left": 2}, "names: left is both an input or output of the data and a layer of the model"),
    ],
)
def test_two_tower_says_what_it_needs(inputs: Any, outputs: Any, part: str) -> None:
    assert part in _refused("two_tower", inputs, outputs)


@pytest.mark.parametrize(
    ("architecture", "parameters", "parts"),
    [
        ("mlp", {"hidden": [4, 0]}, ["hidden: [4, 0] is too small; at least 1"]),
        ("mlp", {"activation": "rellu"}, ["activation: 'rellu' is not one of relu", "Did you mean 'relu'"]),
        ("mlp", {"dropout": 1.0}, ["dropout: 1.0 is not in [0, 1)"]),
        ("convnet", {"width": 0, "dropout": -1}, ["width: 0 is too small", "dropout: -1 is not in"]),
        ("convnet", {"blocks": []}, ["blocks: empty"]),
        ("convnet", {"norm": "bach"}, ["norm: 'bach' is not one of batch, group, layer, none. Did you mean 'batch'"]),
        ("resnet", {"depth": 20}, ["depth: 20 is not one of 18, 34, 50"]),
        ("resnet", {"stem": "tiny"}, ["stem: 'tiny' is not one of auto, small, large"]),
        ("vit", {"patch": 3}, ["patch: 3 does not tile an image of 8 x 8 pixels; these do: 1, 2, 4, 8"]),
        ("vit", {"heads": 5}, ["heads: 5 do not divide width 64; e.g. 2, 4, 8"]),
        ("two_tower", {"features": 0}, ["features: 0 is too small"]),
        ("subclassed", {"layers": 0, "token_hidden": 0}, ["layers: 0 is", "token_hidden: 0 is"]),
        ("applications", {"name": "MobilNet"}, ["has no 'MobilNet'. Did you mean 'MobileNet'", "It has ConvNeXtBase"]),
        ("applications", {}, ["needs images of at least 32 x 32 pixels, these have 8 x 8; model.enlarge_to=32"]),
        (
            "applications",
            {"arguments": {"alhpa": 1}},
            ["arguments.alhpa: MobileNetV2 has no such argument; it takes alpha. Did you mean 'alpha'?"],
        ),
        (
            "applications",
            {"name": "MobileNet", "enlarge_to": 32, "include_top": True, "arguments": {"dropout": 3}},
            ["name: MobileNet refuses: Invalid value received for argument `rate`"],
        ),
    ],
)
def test_a_parameter_out_of_bounds_is_named(architecture: str, parameters: dict[str, Any], parts: list[str]) -> None:
    message = _refused(architecture, PAIR if architecture == "two_tower" else IMAGE, **parameters)
    assert [part for part in parts if part not in message] == []


def test_all_problems_are_told_at_once() -> None:
    message = _refused("convnet", {"row": (4,), "column": (4,)}, {}, width=0, norm="none of them")
    assert len(message.splitlines()) == 7


@pytest.mark.parametrize(
    ("inputs", "outputs", "part"),
    [
        ({"image": (0, 8, 1)}, LABEL, "'image' has the shape (0, 8, 1), but every side must be at least 1"),
        (IMAGE, {"label": 0}, "'label' has 0 logits; at least 1"),
        ({"stem_conv": (8, 8, 1)}, LABEL, "stem_conv is both an input or output of the data and a layer"),
        (IMAGE, {"pool": 3}, "pool is both an input or output of the data and a layer of the model"),
        (IMAGE, {"image": 3}, "image is both an input or output of the data and a layer of the model"),
    ],
)
def test_data_that_no_model_can_have_is_named(inputs: Any, outputs: Any, part: str) -> None:
    assert part in _refused("convnet", inputs, outputs)


def test_the_registry_and_the_checks_import_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys; from trainer.models import ARCHITECTURES; import trainer.models.checks, trainer.models.checks, "
        "trainer.models.checks; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
