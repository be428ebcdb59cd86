"""Data in every form that Keras takes: what a model's steps get, and the weights that come of it, are one device's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.errors import NameplateError
from tests.long import cases

NUMBERS = np.random.default_rng(3)
X = NUMBERS.normal(size=(20, 4)).astype("float32")
Y = NUMBERS.normal(size=(20, 2)).astype("float32")
WEIGHT = NUMBERS.random(20).astype("float32")
SAME: Any = {"rtol": 1e-5, "atol": 1e-6}  # of float32: two replicas add up in another order than one device

Build = Callable[[], keras.Model]


def trained(model: keras.Model, *, by: Callable[..., Any], **arguments: Any) -> list[np.ndarray]:
    """Return the weights and the losses after two epochs in order."""
    history = by(model, shuffle=False, epochs=2, verbose=0, **arguments).history
    return [*(variable.numpy() for variable in model.trainable_variables), np.array(history["loss"])]


def both(strategy: Any, build: Build, arguments: dict[str, Any], alone: dict[str, Any] | None = None) -> None:
    """Train on two replicas and with `model.fit` on one device: the weights and losses are the same."""
    made = {key: value() if callable(value) else value for key, value in arguments.items()}
    with strategy.scope():
        keras.utils.set_random_seed(1)
        ours = build()
    keras.utils.set_random_seed(1)
    stock = build()
    found = trained(ours, by=nameplate.fit, **made)
    expected = trained(stock, by=keras.Model.fit, **(made if alone is None else alone))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **SAME)


class Penalised(keras.layers.Layer):
    """Adds the mean square of what passes to the loss."""

    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        return x


def only_penalties() -> keras.Model:
    layers = [keras.layers.Dense(3, name="code"), Penalised(name="penalty")]
    model = keras.Sequential([keras.Input((4,)), *layers], name="penalised")
    model.compile("sgd")
    return model


def two_heads(**options: Any) -> keras.Model:
    x = keras.Input((4,), name="x")
    heads = [keras.layers.Dense(2, name=name)(x) for name in ("first", "second")]
    model = keras.Model(x, heads, name="heads")
    model.compile("sgd", **options)
    return model


class OwnLoss(keras.Model):
    """An autoencoder whose loss is of its own, with no targets."""

    def __init__(self) -> None:
        super().__init__(name="own_loss")
        self.code = keras.layers.Dense(4, name="code")

    def call(self, x: Any) -> Any:
        return self.code(x)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        assert y is None
        return keras.ops.mean(keras.ops.square(y_pred - x))


def own_loss() -> keras.Model:
    model = OwnLoss()
    model.compile("sgd")
    return model


def of(data: Any, batch: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(data).batch(batch)


WITHOUT_TARGETS: dict[str, tuple[Build, dict[str, Any]]] = {
    "an array": (only_penalties, {"x": X, "batch_size": 8}),
    "an array, a model with a loss of its own": (own_loss, {"x": X, "batch_size": 8}),
    "a dataset of bare tensors": (only_penalties, {"x": lambda: of(X)}),
    "a dataset of (x,)": (only_penalties, {"x": lambda: of((X,))}),
    "a dataset with targets that nothing looks at": (only_penalties, {"x": lambda: of((X, Y))}),
    "a split": (only_penalties, {"x": X, "batch_size": 8, "validation_split": 0.2}),
    "validation": (own_loss, {"x": X, "batch_size": 8, "validation_data": lambda: of(X)}),
}


@pytest.mark.parametrize(
    "case", cases(WITHOUT_TARGETS, short=["an array", "a dataset of (x,)", "a split", "validation"])
)
def test_b4_a_model_trains_without_targets(strategy: Any, case: str) -> None:
    both(strategy, *WITHOUT_TARGETS[case])


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the output that has no loss
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_b4_an_output_without_a_target_has_no_loss(strategy: Any, weight: Any) -> None:
    arguments = {"x": X, "y": [Y, None], "sample_weight": weight, "batch_size": 8}
    both(strategy, lambda: two_heads(loss=["mse", None]), arguments)


class Recording(keras.Model):
    """Keeps what its own steps are given."""

    def __init__(self) -> None:
        super().__init__(name="recording")
        self.head = keras.layers.Dense(2, name="head")
        self.given: dict[str, Any] = {}

    def call(self, x: Any) -> Any:
        return self.head(x[0] if isinstance(x, tuple | list) else x["x"] if isinstance(x, dict) else x)

    def train_step(self, data: Any) -> Any:
        self.given["train"] = shapes(data)
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        self.given["test"] = shapes(data)
        return super().test_step(data)

    def predict_step(self, data: Any) -> Any:
        self.given["predict"] = shapes(data)
        return super().predict_step(data)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        return keras.ops.mean(y_pred)


def shapes(data: Any) -> Any:
    """Return the structure of a batch, each leaf as its number of axes."""
    return keras.tree.map_structure(lambda leaf: len(leaf.shape), data, none_is_leaf=False)


GIVEN: dict[str, Callable[[], Any]] = {
    "x": lambda: {"x": X},
    "x and y": lambda: {"x": X, "y": Y},
    "x, y and weight": lambda: {"x": X, "y": Y, "sample_weight": WEIGHT},
    "several inputs": lambda: {"x": [X, X]},
    "several inputs and y": lambda: {"x": [X, X], "y": Y},
    "named inputs": lambda: {"x": {"x": X}},
    "a weight for several targets": lambda: {"x": X, "y": [Y, Y], "sample_weight": WEIGHT},
    "elements x": lambda: {"x": of(X)},
    "elements (x,)": lambda: {"x": of((X,))},
    "elements (x, y)": lambda: {"x": of((X, Y))},
    "elements ((x, x),)": lambda: {"x": of(((X, X),))},
    "elements {x}": lambda: {"x": of({"x": X})},
}

SHORT_GIVEN = ["x and y", "several inputs", "named inputs", "a weight for several targets", "elements (x,)"]
SHORT_GIVEN += ["elements {x}"]


@pytest.mark.parametrize("case", cases(GIVEN, short=SHORT_GIVEN))
def test_a7_a_models_own_steps_get_what_keras_gives_them(strategy: Any, case: str) -> None:
    models = []
    for scope in (strategy.scope(), keras.name_scope("alone")):
        with scope:
            model = Recording()
            model.compile("sgd")
        models.append(model)
    ours, stock = models
    nameplate.fit(ours, **GIVEN[case]())
    nameplate.evaluate(ours, **GIVEN[case]())
    nameplate.predict(ours, x=GIVEN[case]()["x"])
    stock.fit(**GIVEN[case](), verbose=0, shuffle=False)
    stock.evaluate(**GIVEN[case](), verbose=0)
    stock.predict(GIVEN[case]()["x"], verbose=0)
    assert ours.given == stock.given


class Pair(keras.Model):
    """Takes a tensor or a pair of them."""

    def __init__(self) -> None:
        super().__init__(name="pair")
        self.head = keras.layers.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(x[0] - x[1] if isinstance(x, tuple | list) else x)


def test_a19_a_pair_to_predict_on_is_the_inputs(strategy: Any) -> None:
    with strategy.scope():
        model = Pair()
    for inputs in (X, (X, X[::-1])):
        found = nameplate.predict(model, inputs, batch_size=8)
        np.testing.assert_allclose(found, model.predict(inputs, verbose=0), **SAME)


def two_inputs() -> keras.Model:
    inputs = [keras.Input((4,), name=name) for name in ("left", "right")]
    both = keras.layers.Concatenate(name="both")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(both), name="two")
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def test_a8_several_inputs_are_predicted_and_evaluated_on_as_a_list(strategy: Any) -> None:
    with strategy.scope():
        model = two_inputs()
    inputs, expected = [X, X[::-1]], model.predict([X, X[::-1]], verbose=0)
    for given in (inputs, tuple(inputs), (inputs, Y), (inputs,), {"left": X, "right": X[::-1]}):
        np.testing.assert_allclose(nameplate.predict(model, given), expected, **SAME)
    measured = model.evaluate(inputs, Y, verbose=0, return_dict=True, sample_weight=WEIGHT)
    assert nameplate.evaluate(model, inputs, Y, WEIGHT) == pytest.approx(measured, rel=1e-5)
    assert nameplate.evaluate(model, (inputs, Y, WEIGHT)) == pytest.approx(measured, rel=1e-5)
    assert nameplate.evaluate(model, x=inputs, y=Y, sample_weight=WEIGHT) == pytest.approx(measured, rel=1e-5)


class Heard(keras.callbacks.Callback):
    """Notes the hooks of an evaluation and a prediction, and stops after the second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def on_test_begin(self, logs: Any = None) -> None:
        self.heard.append("test")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append((batch, sorted(logs)))
        self.model.stop_evaluating = batch == 1

    def on_test_end(self, logs: Any = None) -> None:
        self.heard.append(sorted(logs))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append((batch, logs["outputs"].shape[0]))
        self.model.stop_predicting = batch == 1

    def on_predict_end(self, logs: Any = None) -> None:
        self.heard.append("predicted")


