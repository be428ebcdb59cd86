"""A compiled model and its data become the loop of a run, restored to where the run stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras

from nameplate import checkpoint as store
from nameplate.data.adapters import batches_of, example_of
from nameplate.data.batches import Batches, Epochs
from nameplate.data.dataset import Dataset
from nameplate.data.feeds import BySeed, Feed, feed_of, in_file_order
from nameplate.data.images import augmentation, image_inputs
from nameplate.data.source import Stream
from nameplate.engine.compile import class_weights, refuse_unlike
from nameplate.engine.graph import EvaluationGraph, TrainGraph
from nameplate.engine.host_collectives import agreed_stop
from nameplate.engine.objects import make
from nameplate.engine.replica import Augmentation, Step
from nameplate.engine.signals import StopRequest
from nameplate.naming.keras_objects import AUGMENTATIONS
from nameplate.training.callbacks import callback_list, configured_callbacks, cut_tables
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.config import CheckpointInitConfig, OnNan
from nameplate.training.config_diff import ConfigDiff
from nameplate.training.console import Screen
from nameplate.training.damaged_data import digest, require_same
from nameplate.training.data_record import plain_record
from nameplate.training.fit import refuse_unsavable
from nameplate.training.initial_weights import Origins, take_slots
from nameplate.training.layer_table import classes_by_variable
from nameplate.training.loop import Loop
from nameplate.training.monitor import known_values, monitored
from nameplate.training.observers import Observer
from nameplate.training.plan import Plan
from nameplate.training.progress import Progress, Texts, about, model_json
from nameplate.training.run_directory import RunDirectory
from nameplate.training.script_settings import model_settings
from nameplate.training.shared_run import same_start
from nameplate.training.stages import Stages
from nameplate.training.state import TrainState, train_state
from trainer.config import to_yaml
from trainer.config.run_config import RunConfig
from trainer.config.serialization import agreement
from trainer.job.report import describe, observers_of
from trainer.models.config import FileModelConfig


@dataclass(frozen=True)
class Job:
    """This process's part of a run, and where it reads, writes and speaks."""

    config: RunConfig
    dataset: Dataset
    batches: Batches
    home: RunDirectory | None  # None for a dry run
    screen: Screen
    stop: StopRequest
    writes: bool  # this process writes for all workers
    observers: tuple[Observer, ...] = ()  # of the caller

    @property
    def begins(self) -> bool:
        """Whether there is nothing to resume."""
        return self.home is None or self.home.is_new()

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.fit.steps or self.config.fit.epochs * self.batches.steps

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; the last may be incomplete."""
        return math.ceil(self.total_steps / self.batches.steps)


def assemble(job: Job, model: keras.Model, origins: Origins, stages: Stages) -> Loop:
    """Return the loop of a compiled model, restored to the run's last good checkpoint; call it in the scope.

    `origins` has the origin of each weight that was taken from elsewhere, `stages` which layers train when; all layers
    that will ever train are trainable in `model`.

    Raises:
        ConfigError: a value is to be monitored that the run does not measure.
        NameplateError: the run's checkpoint belongs to another model or configuration, or none is good.
    """
    config, screen = job.config, job.screen
    known = known_values(model, validated=job.dataset.validation is not None)
    monitor, callbacks = monitored(config.checkpoint, config.fit.early_stopping, known)
    named = configured_callbacks(
        config.callbacks, directory=job.home.path if job.home else None, trust=config.trust, known=known
    )
    refuse_unsavable(model, list(named.values()))
    layers = augmentation(
        config.data,
        job.dataset.inputs,
        seed=config.seed,
        make=lambda key, item, offered: make(AUGMENTATIONS, key, item, trust=config.trust, offered=offered),
    )
    step = Step(
        model,
        augmentation=None if layers is None else Augmentation(layers, tuple(image_inputs(job.dataset.inputs))),
        class_weights=class_weights(config.objective.class_weights),
        xla=config.fit.xla,
    )
    train, validation = TrainGraph(step, _training_feed(job)), _validation(job, step)
    state = _state(job, model, layers, origins)
    checkpoints = _checkpoints(job, model, state, origins, monitor=monitor, callbacks=callbacks, named=named)
    progress = _restored(job, checkpoints)  # refuses before anything is shown
    cut_tables(named.values(), epoch=progress.epoch)
    describe(screen, config, job.dataset, job.batches, step, resumes=job.home is not None)
    return Loop(
        model,
        train,
        validation,
        _plan(job),
        callback_list(model, [*callbacks, *named.values()], epochs=job.epochs, steps=job.batches.steps),
        observers=observers_of(config, job.home, screen, model, job.observers, classes=job.dataset.classes)
        if job.writes
        else (),
        checkpoints=checkpoints,
        progress=progress,
        stop=agreed_stop(job.stop),
        stages=stages,
        averaged=config.optimizer.ema_momentum is not None,
        say=screen.say,
    )


def _state(job: Job, model: keras.Model, augmentation: keras.Model | None, origins: Origins) -> TrainState:
    """Return the run's state, with the optimizer's slots of where its weights are from, if that is asked for."""
    state, init = train_state(model, augmentation), job.config.init
    if origins and isinstance(init, CheckpointInitConfig) and init.optimizer:
        take_slots(state.weights, state.slots, state.shared["optimizer/iteration"], init, origins)
    return state


def _checkpoints(
    job: Job,
    model: keras.Model,
    state: TrainState,
    origins: Origins,
    *,
    monitor: str,
    callbacks: Sequence[keras.callbacks.Callback],
    named: Mapping[str, keras.callbacks.Callback],
) -> Checkpoints | None:
    if job.home is None:
        return None
    text = model_json(model)
    read = isinstance(job.config.model, FileModelConfig)
    agree = agreement(job.config, say=job.screen.say, model=text if read else "", layers=model_settings)
    described = about(origins) | {"shapes": plain_record(job.dataset)}
    return Checkpoints(
        job.home.checkpoints,
        job.config.checkpoint,
        state=state,
        texts=Texts(text, to_yaml(job.config), classes_by_variable(model), described),
        monitor=monitor,
        callbacks=callbacks,
        named_callbacks=named,
        say=job.screen.say,
        agree=lambda checkpoint, where: _agreed(job, agree, checkpoint, where),
        writes=job.writes,
    )


def _agreed(job: Job, agree: Callable[..., ConfigDiff], checkpoint: store.Checkpoint, where: str) -> ConfigDiff:
    """Return how a checkpoint's configuration differs; refuse what may not, and other examples left out."""
    diff = agree(checkpoint.config, where, checkpoint.model)
    if not diff.touches("data"):
        stored = checkpoint.manifest.about.get("shapes")
        require_same(stored.get("skipped") if isinstance(stored, Mapping) else "", job.dataset.skipped, where=where)
    return diff


