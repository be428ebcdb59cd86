"""`nameplate.evaluate` and `nameplate.predict`: a model over data on all replicas, each example once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from nameplate.arguments import checked
from nameplate.data.adapters import Data, as_source, evaluation_feed, example_of
from nameplate.data.errors import ByBatchError
from nameplate.data.feeds import Feed
from nameplate.data.source import Source, Stream
from nameplate.engine.batch_step import refuse_eager
from nameplate.engine.compile import build
from nameplate.engine.errors import data_errors, device_errors
from nameplate.engine.graph import EvaluationGraph, PredictionGraph
from nameplate.engine.graph_cache import graph_for
from nameplate.engine.host_collectives import replica_count
from nameplate.engine.private import in_keras_order
from nameplate.engine.replica import Step
from nameplate.engine.statistics import at_replica_means
from nameplate.engine.step_ranges import StepsPerCall
from nameplate.engine.strategy import strategy_of
from nameplate.errors import NameplateError
from nameplate.graph.tree import require_model
from nameplate.training import batch_loop
from nameplate.training.arguments import count_problems, joined, verbose_problems
from nameplate.training.callbacks import TEST_HOOKS, callbacks_of, use_hooks
from nameplate.training.console import in_words
from nameplate.training.monitor import numbers
from nameplate.training.progress_display import ShowPass


@checked
def evaluate(
    model: keras.Model,
    data: Data | None = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    x: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: bool | int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
    return_dict: bool = True,
) -> Any:
    """Return loss and metrics of a compiled model over the data, as one device would measure them.

    Variables that differ between replicas, such as batch statistics of their own, are averaged meanwhile.

    Args:
        model: compiled.
        data: what `nameplate.fit` takes.
        y: targets, if `data` or `x` is only the inputs.
        sample_weight: the weight of each example, beside `y`.
        x: another name for `data`, for the inputs or a dataset.
        batch_size: examples a step over all replicas together, which need not divide among them; None: as many as make
            `steps` steps of all, else 32.
        steps: evaluate this many steps from the start; None: all.
        verbose: 0 silent; 1 or "auto" a bar on a terminal or in a notebook; always a line at the end.
        callbacks: Keras callbacks; one with hooks for batches makes Python run at every step.
        return_dict: False: a list of the values in Keras' order, or a single value by itself.

    Returns:
        The values by name.

    Raises:
        NameplateError: the model is not compiled, or the data cannot be evaluated.
    """
    require_model(model)
    if not model.compiled:
        raise NameplateError(f"{model.name!r} is not compiled; call model.compile(...) first")
    given = joined(model, data, x, y, sample_weight)
    _refuse_invalid(batch_size, steps, verbose)
    with strategy_of(model).scope():
        try:
            refuse_eager(model)
            source = as_source(given)
            feed = _feed(model, source, batch_size, steps)
        except ByBatchError:
            shown = ShowPass(verbose, "evaluating", steps)
            measured = batch_loop.evaluate(
                model, given, batch_size=batch_size, steps=steps, callbacks=callbacks, shown=shown
            )
            return _answer(model, measured, shown, return_dict=return_dict)
        build(model, example_of(source))
        callback_list = callbacks_of(model, callbacks, steps=feed.batches.steps)
        callback_list.on_test_begin()
        model.reset_metrics()
        graph = graph_for(EvaluationGraph, Step(model), feed)
        try:
            with (
                device_errors(),
                data_errors(model),
                at_replica_means(model.non_trainable_variables),
                ShowPass(verbose, "evaluating", graph.steps) as shown,
            ):
                evaluate_all(model, graph, callback_list, shown.advanced if shown.has_bar else None)
            measured = graph.measured()
        finally:
            graph.release()
        callback_list.on_test_end(dict(measured))
    return _answer(model, measured, shown, return_dict=return_dict)


def _answer(model: keras.Model, measured: dict[str, Any], shown: ShowPass, *, return_dict: bool) -> Any:
    if shown.verbose:
        shown.screen.say(in_words(numbers(measured)))
    return measured if return_dict else in_keras_order(model, measured)


@checked
def predict(
    model: keras.Model,
    data: Any = None,
    *,
    x: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: bool | int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
) -> Any:
    """Return the model's outputs for all examples in their order: arrays of (size, ...) in the model's structure.

    Args:
        model: need not be compiled.
        data: the inputs as Keras takes them, an array, or several in a list, tuple or dict; or a `tf.data.Dataset` of
            batches, or a source. Targets in a dataset or source, and in (x, y) if the model's graph has fewer inputs,
            are ignored.
        x: another name for `data`.
        batch_size: examples a step over all replicas together, which need not divide among them; None: as many as make
            `steps` steps of all, else 32.
        steps: predict this many steps from the start; None: all.
        verbose: 0 silent; 1 or "auto" a bar on a terminal or in a notebook; 2, and elsewhere, a line at the end.
        callbacks: Keras callbacks.

    Raises:
        NameplateError: the data cannot be predicted on.
    """
    require_model(model)
    given = joined(model, data, x, None, None, alone=True)
    _refuse_invalid(batch_size, steps, verbose)
    with strategy_of(model).scope():
        try:
            refuse_eager(model)
            source = as_source(given)
            feed = _feed(model, source, batch_size, steps)
        except ByBatchError:
            shown = ShowPass(verbose, "predicting", steps)
            outputs = batch_loop.predict(
                model, given, batch_size=batch_size, steps=steps, callbacks=callbacks, shown=shown
            )
            shown.predicted(outputs)
            return outputs
        if not model.built:
            with data_errors(model):
                model(example_of(source)[0])
        callback_list = callbacks_of(model, callbacks, steps=feed.batches.steps)
        callback_list.on_predict_begin()
        with (
            device_errors(),
            data_errors(model),
            at_replica_means(model.non_trainable_variables),
            ShowPass(verbose, "predicting", feed.batches.steps) as shown,
        ):
            graph = graph_for(PredictionGraph, Step(model), feed)
            outputs = graph.run(callback_list, shown.advanced if shown.has_bar else None)
        callback_list.on_predict_end()
        shown.predicted(outputs)
    return outputs


def _refuse_invalid(batch_size: int | None, steps: int | None, verbose: int | str) -> None:
    problems = count_problems({"batch_size": batch_size, "steps": steps}) + verbose_problems(verbose)
    if problems:
        raise NameplateError("\n".join(problems))


def _feed(model: keras.Model, source: Source | Stream, batch_size: int | None, steps: int | None) -> Feed:
    if isinstance(source, Stream) and source.endless and not steps:
        raise NameplateError(
            "the dataset has no end; say how many steps, steps=..., or give one that ends, dataset.take(100)"
        )
    return evaluation_feed(source, batch_size, replica_count(), steps=steps, per_call=model.steps_per_execution)


def evaluate_all(
    model: keras.Model,
    graph: EvaluationGraph,
    callbacks: keras.callbacks.CallbackList,
    advanced: Callable[[int], None] | None = None,
) -> None:
    """Evaluate the whole feed; or, if a callback has hooks for batches, by step until one asks to stop.

    It takes one call, unless `advanced` is to get the steps done from time to time.
    """
    model.stop_evaluating = False
    if not use_hooks(callbacks, TEST_HOOKS):
        _evaluate_at_once(graph, advanced)
        return
    for first in range(0, graph.steps, model.steps_per_execution):
        count = min(model.steps_per_execution, graph.steps - first)
        callbacks.on_test_batch_begin(first)
        graph.run_steps(first, count)
        callbacks.on_test_batch_end(first + model.steps_per_execution - 1, graph.measured())
        if advanced:
            advanced(first + count)
        if model.stop_evaluating:
            return


def _evaluate_at_once(graph: EvaluationGraph, advanced: Callable[[int], None] | None) -> None:
    if advanced is None:
        graph.run()
        return
    per_call, first = StepsPerCall(None, by_batch=False), 0
    while first < graph.steps:
        count, began = per_call.steps(graph.steps - first), time.perf_counter()
        graph.run_steps(first, count)
        graph.measured()  # so that the time is that of the steps, not of starting them
        per_call.took(count, time.perf_counter() - began)
        first += count
        advanced(first)