def test_a8_steps_callbacks_and_return_dict_are_keras(strategy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with strategy.scope():
        model = two_inputs()
    inputs, ours, stock = [X, X], Heard(), Heard()
    expected = model.evaluate(inputs, Y, batch_size=4, callbacks=[stock], verbose=0)
    found = nameplate.evaluate(model, inputs, Y, batch_size=4, callbacks=ours, return_dict=False)
    assert found == pytest.approx(expected, rel=1e-5)
    expected = model.predict(inputs, batch_size=4, callbacks=[stock], verbose=0)
    np.testing.assert_allclose(nameplate.predict(model, inputs, batch_size=4, callbacks=[ours]), expected, **SAME)
    assert ours.heard == stock.heard
    capsys.readouterr()
    cuts: list[dict[str, Any]] = [{"steps": 2, "batch_size": 4}, {"steps": 2}, {"steps": 5, "verbose": 1}]
    for arguments in cuts:
        expected = model.evaluate(inputs, Y, return_dict=True, **{**arguments, "verbose": 0})
        assert nameplate.evaluate(model, inputs, Y, **arguments) == pytest.approx(expected, rel=1e-5)
        assert len(nameplate.predict(model, inputs, **arguments)) == len(
            model.predict(inputs, **{**arguments, "verbose": 0})
        )
    assert capsys.readouterr().out.startswith("loss ")


def test_a8_steps_end_a_dataset_without_end(strategy: Any) -> None:
    with strategy.scope():
        model = two_inputs()
    endless = of(((X, X), Y)).repeat()
    expected = model.evaluate([X[:16], X[:16]], Y[:16], verbose=0, return_dict=True)
    assert nameplate.evaluate(model, endless, steps=2) == pytest.approx(expected, rel=1e-5)
    assert nameplate.predict(model, endless, steps=2).shape == (16, 2)


def regression() -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")], name="small")
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("steps", cases([2, 4, 5, 20], short=[2, 5]))
def test_a9_steps_without_a_batch_size_make_the_batches_of_keras(strategy: Any, steps: int) -> None:
    both(strategy, regression, {"x": X, "y": Y, "steps_per_epoch": steps})


def generated(batches: list[tuple[int, int]]) -> tf.data.Dataset:
    """Return batches of rows from-to as a dataset whose length is not known."""
    signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None, 2), tf.float32))
    return tf.data.Dataset.from_generator(
        lambda: ((X[start:end], Y[start:end]) for start, end in batches), output_signature=signature
    )


