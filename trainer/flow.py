"""A whole run: the flow of the project, on one screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import keras

import models
from trainer import versions, workers
from trainer.agreement import agreement
from trainer.build import (
    build_model,
    classes_by_variable,
    layer_rows,
    synchronise_batch_norm,
)
from trainer.callbacks.dreams import Dreams
from trainer.callbacks.jsonl import JsonLines
from trainer.callbacks.observer import Observer
from trainer.callbacks.progress import ShowProgress
from trainer.callbacks.tensorboard import TensorBoard
from trainer.checkpoint import Checkpoints
from trainer.compiling import compile_model
from trainer.compose import to_yaml
from trainer.config.base import ConfigError
from trainer.config.checkpoint import Export
from trainer.config.fit import OnNan
from trainer.config.init import CheckpointInitConfig
from trainer.config.run import RunConfig, batch_problems
from trainer.console import Screen, plain_table
from trainer.data.augment import augmentation, image_inputs
from trainer.data.batches import Batches
from trainer.data.dataset import Dataset
from trainer.data.feed import by_seed, feed_of, in_file_order
from trainer.data.opening import open_dataset
from trainer.data.source import Stream
from trainer.exporting import export_best
from trainer.fitting import batches_of, callback_list, class_weights, example_of
from trainer.graph import EvaluationGraph, TrainGraph
from trainer.home import Home
from trainer.initial import Origins, take_slots, take_weights
from trainer.loop import Loop, Plan
from trainer.monitor import known_values, monitored
from trainer.outcome import training
from trainer.progress import Texts, model_json
from trainer.replica import Augmentation, Step, crosses_replicas
from trainer.report import Report, commands, estimate_memory, finish
from trainer.requeue import marked
from trainer.shared import lost_workers, same_start, shared_home, team_of, writes
from trainer.signals import StopRequest
from trainer.state import train_state
from trainer.strategy import describe, make_strategy
from trainer.targets import resolver
from trainer.team import Team
from trainer.workers import AgreedStop


def run(config: RunConfig) -> Report:
    """Train as configured, from the beginning or from where the run's last checkpoint has it.

    Raises:
        ConfigError: before anything is touched, with everything in the configuration that cannot be used.
        NameplateError: what else is refused before training: devices, data, names, a run that is taken.
        NotFiniteError: the loss became NaN or infinite.
        StoppedError: a signal came; everything is saved.
    """
    config = _dry(config.check()) if config.dry_run else config.check()
    with team_of(config) as team, shared_home(config, team) as home, StopRequest() as stop, _marked(config, home, team):
        screen = Screen(quiet=not writes(team))
        strategy = make_strategy(config.strategy)
        _refuse_uneven(config, strategy.num_replicas_in_sync)
        screen.say(f"{describe(strategy)}; {config.fit.precision} precision; seed {config.seed}")
        dataset = open_dataset(config.data, seed=config.seed, allow=resolver(config.trust))
        _refuse_unsuited(config, dataset)
        with strategy.scope():
            batches = batches_of(dataset.train, config.fit.global_batch, strategy.num_replicas_in_sync)
            model, origins = _named_model(config, dataset, home, screen)
            _compile(model, config, dataset, _total_steps(config, batches))
            loop = _loop(model, config, dataset, batches, home, screen, stop, origins, writer=writes(team))
            with training(), lost_workers(team), loop.checkpoints or nullcontext():
                loop.run()
                _export(config, model, dataset, home, screen)
        return finish(screen, config, model, loop.progress, home, loop.checkpoints)


def _named_model(config: RunConfig, dataset: Dataset, home: Home | None, screen: Screen) -> tuple[keras.Model, Origins]:
    """Build, enforce the policy of names, give first weights where the run begins; nothing is compiled yet."""
    model = build_model(
        config.model, dataset, precision=config.fit.precision, seed=config.seed, resolve=resolver(config.trust)
    )
    model = models.enforce(model, config.naming)
    synchronise_batch_norm(model, synchronised=config.strategy.sync_batch_norm)
    begins = home is None or home.is_new()
    if not begins or not isinstance(config.init, CheckpointInitConfig):
        return model, {}
    return model, take_weights(model, config.init, show=screen.table)


def _compile(model: keras.Model, config: RunConfig, dataset: Dataset, steps: int) -> None:
    compile_model(
        model,
        optimizer=config.optimizer,
        schedule=config.schedule,
        objective=config.objective,
        precision=config.fit.precision,
        steps=steps,
        example=example_of(dataset.train),
    )


def _loop(
    model: keras.Model,
    config: RunConfig,
    dataset: Dataset,
    batches: Batches,
    home: Home | None,
    screen: Screen,
    stop: StopRequest,
    origins: Origins,
    *,
    writer: bool,
) -> Loop:
    """Put the pieces of the training together and bring them to where the run stands."""
    augment = _augmentation(config, dataset)
    weights = class_weights(config.objective.class_weights)
    step = Step(model, augmentation=augment, class_weights=weights, xla=config.fit.xla)
    order = in_file_order if isinstance(dataset.train, Stream) else by_seed(config.seed, batches.size)
    feed = feed_of(dataset.train, batches, order, config.data.resident)
    plan = Plan(
        total_steps=_total_steps(config, batches),
        steps_per_epoch=batches.steps,
        examples_per_epoch=batches.size,
        global_batch=batches.batch,
        validate_every=config.fit.validate_every,
        record_every=config.log.every_steps,
        steps_per_loop=config.fit.steps_per_loop,
        max_rollbacks=config.fit.max_rollbacks if config.fit.on_nan is OnNan.rollback else 0,
    )
    known = known_values(model, validated=dataset.validation is not None)
    monitor, callbacks = monitored(config, known)
    table = layer_rows(model)
    if config.log.layer_table:
        screen.table(f"layers of {model.name}", LAYER_COLUMNS, table)
    screen.say(estimate_memory(model, batches))
    if step.xla and crosses_replicas(model):
        screen.say(
            "fit.xla: not compiled, batch statistics cross the replicas; strategy.sync_batch_norm=false compiles"
        )
    loop = Loop(
        model,
        TrainGraph(step, feed),
        _validation(step, config, dataset, batches),
        plan,
        callback_list(model, callbacks, epochs=math.ceil(plan.total_steps / batches.steps), steps=batches.steps),
        observers=_observers(config, model, home, screen, table) if writer else (),
        stop=AgreedStop(stop) if workers.several() else stop,
    )
    state = train_state(model, augment.layers if augment else None)
    if origins and isinstance(config.init, CheckpointInitConfig) and config.init.optimizer:
        take_slots(state.slots, state.shared["optimizer/iteration"], config.init, origins)
    if home:
        loop.checkpoints = Checkpoints(
            home.checkpoints,
            config.checkpoint,
            state=state,
            texts=Texts(model_json(model), to_yaml(config), classes_by_variable(model), versions.about(origins)),
            monitor=monitor,
            callbacks=callbacks,
            say=screen.say,
            agree=agreement(config, say=screen.say),
            writes=writer,
        )
        loop.progress = loop.checkpoints.restore()
        same_start(loop.progress.step, home.checkpoints)
        if writer:
            home.config.write_text(to_yaml(config), "utf-8")
        if loop.progress.step:
            screen.say(f"going on from {loop.checkpoints.last} of {plan.total_steps} steps")
    return loop


LAYER_COLUMNS = ("layer", "class", "output", "parameters")


def _export(config: RunConfig, model: keras.Model, dataset: Dataset, home: Home | None, screen: Screen) -> None:
    if home and config.checkpoint.export_keras is Export.best:
        path = export_best(model, home.checkpoints, home.best_model, example=example_of(dataset.train)[0])
        screen.say(f"the best model is also in {path}, for plain Keras")


def _validation(step: Step, config: RunConfig, dataset: Dataset, batches: Batches) -> EvaluationGraph | None:
    if dataset.validation is None:
        return None
    batch = config.fit.validation_batch or batches.batch
    own = batches_of(dataset.validation, batch, batches.replicas)
    return EvaluationGraph(step, feed_of(dataset.validation, own, in_file_order, config.data.resident))


def _augmentation(config: RunConfig, dataset: Dataset) -> Augmentation | None:
    layers = augmentation(config.data, dataset.inputs, seed=config.seed)
    return None if layers is None else Augmentation(layers, tuple(image_inputs(dataset.inputs)))


def _observers(
    config: RunConfig, model: keras.Model, home: Home | None, screen: Screen, table: Sequence[Sequence[str]]
) -> list[Observer]:
    observers: list[Observer] = [ShowProgress(screen)]
    if home is None:
        return observers
    observers.append(JsonLines(home.metrics))
    if config.log.dream.layers:
        events = home.tensorboard / "dreams"
        observers.append(Dreams(model, config.log.dream, pictures=home.dreams, events=events, seed=config.seed))
    if config.log.tensorboard:
        texts = {"config": to_yaml(config), "layers": plain_table(model.name, LAYER_COLUMNS, table)}
        observers.append(TensorBoard(home.tensorboard, texts=texts, histograms_every=config.log.histograms_every))
    return observers


def _marked(config: RunConfig, home: Home | None, team: Team | None) -> AbstractContextManager[None]:
    return marked(home, command=commands(config, home)["go on"]) if home and writes(team) else nullcontext()


def _dry(config: RunConfig) -> RunConfig:
    return replace(config, fit=replace(config.fit, steps=1, epochs=1), run=None)


def _total_steps(config: RunConfig, batches: Batches) -> int:
    return config.fit.steps or config.fit.epochs * batches.steps


def _refuse_unsuited(config: RunConfig, dataset: Dataset) -> None:
    problems = config.objective.kinds_problems({name: kind.value for name, kind in dataset.kinds.items()})
    if len(dataset.outputs) > 1 and config.objective.class_weights:
        problems.append(f"objective.class_weights: for one output, and the data has {', '.join(dataset.outputs)}")
    if problems:
        raise ConfigError(problems)


def _refuse_uneven(config: RunConfig, replicas: int) -> None:
    problems = batch_problems(config.fit, replicas)
    if problems:
        raise ConfigError(problems)