def _restored(job: Job, checkpoints: Checkpoints | None) -> Progress:
    """Restore the last good checkpoint and return where the run stands; record the configuration that continues it."""
    if job.home is None or checkpoints is None:
        return Progress()
    restored = checkpoints.restore()
    same_start(restored.step, job.home.checkpoints, digest=digest(job.dataset.skipped))
    if job.writes:
        job.home.config.write_text(to_yaml(job.config), "utf-8")
    if restored.step:
        job.screen.say(f"resuming from {checkpoints.last} of {job.total_steps} steps")
    return restored


def _plan(job: Job) -> Plan:
    fit = job.config.fit
    return Plan(
        total_steps=job.total_steps,
        epochs=Epochs(job.batches.steps),
        examples_per_pass=job.batches.size,
        global_batch=job.batches.batch,
        validate_every=fit.validate_every,
        record_every=job.config.log.every_steps,
        steps_per_loop=fit.steps_per_loop,
        max_rollbacks=fit.max_rollbacks if fit.on_nan is OnNan.rollback else 0,
    )


def _training_feed(job: Job) -> Feed:
    source = job.dataset.train
    order = in_file_order if isinstance(source, Stream) else BySeed(job.config.seed, job.batches.size)
    return feed_of(source, job.batches, order, job.config.data.resident)


def _validation(job: Job, step: Step) -> EvaluationGraph | None:
    source = job.dataset.validation
    if source is None:
        return None
    refuse_unlike(step.model, example_of(job.dataset.train), example_of(source), name="the validation data")
    batch = job.config.fit.validation_batch or job.batches.batch
    own = batches_of(source, batch, job.batches.replicas)
    return EvaluationGraph(step, feed_of(source, own, in_file_order, job.config.data.resident))
