"""Which edge an edit means, and containers that take several tensors, masks or dictionaries."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.functional import SurgeryError
from nameplate.surgery.changes import Insert
from tests.nameplate.surgery import graphs


def recurrent(*taken: int) -> keras.Model:
    """Return a model in which `mix` adds some of the three tensors that `lstm` gives, the last two alike in shape."""
    steps = keras.Input((4, 3), name="steps")
    given = layers.LSTM(5, return_state=True, name="lstm")(steps)
    return keras.Model(steps, layers.Concatenate(name="mix")([given[place] for place in taken]), name="net")


@pytest.mark.parametrize("output", [1, 2])
def test_c6_output_counts_among_what_after_gives(output: int) -> None:
    model = recurrent(1, 2)
    doubled = nameplate.insert(model, layers.Rescaling(2.0, name="double"), after="lstm", before="mix", output=output)
    (before,), (after,) = graphs.outputs(model), graphs.outputs(doubled)
    factors = np.ones(10)
    factors[5 * (output - 1) : 5 * output] = 2.0

    assert np.allclose(after, before * factors, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"after": "lstm", "before": "mix", "output": 0}, "'mix' takes output=1, 2 of 'lstm', not output=0"),
        ({"after": "lstm", "before": "mix", "output": -1}, "'mix' takes output=1, 2 of 'lstm', not output=-1"),
        ({"before": "mix", "output": 1}, "give after=NAME too"),
        ({"after": "steps", "output": 1}, "'steps' has one output; there is no output=1"),
        ({"after": "lstm", "before": "mix"}, "say which edge with after=NAME and output="),
    ],
)
def test_c6_an_output_that_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SurgeryError) as refused:
        nameplate.insert(recurrent(1, 2), layers.ReLU(name="act"), **options)
    assert message in str(refused.value)


def test_c6_an_edge_is_named_as_it_was_before_another_edit_of_the_pass() -> None:
    model = recurrent(1, 2)
    edited = nameplate.edit(
        model,
        [
            Insert(layers.Rescaling(2.0, name="double"), after="lstm", output=1),
            Insert(layers.Rescaling(3.0, name="triple"), after="lstm", before="mix", output=1),
        ],
    )
    (before,), (after,) = graphs.outputs(model), graphs.outputs(edited)

    assert np.allclose(after[:, :5], 6 * before[:, :5], atol=1e-5)
    assert np.allclose(after[:, 5:], before[:, 5:], atol=1e-6)


def pair(keyed: bool) -> keras.Model:
    """Return a model with a container of two inputs inside, called with a list or a dictionary."""
    tensors = {key: keras.Input((6,), name=key) for key in ("p", "q")}
    made = layers.Subtract(name="minus")(list(tensors.values()))
    inner = keras.Model(tensors if keyed else list(tensors.values()), made, name="inner")
    outer = [keras.Input((6,), name=key) for key in ("one", "two")]
    given = inner({"p": outer[0], "q": outer[1]} if keyed else outer)
    return keras.Model(outer, layers.Dense(2, name="out")(given), name="net")


@pytest.mark.parametrize("keyed", [False, True])
def test_d1_a_container_of_several_inputs_is_flattened(keyed: bool) -> None:
    model = pair(keyed)
    flat = nameplate.flatten(model)

    assert list(nameplate.layers(flat)) == ["one", "two", "inner.minus", "out"]
    assert graphs.equal(model, flat)


def test_d1_what_join_gives_is_flattened_inside_another() -> None:
    x = keras.Input((6,), name="x")
    tower = keras.Model(x, layers.Dense(3, name="body")(x), name="tower")
    joined = nameplate.join({"left": tower, "right": tower})
    inputs = {key: keras.Input((6,), name=key) for key in joined.input}
    answers = joined(inputs)
    model = keras.Model(inputs, layers.Add(name="sum")([answers["left"], answers["right"]]), name="net")
    flat = nameplate.flatten(model)

    assert "joined.right.body" in nameplate.layers(flat)
    assert graphs.equal(model, flat)


def masked(*, explicit: bool = False) -> keras.Model:
    """Return a model whose container lies below an embedding that masks."""
    steps = keras.Input((None, 4), name="steps")
    hidden = layers.Dense(4, name="each")(steps)
    encoder = keras.Model(steps, layers.LSTM(3, name="lstm")(hidden), name="encoder")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embedded = layers.Embedding(9, 4, mask_zero=True, name="embed")(tokens)
    options = {"mask": keras.ops.not_equal(tokens, 1)} if explicit else {}
    return keras.Model(tokens, layers.Dense(2, name="out")(encoder(embedded, **options)), name="net")


@pytest.mark.filterwarnings("ignore:Layer .encoder.")  # Keras says it of every container
def test_d1_a_container_below_a_mask_is_flattened_and_the_mask_goes_on() -> None:
    model = masked()
    flat = nameplate.flatten(model)
    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [1, 2, 3, 4]])

    assert np.allclose(flat(tokens), model(tokens), atol=1e-6)
    unmasked = np.array([[1, 2, 5, 5], [3, 5, 5, 5], [1, 2, 3, 4]])  # what follows counts where nothing masks it
    assert not np.allclose(np.asarray(flat(unmasked))[:2], np.asarray(flat(tokens))[:2], atol=1e-4)


@pytest.mark.filterwarnings("ignore:Layer .encoder.")  # Keras says it of every container
def test_d1_a_mask_of_the_callers_own_is_refused() -> None:
    with pytest.raises(
        SurgeryError, match=r"'encoder' is called with \['mask'\], which cannot be passed to its layers"
    ):
        nameplate.flatten(masked(explicit=True))


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("name", ["pp", "z"])
def test_d4_an_input_of_a_container_with_several_is_replaced(keyed: bool, name: str) -> None:
    model = pair(keyed)
    edited = nameplate.replace(model, {"inner/p": keras.Input((6,), name=name)})

    assert f"inner/{name}" in nameplate.layers(edited)
    assert graphs.equal(model, edited)
    with pytest.raises(NameplateError, match=r"inner/minus: Subtract takes"):
        nameplate.replace(model, {"inner/p": keras.Input((7,), name=name)})