def test_a14_a_dataset_of_unknown_length_that_is_an_epoch_ends_with_its_smaller_batch(strategy: Any) -> None:
    uneven = [(0, 8), (8, 16), (16, 20)]
    both(
        strategy,
        regression,
        {"x": lambda: generated(uneven)},
        {"x": X, "y": Y, "batch_size": 8},
    )


def test_b2_arrays_of_double_precision_become_floatx(strategy: Any) -> None:
    seen = []

    @keras.saving.register_keras_serializable(package="data_forms")
    def loss(y: Any, predicted: Any) -> Any:
        seen.append((y.dtype.name, predicted.dtype.name))
        return keras.ops.mean(keras.ops.square(y - predicted), axis=-1)

    def build() -> keras.Model:
        model = regression()
        model.compile("sgd", loss)
        return model

    double = {"x": X.astype("float64"), "y": Y.astype("float64"), "sample_weight": WEIGHT.astype("float64")}
    both(strategy, build, {**double, "batch_size": 8, "validation_data": (double["x"], double["y"])})
    assert set(seen) == {("float32", "float32")}


def sequences() -> keras.Model:
    layers = [keras.layers.Conv1D(3, 3, name="stem"), keras.layers.GlobalAveragePooling1D(name="pool")]
    model = keras.Sequential([keras.Input((None, 4)), *layers, keras.layers.Dense(2, name="head")], name="sequences")
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def padded(lengths: list[int]) -> tf.data.Dataset:
    signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((2,), tf.float32))
    each = tf.data.Dataset.from_generator(
        lambda: ((X[:length], Y[length]) for length in lengths), output_signature=signature
    )
    return each.padded_batch(4)


