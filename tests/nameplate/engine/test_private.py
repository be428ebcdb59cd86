"""Each private symbol of Keras and TensorFlow that the engine uses, as in keras 3.15.1 and tensorflow 2.21.0."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from tests.private_names import private_imports, private_names

_APPLY = "(self, grads, trainable_variables=None)"
_WORKERS = "tensorflow.python.distribute.collective_all_reduce_strategy"
_TRAINER = "keras.src.backend.tensorflow.trainer.TensorFlowTrainer"
_STRATEGY = "tensorflow.python.distribute.distribute_lib.StrategyBase"
_UPDATE_STATE = "(self, values, sample_weight=None)"

# Functions and methods that are called or replaced: where each is, and its signature.
CALLABLES = {
    "keras.src.backend.compute_output_spec": "(fn, *args, **kwargs)",
    "keras.src.backend.common.masking.get_keras_mask": "(x)",
    "keras.src.backend.common.masking.set_keras_mask": "(x, mask)",
    "keras.src.backend.tensorflow.nn._compute_moments_sync": "(x, axes, keepdims)",
    "keras.src.backend.tensorflow.random.dropout": "(inputs, rate, noise_shape=None, seed=None)",
    "keras.src.losses.loss.scale_loss_for_distribution": "(value)",
    "keras.src.losses.loss.unscale_loss_for_distribution": "(value)",
    "keras.src.losses.loss.apply_mask": "(sample_weight, mask, dtype, reduction)",
    "keras.src.losses.loss.reduce_weighted_values": (
        "(values, sample_weight=None, mask=None, reduction='sum_over_batch_size', dtype=None)"
    ),
    **{
        f"keras.src.{owner}.{name}": signature
        for owner in ("backend.tensorflow.optimizer.TFOptimizer", "optimizers.base_optimizer.BaseOptimizer")
        for name, signature in (
            ("_apply_weight_decay", "(self, variables)"),
            ("_backend_increment_gradient_accumulators", "(self, grads, acc_grads)"),
            ("_overwrite_model_variables_with_average_value", "(self, trainable_variables)"),
            ("_backend_update_step", "(self, grads, trainable_variables, learning_rate)"),
        )
    },
    "keras.src.optimizers.base_optimizer.BaseOptimizer._get_variable_index": "(self, variable)",
    "keras.src.optimizers.base_optimizer.BaseOptimizer.update_step": "(self, gradient, variable, learning_rate)",
    "keras.src.optimizers.base_optimizer.BaseOptimizer.apply": _APPLY,
    "keras.optimizers.LossScaleOptimizer.apply": _APPLY,
    "keras.optimizers.LossScaleOptimizer._tf_apply": _APPLY,
    "keras.optimizers.LossScaleOptimizer._common_apply": _APPLY,
    "keras.optimizers.MultiOptimizer.apply": _APPLY,
    "keras.layers.BatchNormalization._moments": "(self, inputs, mask)",
    "keras.layers.Layer.add_loss": "(self, loss)",
    "keras.layers.Layer._assert_input_compatibility": "(self, arg_0)",
    "keras.metrics.Mean.update_state": _UPDATE_STATE,
    "keras.metrics.Sum.update_state": _UPDATE_STATE,
    "keras.random.SeedGenerator.next": "(self, ordered=True)",
    "keras.Model._symbolic_build": "(self, iterator=None, data_batch=None)",
    "keras.Model._compute_loss": "(self, x=None, y=None, y_pred=None, sample_weight=None, training=True)",
    "keras.Model._flatten_metrics_in_order": "(self, logs)",
    f"{_TRAINER}.fit": (
        "(self, x=None, y=None, batch_size=None, epochs=1, verbose='auto', callbacks=None, validation_split=0.0, "
        "validation_data=None, shuffle=True, class_weight=None, sample_weight=None, initial_epoch=0, "
        "steps_per_epoch=None, validation_steps=None, validation_batch_size=None, validation_freq=1)"
    ),
    f"{_TRAINER}.evaluate": (
        "(self, x=None, y=None, batch_size=None, verbose='auto', sample_weight=None, steps=None, callbacks=None, "
        "return_dict=False, **kwargs)"
    ),
    f"{_TRAINER}.predict": "(self, x, batch_size=None, verbose='auto', steps=None, callbacks=None)",
    f"{_TRAINER}._maybe_symbolic_build": "(self, iterator=None, data_batch=None)",
    f"{_TRAINER}.make_train_function": "(self, force=False)",
    f"{_TRAINER}.make_test_function": "(self, force=False)",
    f"{_TRAINER}.make_predict_function": "(self, force=False)",
    "keras.src.backend.tensorflow.trainer.concat": "(tensors, axis=0)",
    f"{_STRATEGY}.experimental_distribute_dataset": "(self, dataset, options=None)",
    f"{_WORKERS}.CollectiveAllReduceExtended._initialize_local_devices": ("(self, cluster_resolver, worker_device)"),
    "tensorflow.python.eager.record.stop_recording": "()",
    "tensorflow.python.eager.record.record_operation": (
        "(op_type, output_tensors, input_tensors, backward_function, forward_function=None)"
    ),
    "tensorflow.data.Dataset._inputs": "(self)",
    "tensorflow.data.Dataset._as_serialized_graph": (
        "(self, allow_stateful=None, strip_device_assignment=None, external_state_policy=<ExternalStatePolicy.WARN: 0>)"
    ),
}


def _model() -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="value")], name="small")
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, gradient_accumulation_steps=2), "mse", metrics=["mae"])
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    return model


def _optimizer() -> Any:
    return _model().optimizer


def _probability() -> Any:
    return keras.ops.softmax(tf.ones((1, 2)))


def _parallel() -> Any:
    return tf.data.Dataset.range(3).map(lambda x: x, num_parallel_calls=2, deterministic=False)


# Attributes that are read or written: something that has each, and its type.
ATTRIBUTES: dict[str, tuple[Callable[[], Any], type | tuple[type, ...]]] = {
    "_accumulated_gradients": (_optimizer, list),
    "_aggregation": (lambda: keras.Variable(1.0).value, object),
    "_call_has_training_arg": (_model, bool),
    "_compile_config": (_model, object),
    "_called": (_model, bool),
    "_compile_loss": (_model, keras.losses.Loss),
    "_compile_metrics": (_model, keras.metrics.Metric),
    "_deterministic": (_parallel, str),
    "_fn": (lambda: keras.metrics.MeanAbsoluteError(), object),
    "_flat_losses": (lambda: _model()._compile_loss, list),
    "_initial_epoch": (_model, (int, type(None))),
    "_iterations": (_optimizer, keras.Variable),
    "_keras_logits": (_probability, tf.Tensor),
    "_learning_rate": (_optimizer, keras.Variable),
    "_loss_tracker": (_model, keras.metrics.Mean),
    "_losses": (lambda: keras.layers.ReLU(), list),
    "_model_variables_moving_average": (_optimizer, list),
    "_omit_frequent_tracing_warning": (lambda: tf.function(lambda: 0), bool),
    "_reduction_axes": (lambda: _built(keras.layers.BatchNormalization()), list),
    "_seed": (lambda: tf.data.Dataset.range(3).shuffle(2, seed=1), tf.Tensor),
    "_seed2": (lambda: tf.data.Dataset.range(3).shuffle(2, seed=1), tf.Tensor),
    "_should_trace": (lambda: keras.callbacks.TensorBoard(), bool),
    "_trainable_variables": (_optimizer, list),
    "_value": (lambda: keras.Variable(1.0), object),
    "_variables": (_optimizer, list),
}


def _built(layer: Any) -> Any:
    layer.build((None, 2))
    return layer


def _versions(name: str) -> str:
    return f"{name} of keras {keras.__version__} and tensorflow {tf.__version__} (used in nameplate/engine/private*.py)"


@pytest.mark.parametrize("name", CALLABLES)
def test_a_function_that_is_called_or_replaced_has_its_signature(name: str) -> None:
    try:
        actual = str(inspect.signature(resolve_name(name)))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"there is no {_versions(name)}: {error}")
    assert actual == CALLABLES[name], f"{_versions(name)} takes {actual}"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_there_with_its_type(name: str) -> None:
    make, kind = ATTRIBUTES[name]
    holder = make()
    symbol = _versions(f"{type(holder).__name__}.{name}")
    assert hasattr(holder, name), f"there is no {symbol}"
    value = getattr(holder, name)
    assert isinstance(value, kind), f"{symbol} is a {type(value).__name__}"


def test_the_tables_have_all_that_the_module_uses() -> None:
    used = {name for module in MODULES for name in private_names(module)}
    assert used == {name for path in CALLABLES if (name := path.rpartition(".")[2]).startswith("_")} | ATTRIBUTES.keys()


@pytest.mark.parametrize("room", ["data", "engine", "training", "interpret"])
def test_no_module_outside_uses_what_is_private(room: str) -> None:
    outside = [path for path in (ROOMS / room).glob("*.py") if path not in MODULES]
    strays = [f"{path.name}: {name}" for path in outside for name in private_names(path)]
    strays += [f"{path.name}: {module}" for path in outside for module in private_imports(path)]
    assert outside
    assert not strays, "these belong in nameplate/engine/private.py"


ROOMS = Path(nameplate.__file__).parent
# Not imported: a symbol may be gone.
MODULES = [ROOMS / "engine" / "private.py", ROOMS / "engine" / "private_loop.py"]
