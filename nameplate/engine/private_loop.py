"""What the room uses of Keras' own loops, beside `private`, with which it is one table: keras 3.15.1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from nameplate.engine.private import shadowed

_LOOPS = trainer.TensorFlowTrainer
# Attributes of models and layers that calls and loops change, and that no trace reads (layers/layer.py, trainer.py).
CHANGED_BY_CALLS = ("_called", "_initial_epoch", "stop_training", "stop_evaluating", "stop_predicting", "history")
_FIT, _EVALUATE, _PREDICT = _LOOPS.fit, _LOOPS.evaluate, _LOOPS.predict


def fit(model: keras.Model, **arguments: Any) -> keras.callbacks.History:
    """Train a model by Keras' own loop, even if its `fit` is replaced."""
    return _FIT(model, **arguments)


def evaluate(model: keras.Model, **arguments: Any) -> Any:
    """Evaluate a model by Keras' own loop."""
    return _EVALUATE(model, **arguments)


def predict(model: keras.Model, **arguments: Any) -> Any:
    """Predict by Keras' own loop."""
    return _PREDICT(model, **arguments)


@contextmanager
def loop_functions(model: keras.Model, steps: Any) -> Iterator[None]:
    """Inside, Keras' loops call `steps.train`, `test` and `predict`, with whole batches, and build no variables.

    Keras would divide a dataset among the replicas by itself, and its symbolic build takes a batch from a generator
    that is not put back (backend/tensorflow/trainer.py).
    """
    replaced = {
        "train_function": steps.train,
        "test_function": steps.test,
        "predict_function": steps.predict,
        "_maybe_symbolic_build": lambda **_: None,
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(shadowed(model, name, function))
        whole = shadowed(tf.distribute.get_strategy(), "experimental_distribute_dataset", lambda dataset: dataset)
        stack.enter_context(whole)
        yield


def concatenated(outputs: list[Any]) -> Any:
    """Return the rows of dense, ragged or sparse tensors in one, single numbers as a vector."""
    return trainer.concat(outputs)


def symbolic(leaf: Any) -> keras.KerasTensor:
    """Return a KerasTensor for a tensor of examples of any kind, for any number of them."""
    shape = (None, *leaf.shape[1:]) if leaf.shape.rank else ()
    kinds = {"sparse": isinstance(leaf, tf.SparseTensor), "ragged": isinstance(leaf, tf.RaggedTensor)}
    return keras.KerasTensor(shape, leaf.dtype.name, **kinds)
