"""Objectives are an algebra over layer names, as data and as text."""

from __future__ import annotations

import numpy as np
import pytest

from nameplate.interpret.objectives import (
    Objective,
    ObjectiveError,
    Picture,
    channel,
    class_logit,
    content,
    direction,
    layer,
    neuron,
    parse,
    style,
)

PICTURE = Picture(np.zeros((4, 4, 3), np.uint8), "cat.png")

TEXTS = {
    "layer": (layer("mixed3"), 'layer("mixed3")'),
    "sum": (0.7 * layer("mixed3") + 0.3 * channel("a/b", 12), '0.7 * layer("mixed3") + 0.3 * channel("a/b", 12)'),
    "difference": (layer("a") - class_logit(3), 'layer("a") - class_logit(3)'),
    "negation": (-neuron("a", 1, at=(2, 3)), '-neuron("a", 1, [2, 3])'),
    "division": (layer("a") / 4, '0.25 * layer("a")'),
    "list": (channel("a", [0, 1, 5]), 'channel("a", [0, 1, 5])'),
    "output": (class_logit(3, "label"), 'class_logit(3, "label")'),
    "direction": (direction("a", [3.0, 4.0]), 'direction("a", [0.6, 0.8])'),
    "references": (
        content("a", PICTURE) - 2 * style("b", PICTURE),
        'content("a", "cat.png") - 2 * style("b", "cat.png")',
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_an_objective_writes_itself_and_reads_what_it_wrote(kind: str) -> None:
    objective, text = TEXTS[kind]
    assert str(objective) == text
    assert str(parse(text, open_picture=lambda path: Picture(PICTURE.pixels, path))) == text


def test_a_bare_qualified_name_means_its_layer() -> None:
    assert str(parse("backbone/stem-conv.1")) == 'layer("backbone/stem-conv.1")'


def test_objectives_are_added_by_sum() -> None:
    assert str(sum([layer("a"), layer("b")], start=0)) == 'layer("a") + layer("b")'


def test_brackets_and_factors_go_over_every_term() -> None:
    assert str(parse('-2 * (layer("a") - layer("b"))')) == '-2 * layer("a") + 2 * layer("b")'


WRONG = {
    "a call": "__import__('os').system('true')",
    "an attribute": "layer('a').terms",
    "a number": "3 + 4",
    "a product": "layer('a') * layer('b')",
    "a power": "layer('a') ** 2",
    "half a term": "layer('a",
    "no number": "channel('a')",
    "a truth value": "True * layer('a')",
    "a comparison": "layer('a') > 0",
    "stars": "layer(**{'name': 'a'})",
    "division by nothing": "layer('a') / 0",
    "a negative channel": "channel('a', -1)",
    "a part of a channel": "channel('a', 1.5)",
    "no length": "direction('a', [0, 0])",
    "a reference": "style('a', 'cat.png')",
}


@pytest.mark.parametrize("kind", WRONG)
def test_text_that_is_no_objective_is_refused(kind: str) -> None:
    with pytest.raises(ObjectiveError):
        parse(WRONG[kind])


def test_an_unknown_term_is_refused_with_the_nearest() -> None:
    with pytest.raises(ObjectiveError, match="Did you mean 'channel'"):
        parse("chanel('a', 1)")


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ObjectiveError, match="each image of the batch takes one"):
        _ = (channel("a", [1, 2]) + class_logit([1, 2, 3])).images


@pytest.mark.parametrize("other", [layer("b"), "3", None, True])
def test_an_objective_is_scaled_by_numbers_only(other: object) -> None:
    with pytest.raises(TypeError):
        _ = layer("a") * other  # type: ignore[operator]


def test_an_objective_knows_its_layers_and_how_many_images_it_is_for() -> None:
    objective: Objective = layer("a") + channel("b", [1, 2]) - layer("a") + class_logit(1)
    assert objective.layers == ("a", "b")
    assert objective.images == 2
