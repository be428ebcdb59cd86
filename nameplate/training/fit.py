"""`nameplate.fit`: the loop alone, for a compiled model and data of the user's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import keras

from nameplate.arguments import checked
from nameplate.data.adapters import (
    Data,
    as_source,
    batch_for,
    batches_of,
    evaluation_feed,
    example_of,
    refuse_unclassed,
    split_off,
    within_limit,
)
from nameplate.data.batches import Batches, Epochs, in_whole_calls
from nameplate.data.config import Resident
from nameplate.data.dataset import summary
from nameplate.data.errors import ByBatchError
from nameplate.data.feeds import BySeed, feed_of, in_file_order
from nameplate.data.indexed import Indexed
from nameplate.data.sanity import findings
from nameplate.data.source import Source, Stream
from nameplate.engine.batch_step import refuse_eager
from nameplate.engine.compile import class_weights, prepare, refuse_unlike
from nameplate.engine.dataset_order import runs_python, unordered, unseeded
from nameplate.engine.errors import data_errors
from nameplate.engine.graph import EvaluationGraph, TrainGraph
from nameplate.engine.graph_cache import graph_for
from nameplate.engine.host_collectives import replica_count, several_workers
from nameplate.engine.replica import Step
from nameplate.engine.statistics import synchronised
from nameplate.engine.strategy import strategy_of
from nameplate.errors import NameplateError
from nameplate.formats.policy_file import AnyPolicy
from nameplate.graph.tree import require_model
from nameplate.io.save import unsavable
from nameplate.training import batch_loop
from nameplate.training.arguments import Arguments, joined
from nameplate.training.callbacks import callback_list, early_end, listed
from nameplate.training.config import CheckpointConfig, LogConfig
from nameplate.training.loop import Loop
from nameplate.training.plan import Plan
from nameplate.training.progress import Progress
from nameplate.training.progress_display import ShowProgress, screen_of_worker, shows_bar
from nameplate.training.script_run import ScriptRun, run_options
from nameplate.training.script_settings import fit_settings


@checked
def fit(
    model: keras.Model,
    data: Data | None = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    x: Any = None,
    validation_data: Data | None = None,
    validation_split: float = 0.0,
    validation_freq: int | Collection[int] = 1,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    epochs: int = 1,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
    class_weight: Mapping[int, float] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    steps_per_loop: int | None = None,
    xla: bool | None = None,
    sync_batch_norm: bool = True,
    verbose: bool | int | str = "auto",
    run: str | os.PathLike[str] | None = None,
    naming: AnyPolicy = "strict",
    checkpoint: CheckpointConfig | None = None,
    log: LogConfig | None = None,
    resume: bool = True,
    resume_changed: Sequence[str] = (),
    max_rollbacks: int = 0,
) -> keras.callbacks.History:
    """Train a compiled model in the current strategy's scope, as `model.fit` would on one device.

    With `run` the training has a directory: names are checked first, checkpoints are saved there under the names of the
    layers, and the same script started again resumes exactly, wherever and however it was stopped. A signal (SIGTERM,
    SIGINT, SIGUSR1) saves and ends the script with code 143 or 130. Moving averages of the optimizer are what is
    validated, saved and called best.

    Args:
        model: compiled; variables are created where it has none yet.
        data: arrays `(x, y)` or `(x, y, sample_weight)` with equal leading dimensions, or a source with random
            access, shuffled by the seed; or a `tf.data.Dataset` of global batches, in its own order. Or only x, with
            or without `y` and `sample_weight` beside it. Arrays of floats become `floatx`.
        y: targets, if `data` or `x` is only the inputs; None in it for an output that has no target.
        sample_weight: the weight of each example, beside `y`.
        x: another name for `data`; a tuple or list of arrays is the inputs, unless the model's graph decides.
        validation_data: as `data`; evaluated at the end of epochs, each example once.
        validation_split: hold out this fraction at the end of the arrays, if there is no `validation_data`.
        validation_freq: epochs between validations, or a list of those after which to validate, counted from 1; a run
            also validates its last epoch.
        validation_steps: validate on this many steps from the start; None: on all.
        validation_batch_size: examples a validation step; None: `batch_size`.
        epochs: number of the last epoch; passes over the data if `initial_epoch` is 0.
        initial_epoch: epochs that are done already, for orders and schedules; a dataset starts at its beginning.
        steps_per_epoch: steps of an epoch; the data continues from one to the next, and where it ends the epoch does,
            with a warning. As in Keras, whole calls of `compile(steps_per_execution=...)`. In a run, a dataset of
            unknown length starts over instead.
        steps: end after this many steps in all, whatever `epochs` says.
        batch_size: examples a step over all replicas together; None: as many as make `steps_per_epoch` steps of all
            arrays, else 32. A `tf.data.Dataset` has its own.
        callbacks: Keras callbacks; one with hooks for batches makes Python run at every step.
        class_weight: class to weight in the loss; other classes have 1.
        shuffle: a new order each epoch, from `seed`; False: in order. A `tf.data.Dataset` has its own.
        seed: decides the order.
        steps_per_loop: most steps in one call to the graph; None: `compile(steps_per_execution=...)`, or chosen.
        xla: compile each replica's forward and backward pass; None: as `compile(jit_compile=...)` has it.
        sync_batch_norm: take batch statistics over all replicas, as one device would; False: each over its share.
        verbose: 0 silent; 1 or "auto" a bar on a terminal or in a notebook; 2, and elsewhere, one line an epoch.
        run: directory of the run, e.g. "runs/mine"; None: nothing is written.
        naming: policy that the names must satisfy: strict, report, off, a `nameplate.Policy`, or the path of its file.
        checkpoint: when to save, what to keep, what is best: `nameplate.Checkpoint(every_steps=..., monitor=...)`.
        log: what is recorded, and how often: `nameplate.Log(every_steps=..., tensorboard=...)`.
        resume: False refuses a directory that has checkpoints.
        resume_changed: settings that may differ from those of the checkpoint, e.g. ["optimizer"].
        max_rollbacks: how often a NaN takes the run back to its last good checkpoint; the data to it is skipped.

    Returns:
        The History of the training, also at `model.history`; of a resumed run, its epochs from the first.

    Raises:
        NameplateError: the model is not compiled, or the data does not fit it; of a run also: its
            directory is in use, its checkpoints are of another model or other settings, its data cannot be resumed.
        NamingError: the model's names break the policy of the run.
        NotFiniteError: the loss of a step of a run is NaN or infinite; without `run` training goes on.
        StoppedError: a signal ended the run, with everything saved; uncaught, it ends the script without a traceback.
    """
    require_model(model)
    if run is not None and initial_epoch:
        raise NameplateError(
            f"initial_epoch={initial_epoch} beside run=: a run knows which epochs are done; leave it out"
        )
    arguments = Arguments(
        epochs=epochs,
        initial_epoch=initial_epoch,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        validation_freq=validation_freq,
        validation_steps=validation_steps,
        validation_batch_size=validation_batch_size,
        class_weight=class_weight,
        shuffle=shuffle,
        seed=seed,
        steps_per_loop=steps_per_loop,
        xla=bool(model.jit_compile) if xla is None and model.compiled else bool(xla),
        verbose=verbose,
        max_rollbacks=max_rollbacks,
    )
    arguments.require_valid(model)
    options = run_options(
        run,
        naming=naming,
        checkpoint=checkpoint,
        log=log,
        resume=resume,
        resume_changed=resume_changed,
        verbose=verbose,
    )
    data = joined(model, data, x, y, sample_weight)
    if run is not None:
        data = _resumable(model, data)
    if validation_split and validation_data is None:
        data, validation_data = split_off(as_source(data), validation_split)
    elif validation_data is not None:
        validation_data = joined(model, validation_data, None, None, None)
    with (
        strategy_of(model).scope(),
        synchronised(model, sync_batch_norm=sync_batch_norm),
        ScriptRun(options) if options else nullcontext() as own,
    ):
        try:
            refuse_eager(model)
            loop = loop_of(model, data, arguments, validation_data=validation_data, callbacks=callbacks, run=own)
        except ByBatchError:
            if own is not None:
                raise
            own_callbacks = listed(callbacks)
            return batch_loop.fit(model, data, arguments, validation_data=validation_data, callbacks=own_callbacks)
        with data_errors(model), loop.checkpoints or nullcontext():
            loop.run()
        if own:
            own.report(loop.progress, loop.checkpoints, early_end(loop.callbacks, loop.progress))
    return model.history


def _resumable(model: keras.Model, data: Data) -> Source | Stream:
    """Return the data of a run as a source; refuse what cannot be resumed in the middle of an epoch."""
    try:
        refuse_eager(model)
        return as_source(data)
    except ByBatchError as error:
        raise NameplateError(f"run=: a run resumes exactly, in a graph. {error}. Or leave out run=") from error


def loop_of(
    model: keras.Model,
    data: Data,
    arguments: Arguments,
    *,
    validation_data: Data | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
    run: ScriptRun | None = None,
) -> Loop:
    """Return the loop that `fit` runs; call it, and run it, in the scope of the model's strategy.

    With a `run` it is restored to where that stands, and saves and logs there.
    """
    replicas = replica_count()
    source = as_source(data)
    held_out = None if validation_data is None else as_source(validation_data, "validation_data")
    source, batches, epochs = _portioned(source, arguments, replicas, per_call=model.steps_per_execution, run=run)
    example = example_of(source)
    if arguments.class_weight:
        refuse_unclassed(example)
    prepare(model, example, frozen=run is None)
    refuse_unsavable(model, callbacks)
    if held_out is not None:
        refuse_unlike(model, example, example_of(held_out))
    _warn_of_chance(source, held_out, arguments, resumes=run is not None or _resumes(callbacks))
    random = arguments.shuffle and not isinstance(source, Stream)
    order = BySeed(arguments.seed, source.size or 0) if random else in_file_order
    feed = feed_of(source, batches, order, Resident.auto)
    step = Step(model, class_weights=class_weights(arguments.class_weight), xla=arguments.xla)
    if reason := step.uncompiled():
        warnings.warn(reason, stacklevel=2)
    last_epoch, total = _length(arguments, epochs)
    loop = Loop(
        model,
        graph_for(TrainGraph, step, feed),
        _validation(step, held_out, arguments, batches),
        _plan(model, arguments, batches, epochs, total_steps=total, run=run),
        callback_list(model, listed(callbacks), epochs=last_epoch, steps=epochs.steps or batches.steps),
        progress=Progress(step=epochs.number(arguments.initial_epoch).first, epoch=arguments.initial_epoch),
    )
    if run is None:
        shown = [ShowProgress(screen_of_worker(), bar=shows_bar(arguments.verbose))]
        return replace(loop, observers=shown) if arguments.verbose else loop
    settings = fit_settings(model, source, arguments, batches, continues=not run.has_own_epochs())
    shown_data = summary({"training": source, "validation": held_out})
    shown_data += [f"data: {line}" for line in findings(source, model, reads=False)]
    return run.around(loop, settings, listed(callbacks), validated=held_out is not None, data=shown_data)


def left_to_chance(source: Source | Stream, *, resumes: bool) -> str | None:
    """Return why another process would get the examples in another order; None if nothing indicates it.

    If the training `resumes` and Python produces the stream, the beginnings of two passes are compared.
    """
    if isinstance(source, Indexed) and resumes and source.differs():
        return (
            "the first example is another one when it is read again: unless what changes follows from a seed, a "
            "training that resumes sees other examples than an uninterrupted one; augment in layers, or by the index"
        )
    if not isinstance(source, Stream):
        return None
    if operations := unseeded(source.dataset):
        return (
            f"{', '.join(operations)} without a seed: every run of the same program gets other examples, or another "
            "order; give seed=..., or call keras.utils.set_random_seed(...) before the dataset is made"
        )
    if unordered(source.dataset):
        return (
            "deterministic=False lets examples overtake each other: every run of the same program gets them in another "
            "order; leave it out"
        )
    if resumes and runs_python(source.dataset) and source.differs():
        return (
            "two passes begin with different examples: unless their order follows from a seed, a training that goes on "
            "does not go on with the examples that are left"
        )
    return None


def _warn_of_chance(
    source: Source | Stream, held_out: Source | Stream | None, arguments: Arguments, *, resumes: bool
) -> None:
    if reason := left_to_chance(source, resumes=resumes or arguments.initial_epoch > 0):
        warnings.warn(f"data: {reason}", stacklevel=2)
    if held_out is not None and arguments.validation_steps and (reason := left_to_chance(held_out, resumes=False)):
        takes = f"each validation takes other {arguments.validation_steps} steps of it"
        warnings.warn(f"validation_data: {takes}: {reason}", stacklevel=2)


def refuse_unsavable(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None
) -> None:
    """Refuse a ModelCheckpoint of the whole model, before training, if the model has no configuration to save."""
    whole = [
        callback
        for callback in listed(callbacks)
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only
    ]
    if whole and (lines := unsavable(model)):
        raise NameplateError(
            "\n  ".join([f"ModelCheckpoint({whole[0].filepath!r}) cannot save {model.name!r}:", *lines])
            + "\nOr save the weights alone: save_weights_only=True"
        )


def _resumes(callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None) -> bool:
    return any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in listed(callbacks))


def _length(arguments: Arguments, epochs: Epochs) -> tuple[int, int]:
    """Return the epochs and steps of a training, limited by `keras.config.max_epochs()`, with a warning if they are."""
    total = arguments.steps or epochs.number(arguments.epochs).first
    limit = keras.config.max_epochs()
    if limit and (limited := epochs.number(limit).first) < total:
        warnings.warn(f"keras.config.max_epochs() ends the training after {limit} epochs", stacklevel=2)
        return min(arguments.epochs, limit), limited
    return arguments.epochs, total


def _plan(
    model: keras.Model,
    arguments: Arguments,
    batches: Batches,
    epochs: Epochs,
    *,
    total_steps: int,
    run: ScriptRun | None,
) -> Plan:
    per_call = model.steps_per_execution
    return Plan(
        total_steps=total_steps,
        epochs=epochs,
        examples_per_pass=batches.size,
        global_batch=batches.batch,
        validate_every=arguments.validation_freq,
        validate_last=run is not None,
        record_every=total_steps if run is None else run.options.log.every_steps,
        steps_per_loop=arguments.steps_per_loop or (per_call if per_call > 1 else None),
        steps_per_hook=per_call,
        ends_at_nan=run is not None,
        max_rollbacks=arguments.max_rollbacks,
    )


def _portioned(
    source: Source | Stream, arguments: Arguments, replicas: int, *, per_call: int, run: ScriptRun | None
) -> tuple[Source | Stream, Batches, Epochs]:
    """Return the data as it is trained on, and how it is divided into steps and epochs.

    Raises:
        ByBatchError: `steps_per_epoch` of a dataset that may end at any step.
    """
    size = batch_for(source, arguments.batch_size, arguments.steps_per_epoch)
    most = within_limit(source, size, arguments.steps_per_epoch)
    own_epochs = run is not None and run.has_own_epochs()
    unknown = isinstance(source, Stream) and source.size is None and not source.endless
    if most and unknown and run is None and not several_workers():
        raise ByBatchError(f"steps_per_epoch={most}: nothing says how many batches the dataset has")
    if most and (own_epochs or unknown):
        if isinstance(source, Stream) and source.held(most + 1) != most:
            source = Stream(source.dataset.repeat(), batched=source.batched)
        batches, most = batches_of(source, size, replicas, steps=arguments.steps, steps_per_epoch=most), None
    elif isinstance(source, Stream) and source.endless:
        taken = most and in_whole_calls(most, per_call)
        batches = batches_of(source, size, replicas, steps=arguments.steps, steps_per_epoch=taken)
    else:
        steps = most and max(arguments.epochs - arguments.initial_epoch, 0) * in_whole_calls(most, per_call)
        batches = batches_of(source, size, replicas, steps=arguments.steps or steps)
    epochs = Epochs(batches.steps, most, arguments.initial_epoch, per_call)
    if isinstance(source, Stream):
        source.first = epochs.number(arguments.initial_epoch).first
    return source, batches, epochs


def _validation(
    step: Step, source: Source | Stream | None, arguments: Arguments, batches: Batches
) -> EvaluationGraph | None:
    if source is None:
        return None
    steps = arguments.validation_steps
    batch = arguments.validation_batch_size or arguments.batch_size or (None if steps else batches.batch)
    feed = evaluation_feed(source, batch, batches.replicas, steps=steps, per_call=step.model.steps_per_execution)
    return graph_for(EvaluationGraph, step, feed)
