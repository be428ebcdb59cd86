from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from keras import layers

import nameplate
from nameplate.formats import open_weights
from nameplate.graph.tree import output_names
from nameplate.io.onnx_file import ExportError
from tests.nameplate.naming_models import KINDS, example, subclassed

pytestmark = pytest.mark.tensorflow

SERVED = ("functional", "sequential", "nested", "shared", "keyed", "mixed", "wrapped", "preprocessing")


@pytest.mark.parametrize("kind", SERVED)
def test_a_served_model_takes_inputs_and_gives_outputs_by_name(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    nameplate.export(model, tmp_path / "served")
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]

    batch = example(model)
    expected = model(batch, training=False)
    given = batch if isinstance(batch, dict) else dict(zip(names_of(model), keras.tree.flatten(batch), strict=True))
    found = serve(**{name: tf.constant(value) for name, value in given.items()})
    if not isinstance(expected, dict):
        expected = dict(zip(output_names(model) or found, keras.tree.flatten(expected), strict=True))
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def names_of(model: Any) -> list[str]:
    return [tensor.name for tensor in model.inputs]


def test_inputs_go_by_their_names_and_not_by_the_alphabet(tmp_path: Path) -> None:
    z, a = keras.Input((2,), name="zoo"), keras.Input((2,), name="ant")
    model = keras.Model([z, a], layers.Subtract(name="gap")([z, a]), name="m")
    nameplate.export(model, tmp_path / "served")
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]

    found = serve(zoo=tf.constant([[5.0, 5.0]]), ant=tf.constant([[2.0, 3.0]]))
    assert found["gap"].numpy().tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize("kind", ["nested", "mixed", "functional"])
def test_an_exports_variables_have_their_qualified_names_and_go_back_into_a_model(kind: str, tmp_path: Path) -> None:
    model, other = KINDS[kind](), KINDS[kind]()
    nameplate.export(model, tmp_path / "served")
    nameplate.load_weights(other, tmp_path / "served")

    with open_weights(tmp_path / "served") as arrays:
        assert set(arrays) == set(nameplate.read(model))
    after = nameplate.read(other)
    assert all(np.array_equal(value, after[name]) for name, value in nameplate.read(model).items())


def test_nothing_is_written_over_and_what_has_no_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        nameplate.export(KINDS["functional"](), tmp_path / "there")
    with pytest.raises(ExportError, match="without named inputs"):
        nameplate.export(subclassed(), tmp_path / "served")
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("kind", ["functional", "sequential", "nested", "shared", "keyed"])
def test_an_onnx_file_takes_inputs_and_gives_outputs_by_name(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    nameplate.export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))

    batch = example(model)
    expected = model(batch, training=False)
    given = batch if isinstance(batch, dict) else dict(zip(names_of(model), keras.tree.flatten(batch), strict=True))
    assert sorted(port.name for port in session.get_inputs()) == sorted(given)
    names = sorted(expected) if isinstance(expected, dict) else output_names(model)
    found = session.run(names, {name: np.asarray(value) for name, value in given.items()})
    for one, other in zip(found, keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_statistics_of_a_normalization_are_in_the_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(5, 3, (20, 3)).astype("float32")
    scale = layers.Normalization(name="scale")
    scale.adapt(x)
    model = keras.Sequential([keras.Input((3,), name="x"), scale, layers.Dense(2, name="y")], name="net")
    expected = np.asarray(model(x))
    nameplate.export(model, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert [port.name for port in session.get_inputs()] == ["x"]
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], expected, rtol=1e-4, atol=1e-5)
    nameplate.export(model, tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    np.testing.assert_allclose(served(x=tf.constant(x))["y"], expected, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(model(x)), expected)


def test_classes_of_an_output_that_is_not_there_are_refused(tmp_path: Path) -> None:
    model = KINDS["functional"]()
    with pytest.raises(ExportError, match="classes: no output 'lable'"):
        nameplate.export(model, tmp_path / "served", classes={"lable": ["a", "b"]})
    assert not list(tmp_path.iterdir())


class Fourier(layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64)))


def test_what_onnx_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, Fourier(name="fourier")(x), name="m")
    with pytest.raises(ExportError, match=r"'m' cannot be written as ONNX|'m' as ONNX computes another"):
        nameplate.export(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"format='tflite': savedmodel or onnx; nameplate.save writes"):
        nameplate.export(model, tmp_path / "model", format="tflite")
    assert list(tmp_path.iterdir()) == []
