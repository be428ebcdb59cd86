"""The names of every architecture are given at birth, and stay."""

from __future__ import annotations

from typing import Any

import keras
import pytest

import nameplate
from nameplate.naming.names import is_automatic
from tests.long import cases
from tests.models.cases import GOLDEN, SHORT, SMALL, built
from tests.models.regenerate_goldens import DIRECTORY

SMALL_OF_OURS = [name for name in SMALL if not name.startswith("applications")]
SHORT_OF_OURS = [name for name in SHORT if name in SMALL_OF_OURS]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_variables_have_the_names_of_the_golden_file(name: str) -> None:
    golden = (DIRECTORY / f"{name}.txt").read_text().splitlines()
    assert list(nameplate.variables(GOLDEN[name].build())) == golden


def test_every_golden_file_belongs_to_an_architecture() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.txt")} == set(GOLDEN)


@pytest.mark.parametrize("name", cases([*SMALL_OF_OURS, "applications"], short=SHORT))
def test_names_do_not_depend_on_what_was_built_before(name: str) -> None:
    first, second = built(name), SMALL[name].build()
    assert list(nameplate.layers(first)) == list(nameplate.layers(second))
    assert list(nameplate.variables(first)) == list(nameplate.variables(second))


@pytest.mark.parametrize("name", cases([*SMALL_OF_OURS, "applications"], short=SHORT))
def test_the_strict_policy_finds_nothing(name: str) -> None:
    assert nameplate.check(built(name), "strict") == []


@pytest.mark.parametrize("name", cases(SMALL_OF_OURS, short=SHORT_OF_OURS))
def test_no_layer_or_operation_of_ours_has_a_name_that_keras_made_up(name: str) -> None:
    made_up = [each.name for each in _of_ours(built(name)) if is_automatic(each.name, type(each).__name__)]
    assert made_up == []


@pytest.mark.parametrize("name", cases(SMALL, short=SHORT))
def test_inputs_and_outputs_have_the_names_of_the_data(name: str) -> None:
    case, model = SMALL[name], built(name)
    found = model(case.batch())
    assert set(case.outputs) <= set(nameplate.layers(model))
    if isinstance(found, dict):
        assert list(found) == list(case.outputs)
    if hasattr(model, "inputs"):
        assert [each.name for each in model.inputs] == list(case.inputs)
        assert model.output_names == list(case.outputs)


def _of_ours(container: Any) -> list[Any]:
    """Return every layer and operation, but not what a layer of Keras makes for itself."""
    if isinstance(container, keras.Model) and hasattr(container, "operations"):
        children = list(container.operations)
    elif type(container).__module__.startswith("models."):
        children = list(container._flatten_layers(recursive=False, include_self=False))
    else:
        children = []
    return children + [each for child in children for each in _of_ours(child)]
