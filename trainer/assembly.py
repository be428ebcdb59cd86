"""A compiled model and its data become a loop that stands where the run does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from nameplate.data.adapters import batches_of, example_of
from nameplate.data.batches import Batches
from nameplate.data.dataset import Dataset, not_finite
from nameplate.data.feeds import Feed, by_seed, feed_of, in_file_order
from nameplate.data.images import augmentation, image_inputs
from nameplate.data.source import Stream
from nameplate.engine import host_collectives
from nameplate.engine.class_weights import class_weights
from nameplate.engine.compile import refuse_unlike
from nameplate.engine.graph import EvaluationGraph, TrainGraph
from nameplate.engine.host_collectives import AgreedStop
from nameplate.engine.replica import Augmentation, Step, crosses_replicas
from nameplate.engine.signals import StopRequest
from nameplate.interpret.dream_callback import Dreams
from nameplate.training import progress
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.config import CheckpointInitConfig, OnNan
from nameplate.training.console import Screen, plain_table
from nameplate.training.fit import callback_list, left_to_chance
from nameplate.training.initial_weights import Origins, take_slots
from nameplate.training.loop import Loop, Plan
from nameplate.training.monitor import known_values, monitored
from nameplate.training.observers import JsonLines, Observer, Profile, ShowProgress
from nameplate.training.progress import Texts, model_json
from nameplate.training.run_directory import Home
from nameplate.training.shared_run import same_start
from nameplate.training.stages import Stages
from nameplate.training.state import TrainState, train_state
from nameplate.training.tensorboard import TensorBoard
from trainer.config import to_yaml
from trainer.config.run_config import RunConfig
from trainer.config.serialization import agreement
from trainer.model import classes_by_variable, layer_rows, plain_shapes
from trainer.report import estimate_memory

LAYER_COLUMNS = ("layer", "class", "output", "parameters")


@dataclass(frozen=True)
class Job:
    """This process' part of a run, and what it has to do with the world."""

    config: RunConfig
    dataset: Dataset
    batches: Batches
    home: Home | None  # None for a dry run
    screen: Screen
    stop: StopRequest
    writes: bool  # this process writes for all of them
    observers: tuple[Observer, ...] = ()  # of the caller

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.fit.steps or self.config.fit.epochs * self.batches.steps

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, the last one counted where it is not complete."""
        return math.ceil(self.total_steps / self.batches.steps)


def assemble(job: Job, model: keras.Model, origins: Origins, stages: Stages) -> Loop:
    """Return the loop of a compiled model, restored to the run's last good checkpoint; call it in the scope.

    `origins` says of each weight that was taken from elsewhere where it is from; `stages` which layers train when, and
    all that will ever train does now.

    Raises:
        ConfigError: something is to be watched that the run does not measure.
        NameplateError: the run's checkpoint belongs to another model or configuration, or none is good.
    """
    known = known_values(model, validated=job.dataset.validation is not None)
    monitor, callbacks = monitored(job.config.checkpoint, job.config.fit.early_stopping, known)
    augment = _augmentation(job)
    step = Step(
        model,
        augmentation=augment,
        class_weights=class_weights(job.config.objective.class_weights),
        xla=job.config.fit.xla,
    )
    _describe(job, model, step)
    loop = Loop(
        model,
        TrainGraph(step, _training_feed(job)),
        _validation(job, step),
        _plan(job),
        callback_list(model, callbacks, epochs=job.epochs, steps=job.batches.steps),
        observers=_observers(job, model) if job.writes else (),
        stop=AgreedStop(job.stop) if host_collectives.several_workers() else job.stop,
        stages=stages,
        averaged=job.config.optimizer.ema_momentum is not None,
        say=job.screen.say,
    )
    state = train_state(model, augment.layers if augment else None)
    init = job.config.init
    if origins and isinstance(init, CheckpointInitConfig) and init.optimizer:
        take_slots(state.weights, state.slots, state.shared["optimizer/iteration"], init, origins)
    if job.home:
        loop.checkpoints = _checkpoints(job, job.home, model, state, origins, monitor=monitor, callbacks=callbacks)
        _resume(job, job.home, loop, loop.checkpoints)
    return loop


def _resume(job: Job, home: Home, loop: Loop, checkpoints: Checkpoints) -> None:
    loop.progress = checkpoints.restore()
    same_start(loop.progress.step, home.checkpoints)
    if job.writes:
        home.config.write_text(to_yaml(job.config), "utf-8")
    if loop.progress.step:
        job.screen.say(f"going on from {checkpoints.last} of {job.total_steps} steps")


def _checkpoints(
    job: Job,
    home: Home,
    model: keras.Model,
    state: TrainState,
    origins: Origins,
    *,
    monitor: str,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Checkpoints:
    about = progress.about(origins) | {"shapes": plain_shapes(job.dataset)}
    texts = Texts(model_json(model), to_yaml(job.config), classes_by_variable(model), about)
    return Checkpoints(
        home.checkpoints,
        job.config.checkpoint,
        state=state,
        texts=texts,
        monitor=monitor,
        callbacks=callbacks,
        say=job.screen.say,
        agree=agreement(job.config, say=job.screen.say),
        writes=job.writes,
    )


def _plan(job: Job) -> Plan:
    fit = job.config.fit
    return Plan(
        total_steps=job.total_steps,
        steps_per_epoch=job.batches.steps,
        examples_per_epoch=job.batches.size,
        global_batch=job.batches.batch,
        validate_every=fit.validate_every,
        record_every=job.config.log.every_steps,
        steps_per_loop=fit.steps_per_loop,
        max_rollbacks=fit.max_rollbacks if fit.on_nan is OnNan.rollback else 0,
    )


def _training_feed(job: Job) -> Feed:
    source = job.dataset.train
    order = in_file_order if isinstance(source, Stream) else by_seed(job.config.seed, job.batches.size)
    return feed_of(source, job.batches, order, job.config.data.resident)


def _validation(job: Job, step: Step) -> EvaluationGraph | None:
    source = job.dataset.validation
    if source is None:
        return None
    refuse_unlike(step.model, example_of(job.dataset.train), example_of(source), name="the validation data")
    batch = job.config.fit.validation_batch or job.batches.batch
    own = batches_of(source, batch, job.batches.replicas)
    return EvaluationGraph(step, feed_of(source, own, in_file_order, job.config.data.resident))


def _augmentation(job: Job) -> Augmentation | None:
    layers = augmentation(job.config.data, job.dataset.inputs, seed=job.config.seed)
    return None if layers is None else Augmentation(layers, tuple(image_inputs(job.dataset.inputs)))


def _describe(job: Job, model: keras.Model, step: Step) -> None:
    """Say what is to be trained, and where it will not be as it was asked for."""
    if job.config.log.layer_table:
        job.screen.table(f"layers of {model.name}", LAYER_COLUMNS, layer_rows(model))
    job.screen.say(estimate_memory(model, job.batches))
    if keras.config.max_epochs() or keras.config.max_steps_per_epoch():
        job.screen.say("keras.config's max_epochs and max_steps_per_epoch end no run; fit.epochs and fit.steps do")
    if reason := left_to_chance(job.dataset.train, resumes=job.home is not None):
        job.screen.say(f"data: {reason}")
    for found in not_finite(job.dataset):
        job.screen.say(f"data: {found}")
    if step.is_users:
        job.screen.say(
            "train_step is the model's own: on several replicas its losses must be means or sums over examples, not "
            "divided by the number of replicas; fit.xla does not reach it"
        )
    elif step.xla and crosses_replicas(model):
        job.screen.say(
            "fit.xla: not compiled, batch statistics cross the replicas; strategy.sync_batch_norm=false compiles"
        )


def _observers(job: Job, model: keras.Model) -> list[Observer]:
    observers: list[Observer] = [ShowProgress(job.screen)]
    home, log = job.home, job.config.log
    if home is None:
        return observers
    observers.append(JsonLines(home.metrics, say=job.screen.say))
    if log.dream.layers:
        events = home.tensorboard / "dreams"
        observers.append(Dreams(model, log.dream, pictures=home.dreams, events=events, seed=job.config.seed))
    if log.profile_steps:
        place = home.tensorboard / "train"
        observers.append(Profile(place, after=log.profile_after, steps=log.profile_steps, say=job.screen.say))
    if log.tensorboard:
        table = plain_table(model.name, LAYER_COLUMNS, layer_rows(model))
        texts = {"config": to_yaml(job.config), "layers": table}
        observers.append(TensorBoard(home.tensorboard, texts=texts, histograms_every=log.histograms_every))
    return [*observers, *job.observers]
