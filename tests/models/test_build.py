"""Every architecture computes logits for its data, learns from them, and survives a file."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import keras
import numpy as np
import pytest

import nameplate
from tests.long import cases
from tests.models.cases import SHORT, SMALL, Case, built
from trainer.models import ARCHITECTURES


@pytest.mark.parametrize("name", cases(SMALL, short=SHORT))
def test_every_output_has_its_logits_in_float32(name: str) -> None:
    case = SMALL[name]
    found = _by_label(case, built(name)(case.batch()))
    assert {label: (tuple(each.shape), str(each.dtype)) for label, each in found.items()} == {
        label: ((3, units), "<dtype: 'float32'>") for label, units in case.outputs.items()
    }


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18", "vit", "two_tower", "subclassed", "applications"])
def test_logits_and_inputs_are_float32_under_mixed_precision(name: str, mixed_bfloat16: None) -> None:
    case = SMALL[name]
    model = case.build()
    found = _by_label(case, model(case.batch()))
    assert {each.dtype.name for each in found.values()} == {"float32"}
    assert {each.dtype for each in getattr(model, "inputs", [])} <= {"float32"}
    computing = {each.compute_dtype for each in nameplate.layers(model).values() if each.weights}
    assert computing == {"bfloat16", "float32"}


@pytest.mark.parametrize("name", cases(SMALL, short=SHORT))
def test_logits_are_no_probabilities(name: str) -> None:
    case, model = SMALL[name], built(name)
    for layer in nameplate.layers(model).values():
        assert getattr(layer, "activation", None) is not keras.activations.softmax
    batch = keras.tree.map_structure(lambda array: 100 * array, case.batch())
    sums = [np.sum(np.asarray(each), axis=-1) for each in _by_label(case, model(batch)).values()]
    assert not any(np.allclose(each, 1) for each in sums)


@pytest.mark.parametrize("name", cases(SMALL, short=SHORT))
def test_a_saved_model_loads_and_computes_the_same(name: str, tmp_path: Path) -> None:
    case, model = SMALL[name], built(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert list(nameplate.variables(loaded)) == list(nameplate.variables(model))
    for label, each in _by_label(case, loaded(case.batch())).items():
        np.testing.assert_array_equal(each, _by_label(case, model(case.batch()))[label])


@pytest.mark.parametrize("name", cases(SMALL, short=SHORT))
def test_the_configuration_of_a_model_rebuilds_it(name: str) -> None:
    case, model = SMALL[name], built(name)
    again = type(model).from_config(model.get_config())
    again.build({key: (None, *shape) for key, shape in case.inputs.items()}) if not again.built else None
    assert list(nameplate.layers(again)) == list(nameplate.layers(model))
    assert _shapes(again) == _shapes(model)


@pytest.mark.parametrize("name", ["convnet", "two_tower", "subclassed"])
def test_losses_and_metrics_are_keyed_by_the_names_of_the_outputs(name: str) -> None:
    case = SMALL[name]
    model = case.build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "sgd", loss=dict.fromkeys(case.outputs, loss), metrics={label: ["accuracy"] for label in case.outputs}
    )
    labels = {label: np.arange(3) % units for label, units in case.outputs.items()}
    targets = labels["label"] if name == "convnet" else labels  # its output is one tensor, the others' are dictionaries
    logs = model.train_on_batch(case.batch(), targets, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert len([key for key in logs if key.endswith("accuracy")]) == len(case.outputs)


def test_the_shared_tower_is_one_model_with_one_set_of_weights() -> None:
    case = SMALL["two_tower"]
    model = case.build()
    assert len([name for name in nameplate.variables(model) if name.endswith("features/kernel")]) == 1
    left, right = case.batch().values()
    there, back = model({"left": left, "right": right}), model({"left": right, "right": left})
    np.testing.assert_allclose(there["sum"], back["sum"], atol=1e-6)


@pytest.mark.parametrize(
    ("side", "stem"), [(8, "auto"), (63, "auto"), (64, "small"), (64, "auto"), (8, "large"), (224, "auto")]
)
def test_the_stem_of_a_resnet_fits_the_image(side: int, stem: str) -> None:
    model = Case("resnet", (side, side, 3), {"width": 1, "stem": stem}).build()
    large = stem == "large" or (stem == "auto" and side >= 64)
    assert ("stem_pool" in nameplate.layers(model)) is large
    assert nameplate.layer(model, "stem_conv").kernel.shape[:2] == ((7, 7) if large else (3, 3))


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(18, 11_689_512), pytest.param(34, 21_797_672, marks=pytest.mark.long), (50, 25_557_032)],
    ids=["18", "34", "50"],
)
def test_a_resnet_has_the_trainable_parameters_of_torchvisions(depth: int, parameters: int) -> None:
    build = import_module("trainer.models.resnet").build
    model = build({"image": (224, 224, 3)}, {"label": 1000}, depth=depth)
    assert sum(int(np.prod(each.shape)) for each in model.trainable_variables) == parameters


def test_a_resnet_pads_both_sides_of_a_strided_convolution() -> None:
    model = Case("resnet", (32, 32, 3), {"width": 2, "stem": "large"}).build()
    strided = [each for each in model.layers if getattr(each, "strides", (1, 1)) != (1, 1)]
    wide = [each for each in strided if getattr(each, "kernel_size", (1, 1)) != (1, 1)]
    assert [each.name for each in wide] == [
        "stem_conv", *[f"stage{stage}_block1_conv1" for stage in (2, 3, 4)]
    ]  # fmt: skip
    assert all(each.padding == "valid" and f"{each.name}_pad" in nameplate.layers(model) for each in wide)


@pytest.mark.parametrize(
    ("shape", "side"),
    [((8, 8, 1), 2), ((28, 28, 1), 4), ((32, 32, 3), 4), ((224, 224, 3), 14), ((12, 24, 3), 3), ((7, 7, 1), 1)],
    ids=str,
)
def test_a_patch_is_near_the_square_root_of_the_image(shape: tuple[int, ...], side: int) -> None:
    model = Case("vit", shape, {"width": 2, "layers": 1, "heads": 1}).build()
    assert nameplate.layer(model, "patch_embedding").kernel_size == (side, side)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_has_a_default_and_is_given_by_name(architecture: str) -> None:
    _, _, *parameters = signature(import_module(f"trainer.models.{architecture}").build).parameters.values()
    assert all(each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in parameters)


def _by_label(case: Case, found: object) -> dict:
    return found if isinstance(found, dict) else {next(iter(case.outputs)): found}


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in nameplate.variables(model).items()}