SHORT, LONG = np.stack([X[:7]] * 8), np.stack([X[:11]] * 6)
OTHER_SIZES: dict[str, dict[str, Any]] = {
    "longer sequences": {"x": SHORT, "y": Y[:8], "batch_size": 4, "validation_data": (LONG, Y[:6])},
    "padded batches beside arrays": {
        "x": SHORT,
        "y": Y[:8],
        "batch_size": 4,
        "validation_data": lambda: padded([5, 7, 9, 4, 8, 6]),
    },
    "arrays beside padded batches": {
        "x": lambda: padded([5, 7, 9, 4, 8, 6]),
        "validation_data": (LONG, Y[:6]),
        "validation_batch_size": 4,
    },
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of data whose length is not known
@pytest.mark.parametrize("case", OTHER_SIZES)
def test_b3_data_to_validate_on_may_have_another_length(strategy: Any, case: str) -> None:
    measured = []
    for by, scope in ((nameplate.fit, strategy.scope()), (keras.Model.fit, keras.name_scope("alone"))):
        with scope:
            keras.utils.set_random_seed(1)
            model = sequences()
        arguments = {key: value() if callable(value) else value for key, value in OTHER_SIZES[case].items()}
        history = by(model, **arguments, shuffle=False, verbose=0, epochs=2).history
        measured.append([history["loss"], history["val_loss"], history["val_mae"]])
    np.testing.assert_allclose(measured[0], measured[1], **SAME)


MISTAKES: dict[str, tuple[Callable[[keras.Model], Any], str]] = {
    "weights alone": (lambda model: nameplate.fit(model, (X, None, WEIGHT)), "weights without targets"),
    "four parts": (lambda model: nameplate.fit(model, of((X, Y, WEIGHT, X))), "examples of 4 parts"),
    "numbers": (lambda model: nameplate.fit(model, X.tolist(), Y.tolist()), "give x, .*arrays"),
    "objects": (lambda model: nameplate.fit(model, np.array([{}] * 20), Y), "not an array of numbers or text"),
    "counts": (lambda model: nameplate.evaluate(model, X, Y, steps=0, verbose=7), "steps=0: at least 1\nverbose=7"),
    "too narrow": (lambda model: nameplate.predict(model, X[:, :3]), "does not fit 'small': .*axis -1.* value 4"),
    "narrower than before": (
        lambda model: [nameplate.fit(model, X[:, :width], Y, batch_size=4) for width in (4, 3)],
        "does not fit 'small': .*axis -1.* value 4",
    ),
    "no targets for a loss": (lambda model: nameplate.fit(model, x=X), "'small' is compiled with a loss.*no targets"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_b4_data_that_cannot_be_meant_says_why(strategy: Any, mistake: str) -> None:
    with strategy.scope():
        model = regression()
    act, says = MISTAKES[mistake]
    with pytest.raises(NameplateError, match=says):
        act(model)
