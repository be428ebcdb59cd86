"""`nameplate.fit` in the place of `model.fit`: its arguments mean the same, and its callbacks hear the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.errors import NameplateError
from nameplate.training.callbacks import TEST_HOOKS, TRAIN_HOOKS, use_hooks
from tests.long import cases

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(20, 4)).astype("float32")
Y = NUMBERS.normal(size=(20, 2)).astype("float32")
WEIGHT = NUMBERS.random(20).astype("float32")


def compiled(strategy: Any, **options: Any) -> keras.Model:
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")], name="small")
        model.compile("sgd", "mse", **options)
    return model


def kernel(model: keras.Model) -> np.ndarray:
    return model.get_layer("head").kernel.numpy()


def test_x_y_and_sample_weight_apart_are_what_they_are_in_one(strategy: Any) -> None:
    found = []
    for given in (
        {"data": (X, Y, WEIGHT)},
        {"x": X, "y": Y, "sample_weight": WEIGHT},
        {"data": X, "y": Y, "sample_weight": WEIGHT},
    ):
        model = compiled(strategy)
        nameplate.fit(model, **given, batch_size=4, epochs=2)
        found.append(kernel(model))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_several_inputs_come_as_a_list(strategy: Any) -> None:
    with strategy.scope():
        inputs = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
        both = keras.layers.Concatenate(name="both")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2, name="head")(both), name="pair")
        model.compile("sgd", "mse")
    assert nameplate.fit(model, [X, X], Y, batch_size=4).history["loss"]


def test_a_split_holds_out_the_end(strategy: Any) -> None:
    model, same = compiled(strategy), compiled(strategy)
    split = nameplate.fit(model, X, Y, batch_size=4, validation_split=0.4).history
    apart = nameplate.fit(same, X[:12], Y[:12], batch_size=4, validation_data=(X[12:], Y[12:])).history
    assert split == apart


def test_an_initial_epoch_counts_on_and_takes_the_orders_of_the_epochs_that_are_left(strategy: Any) -> None:
    whole, halves = compiled(strategy), compiled(strategy)
    nameplate.fit(whole, X, Y, batch_size=4, epochs=4)
    nameplate.fit(halves, X, Y, batch_size=4, epochs=2)
    history = nameplate.fit(halves, X, Y, batch_size=4, initial_epoch=2, epochs=4)
    np.testing.assert_array_equal(kernel(whole), kernel(halves))
    assert history.epoch == [2, 3]


def rows(sizes: tuple[int, ...] = (4, 4, 4, 4, 2)) -> Iterator[Any]:
    """Yield batches whose inputs say which batch they are."""
    for index, size in enumerate(sizes):
        yield np.eye(5, dtype="float32")[[index] * size], np.zeros((size, 1), "float32")


class Rows(keras.utils.PyDataset):
    """The batches of `rows`, by index."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return list(rows())[index]


ARRAYS = tuple(np.concatenate(parts) for parts in zip(*rows(), strict=True))
SPEC = tf.TensorSpec((None, 5)), tf.TensorSpec((None, 1))
FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "arrays": lambda: {"x": ARRAYS[0], "y": ARRAYS[1], "batch_size": 4, "shuffle": False},
    "arrays without a batch size": lambda: {"x": ARRAYS[0], "y": ARRAYS[1], "shuffle": False},
    "a dataset": lambda: {"x": tf.data.Dataset.from_tensor_slices(ARRAYS).batch(4)},
    "a dataset of unknown length": lambda: {"x": tf.data.Dataset.from_generator(rows, output_signature=SPEC)},
    "a dataset that repeats": lambda: {"x": tf.data.Dataset.from_generator(rows, output_signature=SPEC).repeat(2)},
    "a dataset without end": lambda: {"x": tf.data.Dataset.from_tensor_slices(ARRAYS).batch(3).repeat()},
    "a generator": lambda: {"x": rows(), "shuffle": False},
    "a PyDataset": lambda: {"x": Rows(), "shuffle": False},
}


