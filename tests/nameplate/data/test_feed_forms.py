"""Every form of examples reaches the replicas of other devices than the host's, too, each share by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.data.adapters import as_source, batches_of
from nameplate.data.config import Resident
from nameplate.data.feeds import PipelineFeed, feed_of, in_file_order

X = np.arange(20, dtype="float32").reshape(10, 2)
Y = np.arange(10)


def test_b2_floats_of_any_precision_become_floatx_and_nothing_else_does() -> None:
    given: list[Any] = [
        X.astype("float64"),
        X.astype("float16"),
        tf.cast(X, tf.bfloat16),
        Y,
        Y > 3,
        np.array(["a"] * 10),
    ]
    texts = np.array(["a"] * 10, object)
    spec = as_source((tuple(given), texts)).spec()
    dtypes = [leaf.dtype.name for leaf in keras.tree.flatten(spec)]
    assert dtypes == ["float32", "float32", "float32", "int64", "bool", "string", "string"]


FORMS: dict[str, Callable[[], Any]] = {
    "x": lambda: X,
    "(x,)": lambda: tf.data.Dataset.from_tensor_slices((X,)).batch(4),
    "elements x": lambda: tf.data.Dataset.from_tensor_slices(X).batch(4),
    "elements {x}": lambda: tf.data.Dataset.from_tensor_slices({"a": X}).batch(4),
    "((x, x), (y, None))": lambda: ([X, X], [Y, None]),
    "elements (x, (y, None))": lambda: tf.data.Dataset.from_tensors((X[:4], (Y[:4], None))).repeat(2),
    "sparse x and y": lambda: (tf.sparse.from_dense(X), Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_b4_shares_have_the_structure_of_the_whole(strategy: Any, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr("nameplate.data.feeds._computes_on_host", lambda: False)
    source = as_source(FORMS[form]())
    with strategy.scope():
        batches = batches_of(source, 4, 2)
        feed = feed_of(source, batches, in_file_order, Resident.never)
        assert isinstance(feed, PipelineFeed)
        iterator = feed.begin(0)

        @tf.function(autograph=False)
        def step() -> Any:
            return strategy.run(lambda examples: examples, feed.take(iterator, None, tf.constant(0)))

        shares = [strategy.experimental_local_results(step()) for _ in range(2)]
    for share in shares[0]:
        keras.tree.assert_same_structure(share, source.spec())
    rows = np.concatenate([keras.tree.flatten(share)[0].numpy() for step_shares in shares for share in step_shares])
    assert rows.shape == (8, 2)
    expected = np.concatenate([X[:4], X[:4]]) if form.startswith("elements (x") else X[:8]
    np.testing.assert_array_equal(rows, expected)