class Visits(keras.callbacks.Callback):
    """Notes which batches each epoch trains on, from a kernel that each batch changes in a row of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.before = kernel(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        after = kernel(self.model)
        self.epochs.append([epoch, *np.round(self.before - after, 3)[:, 0].tolist()])
        self.before = after


def visited(model: keras.Model, fit: Callable[..., Any], **given: Any) -> tuple[Any, int, bool]:
    visits = Visits()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        history = fit(model, verbose=0, callbacks=[visits], **given)
    ran_out = any("Your input ran out of data" in str(warning.message) for warning in said)
    return visits.epochs, history.params["steps"], ran_out


def counting(per_call: int) -> keras.Model:
    head = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="head")
    model = keras.Sequential([keras.Input((5,)), head], name="counting")
    model.compile(keras.optimizers.SGD(1.0), lambda y, p: keras.ops.sum(p, -1), steps_per_execution=per_call)
    return model


@pytest.mark.parametrize("case", cases([(2, 1, 0), (3, 2, 0), (7, 1, 0), (3, 2, 1), (5, 2, 0)], short=[(3, 2, 1)]))
@pytest.mark.parametrize("form", FORMS)
def test_steps_per_epoch_are_counted_as_keras_counts_them(strategy: Any, form: str, case: tuple[int, int, int]) -> None:
    steps, per_call, first = case
    given = {"steps_per_epoch": steps, "epochs": 5, "initial_epoch": first}
    expected = visited(counting(per_call), keras.Model.fit, **FORMS[form](), **given)
    with strategy.scope():
        model = counting(per_call)
    assert visited(model, nameplate.fit, **FORMS[form](), **given) == expected


@pytest.mark.filterwarnings("ignore:.*Your input ran out of data")
def test_a_shuffled_pass_is_shared_by_epochs_in_both_loops(strategy: Any) -> None:
    whole, parts, eager = compiled(strategy), compiled(strategy), compiled(strategy, run_eagerly=True)
    nameplate.fit(whole, X, Y, batch_size=4, epochs=2)
    for model in (parts, eager):
        nameplate.fit(model, X, Y, batch_size=4, epochs=6, steps_per_epoch=2)
        np.testing.assert_allclose(kernel(model), kernel(whole), rtol=1e-5)


def test_validation_can_be_cut_short_and_have_a_batch_of_its_own(strategy: Any) -> None:
    model = compiled(strategy)
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat()
    cut = nameplate.fit(model, X, Y, batch_size=4, validation_data=endless, validation_steps=2).history["val_loss"]
    assert cut == [pytest.approx(model.evaluate(X[:8], Y[:8], verbose=0), rel=1e-5)]
    arrays: dict[str, Any] = {"validation_data": (X, Y), "validation_steps": 2, "validation_batch_size": 6}
    assert nameplate.fit(model, X, Y, batch_size=4, **arrays).history["val_loss"][0] == pytest.approx(
        model.evaluate(X[:12], Y[:12], verbose=0), rel=1e-5
    )


def test_a_callback_hears_of_every_batch_of_a_validation(strategy: Any) -> None:
    told: list[Any] = []

    class Hears(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            told.append(batch)

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            told.append(sorted(logs))

        def on_train_end(self, logs: Any = None) -> None:
            told.append(sorted(logs))

    nameplate.fit(compiled(strategy), X, Y, batch_size=8, validation_data=(X, Y), callbacks=[Hears()])
    assert told == [0, ["loss"], 1, ["loss"], 2, ["loss"], ["loss", "val_loss"]]


def test_callbacks_that_act_at_epochs_do_not_make_python_run_at_every_step(strategy: Any, tmp_path: Path) -> None:
    its = keras.callbacks
    saves = its.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    at_epochs = [saves, its.TensorBoard(str(tmp_path)), its.BackupAndRestore(tmp_path / "backup")]
    at_batches = [
        its.ModelCheckpoint(str(tmp_path / "b.keras"), save_freq=2),
        its.TensorBoard(update_freq=1),
        its.TerminateOnNaN(),
    ]
    assert not use_hooks(its.CallbackList(at_epochs), TRAIN_HOOKS + TEST_HOOKS)
    assert all(use_hooks(its.CallbackList([each]), TRAIN_HOOKS) for each in at_batches)
    nameplate.fit(compiled(strategy), X, Y, batch_size=4, epochs=2, callbacks=[saves])
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["1.keras", "2.keras"]


def batched() -> tf.data.Dataset:  # not before the devices are laid out
    return tf.data.Dataset.from_tensors((X, Y))


@pytest.mark.parametrize("data", [lambda: (X, Y), lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)])
def test_a_batch_that_does_not_divide_is_dealt_out_in_shares_that_differ_by_one(strategy: Any, data: Any) -> None:
    alone = compiled(tf.distribute.get_strategy())
    expected = alone.fit(X, Y, batch_size=7, shuffle=False, epochs=2, verbose=0).history["loss"]
    model = compiled(strategy)
    found = nameplate.fit(model, data(), batch_size=7, shuffle=False, epochs=2).history["loss"]
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(kernel(model), kernel(alone), rtol=1e-5)


@pytest.mark.parametrize("when", [2, [1, 3]])
def test_epochs_are_validated_when_keras_validates_them(strategy: Any, when: Any) -> None:
    arguments: dict[str, Any] = {"validation_data": (X, Y), "validation_freq": when, "epochs": 5, "verbose": 0}
    expected = compiled(tf.distribute.get_strategy()).fit(X, Y, shuffle=False, **arguments).history
    found = nameplate.fit(compiled(strategy), X, Y, shuffle=False, **arguments).history
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "give the data as second argument or as x="),
    ({"data": X, "x": X, "y": Y}, "one of the two"),
    ({"data": batched, "y": Y}, "y beside a .*Dataset, which holds its targets"),
    ({"x": X, "sample_weight": WEIGHT}, "sample_weight without y"),
    ({"data": batched, "validation_split": 0.5}, "validation_split=0.5: a .*Dataset cannot be split"),
    ({"x": X, "y": Y, "validation_split": 1.5}, "validation_split=1.5: a share of the examples, between 0 and 1"),
    ({"x": X, "y": Y, "validation_freq": 0.5}, r"validation_freq=0.5: a whole number"),
    ({"x": X, "y": Y, "verbose": 3, "initial_epoch": -1}, "initial_epoch=-1: at least 0\nverbose=3: 0, 1, 2 or 'auto'"),
    ({"x": X, "y": Y, "validation_data": lambda: batched().repeat()}, "infinite.*validation_steps"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[says[:30] for _, says in MISTAKES])
def test_what_cannot_be_meant_is_answered_before_the_first_step(
    strategy: Any, arguments: dict[str, Any], says: str
) -> None:
    made = {key: each() if callable(each) else each for key, each in arguments.items()}
    with pytest.raises(NameplateError, match=says):
        nameplate.fit(compiled(strategy), **made)


def test_a_model_may_give_several_rows_an_example(strategy: Any) -> None:
    with strategy.scope():
        inputs = keras.Input((4,))
        halves = keras.layers.Lambda(lambda x: keras.ops.reshape(x, (-1, 2)), output_shape=(2,))(inputs)
        model = keras.Model(inputs, halves, name="halves")
    for size in (1, 3, 13):
        np.testing.assert_array_equal(nameplate.predict(model, X[:size], batch_size=4), X[:size].reshape(-1, 2))


def test_a_mask_reaches_the_metrics_of_a_compiled_step(strategy: Any) -> None:
    x = np.where(np.arange(3)[None, :, None] < 2, NUMBERS.normal(size=(8, 3, 2)), 0.0).astype("float32")
    measured = []
    for xla in (False, True):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            stack = [keras.layers.Masking(name="mask"), keras.layers.Dense(1, name="head")]
            model = keras.Sequential([keras.Input((3, 2)), *stack], name="masked")
            model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"), metrics=["mae"])
        measured.append(nameplate.fit(model, x, np.ones((8, 3, 1)), batch_size=8, xla=xla).history["mae"])
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


def test_weights_of_classes_and_of_examples_may_be_of_two_dtypes(strategy: Any) -> None:
    labels = np.arange(20) % 2
    models = [compiled(strategy) for _ in range(2)]
    for model, weight in zip(models, (np.full(20, 0.5), np.full(20, 0.5, "float32")), strict=True):
        with strategy.scope():
            model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        nameplate.fit(model, X, labels, sample_weight=weight, class_weight={0: 1.0, 1: 3.0}, batch_size=4)
    np.testing.assert_array_equal(kernel(models[0]), kernel(models[1]))


def test_what_replicas_cannot_exchange_is_told_with_a_way_out(strategy: Any) -> None:
    class Hidden(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.norm.build(shape)

        def call(self, x: Any, training: bool = False) -> Any:
            return tf.function(lambda x: self.norm(x, training=training), autograph=False)(x)

    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), Hidden(name="hidden"), keras.layers.Dense(2)], name="hiding")
        model.compile("sgd", "mse")
    with pytest.raises(NameplateError, match=r"inside a tf\.function.*sync_batch_norm=False"):
        nameplate.fit(model, X, Y, batch_size=4)


def test_inputs_of_another_shape_are_told_in_keras_words_without_its_list_of_arguments(strategy: Any) -> None:
    with pytest.raises(NameplateError, match="expected axis -1 of input shape to have value 4"):
        nameplate.fit(compiled(strategy), X[:, :3], Y, batch_size=4)


def test_a_layer_mixed_with_keras_trainer_trains_as_a_model_does(strategy: Any) -> None:
    trainer: Any = next(base for base in keras.Model.__mro__ if base.__name__ == "TensorFlowTrainer")

    class Trained(trainer, keras.layers.Dense):  # type: ignore[misc]
        def __init__(self) -> None:
            keras.layers.Dense.__init__(self, 2, name="trained")
            trainer.__init__(self)

    with strategy.scope():
        model = Trained()
        model.compile("sgd", "mse")
    history = nameplate.fit(model, X, Y, batch_size=4).history
    assert list(history) == ["loss"]
    assert nameplate.predict(model, X).shape == (20, 2)
