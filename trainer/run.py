"""A whole run, on one screen: configuration, devices, data, model, weights, training, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import keras

import nameplate
from nameplate.arguments import checked
from nameplate.data.adapters import batches_of, example_of, first_inputs
from nameplate.data.config import SyntheticConfig
from nameplate.data.dataset import Dataset
from nameplate.data.registry import balanced_classes, open_dataset
from nameplate.data.standardize import adapt, moments_of_run
from nameplate.data.targets import resolver
from nameplate.engine.compile import compile_model
from nameplate.engine.coordinator import Coordinator
from nameplate.engine.learning_rate import describe_rates
from nameplate.engine.objects import refuse_unusable
from nameplate.engine.signals import StopRequest
from nameplate.engine.strategy import describe, make_strategy
from nameplate.errors import NameplateError, configured, training
from nameplate.io.save import round_trip
from nameplate.section import ConfigError
from nameplate.training.best_model import export_best
from nameplate.training.callbacks import early_end
from nameplate.training.config import CheckpointInitConfig, CustomInitConfig, Export, NamedInitConfig
from nameplate.training.console import Screen
from nameplate.training.damaged_data import usable
from nameplate.training.initial_weights import Origins, function_of, made_weights, take_weights
from nameplate.training.objects import train_objects
from nameplate.training.observers import Observer
from nameplate.training.report import Report
from nameplate.training.run_directory import RunDirectory, marked, open_run_directory
from nameplate.training.shared_run import coordinator_of, lost_workers, shared_home, writes
from nameplate.training.stages import stages_of
from nameplate.weights.plan import COLUMNS, WeightPlan
from trainer.config import run_config, to_yaml
from trainer.config.run_config import RunConfig
from trainer.job.assembly import Job, assemble
from trainer.job.edits import Source, refuse_unusable_layers
from trainer.job.model import (
    REPAIR,
    build_model,
    edited,
    model_of_file,
    output_problems,
    synchronise_batch_norm,
    with_scaling,
)
from trainer.job.preceding_runs import compare, make_preceding
from trainer.job.report import commands, finish
from trainer.ledger.leaderboard import locate
from trainer.models.config import ApplicationsConfig, FileModelConfig
from trainer.models.pretrained import load_pretrained, range_problem


@checked
def train(
    config: RunConfig | Sequence[str] | None = None,
    *,
    observers: Sequence[Observer] = (),
    model: keras.Model | None = None,
    data: Any = None,
    **objects: Any,
) -> Report:
    """Train as configured, or with live objects, from the start or from the run's last checkpoint.

    Args:
        config: the overrides of a command line, e.g. ["model=resnet", "run=mine"]; or the whole run as a `RunConfig`.
        observers: of a configured run; notified of the start and the end, of steps and of what is measured.
        model: instead of `config`: a model, compiled or with `loss`, `optimizer` and `metrics` among the objects.
        data: what `nameplate.fit` takes.
        **objects: `run="runs/mine"`, and the other arguments of `nameplate.fit` and `model.compile`.

    Returns:
        What came of it: the model with its best weights, the history, the run.

    Raises:
        ConfigError: a configuration that cannot be used, with every problem, before anything is touched.
        NameplateError: whatever else is refused before training: devices, data, names, a run that is in use.
        NotFiniteError: the loss became NaN or infinite.
        StoppedError: a signal came; everything is saved.
    """
    if model is not None or data is not None or objects:
        if config is not None:
            raise NameplateError("give a configuration, or model=..., data=... and other objects; not both")
        return train_objects(model, data, **objects)
    if not isinstance(config, RunConfig):
        config = run_config(_overrides(config))
    return _train(_dry(config.check()) if config.dry_run else config.check(), observers)


def _overrides(config: Any) -> list[str]:
    """Return overrides as a list; raise `NameplateError` for anything else."""
    given = [] if config is None else config
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise NameplateError(f'config={config!r:.80}: a RunConfig, or a list of overrides such as ["model=mlp"]')
    return list(given)


def _train(config: RunConfig, observers: Sequence[Observer]) -> Report:
    with (
        configured(),
        coordinator_of(config.strategy, config=to_yaml(config)) as coordinator,
        shared_home(_home(config, screen := Screen(quiet=not writes(coordinator))), coordinator) as home,
        StopRequest() as stop,
        _marked(config, home, coordinator),
    ):
        for line in home.moved if home else ():
            screen.say(line)
        make_preceding(config, home, screen, stop)
        config = _located(config, home)
        strategy = make_strategy(config.strategy)
        replicas = strategy.num_replicas_in_sync
        screen.say(f"{describe(strategy)}; {config.fit.precision} precision; seed {config.seed}")
        keras.utils.set_random_seed(config.seed)  # for custom data that draws random numbers
        refuse_unusable(config.named_objects(), trust=config.trust)
        refuse_unusable_layers(config.model.edits, Source(config.trust))
        if isinstance(config.init, CustomInitConfig) and (home is None or home.is_new()):
            function_of(config.init, config.trust)
        dataset = open_dataset(config.data, seed=config.seed, allow=resolver(config.trust))
        dataset = usable(config.data, dataset, screen, home=home, writes=writes(coordinator))
        dataset = balanced_classes(config.data, dataset)
        _refuse_unsuited(config, dataset)
        with strategy.scope():
            batches = batches_of(dataset.train, config.fit.global_batch, replicas, steps=config.fit.steps)
            job = Job(config, dataset, batches, home, screen, stop, writes(coordinator), tuple(observers))
            built = built_model(config, dataset)
            origins = pretrained_weights(job, built)
            model = named_model(config, dataset, built)
            stages = stages_of(config.init, epochs=job.epochs, say=screen.say)
            stages.prepare(model)
            scale_inputs(job, model)
            origins = kept(origins, model) | initial_weights(job, model)
            compile_for(job, model)
            _prove_export(job, model)
            loop = assemble(job, model, origins, stages)
            with training(), lost_workers(coordinator), loop.checkpoints or nullcontext():
                loop.run()
                _export(job, model)
        ended = early_end(loop.callbacks, loop.progress)
        report = finish(screen, config, model, loop.progress, home, loop.checkpoints, ended)
        compare(config, home, screen)
        return report


def built_model(config: RunConfig, dataset: Dataset) -> keras.Model:
    """Return the model that the option of the configuration makes; call it in the strategy's scope."""
    if isinstance(config.model, FileModelConfig):
        return model_of_file(
            config.model, dataset, trust=config.trust, precision=config.fit.precision, seed=config.seed
        )
    resolve = resolver(config.trust)
    return build_model(config.model, dataset, resolve=resolve, precision=config.fit.precision, seed=config.seed)


def named_model(config: RunConfig, dataset: Dataset, built: keras.Model | None = None) -> keras.Model:
    """Return the `built` model, or a new one, after its edits, under names that obey the policy, not compiled.

    Call it in the strategy's scope.
    """
    model = edited(
        built or built_model(config, dataset),
        config.model,
        dataset,
        naming=config.naming,
        source=Source(config.trust),
        precision=config.fit.precision,
        seed=config.seed,
    )
    if config.data.standardize:
        model = with_scaling(model, dataset.inputs, dataset.categories)
    model = nameplate.enforce(model, config.naming, remedy=REPAIR)
    if problems := output_problems(model, dataset, config.objective):
        raise ConfigError(problems)
    synchronise_batch_norm(model, synchronised=config.strategy.sync_batch_norm)
    return model


def scale_inputs(job: Job, model: keras.Model) -> None:
    """Give a new run's model the statistics of its training data, if that is configured; a resumed run has them.

    Raises:
        DataError: the data has none: NaN, or no end.
    """
    if job.config.data.standardize and job.begins:
        for line in adapt(model, moments_of_run(job.dataset)):
            job.screen.say(f"data: {line}")


def pretrained_weights(job: Job, model: keras.Model) -> Origins:
    """Load the weights that `model` names into a new run's backbone; return their origins. A resumed run needs none."""
    config = job.config.model
    if not job.begins or not isinstance(config, ApplicationsConfig):
        return {}
    if config.weights is not None and job.config.data.standardize:
        raise ConfigError(["data.standardize: the model scales images as its weights need it; leave it out"])
    if config.weights is not None and not isinstance(job.config.data, SyntheticConfig):
        images = next(iter(first_inputs(job.dataset.train).values()))
        if problem := range_problem(float(images.min()), float(images.max())):
            raise ConfigError([problem])
    plan = load_pretrained(model, config, say=job.screen.say)
    if plan:
        account_for(plan, job)
    return {f"{config.backbone}/{name}": origin for name, origin in plan.origins().items()} if plan else {}


def kept(origins: Origins, model: keras.Model) -> Origins:
    """Return the origins of the variables that edits and the policy have left under their names."""
    variables = nameplate.variables(model)
    return {name: origin for name, origin in origins.items() if name in variables}


def initial_weights(job: Job, model: keras.Model) -> Origins:
    """Load the weights that `init` names into a new run's model; return their origins. A resumed run needs none."""
    init, config = job.config.init, job.config
    if not job.begins or not isinstance(init, NamedInitConfig):
        return {}
    made = None
    if isinstance(init, CustomInitConfig):
        made = made_weights(model, init, trust=config.trust, seed=config.seed)
    return take_weights(model, init, made=made, show=job.screen.table, account=lambda plan: account_for(plan, job))


def account_for(plan: WeightPlan, job: Job) -> None:
    """Print what became of the weights of a source: how many were taken and left, and if that is configured, each."""
    job.screen.say(f"initial weights from {plan.source}: {plan.total()}")
    if job.config.log.weight_table:
        job.screen.table(f"initial weights from {plan.source}", COLUMNS, plan.rows())


def _prove_export(job: Job, model: keras.Model) -> None:
    """Check before training that the model can be exported at the end, if that is configured.

    Raises:
        NameplateError: the model cannot be saved whole; the message has the line to add.
    """
    if job.home and job.config.checkpoint.export_keras is Export.best:
        round_trip(model)


def compile_for(job: Job, model: keras.Model) -> None:
    """Compile a model as configured; its names are frozen."""
    rates = compile_model(
        model,
        optimizer=job.config.optimizer,
        schedule=job.config.schedule,
        objective=job.config.objective,
        precision=job.config.fit.precision,
        steps=job.total_steps,
        example=example_of(job.dataset.train),
        trust=job.config.trust,
    )
    if job.config.optimizer.rates:
        job.screen.say(describe_rates(job.config.optimizer.rates, rates))


def _located(config: RunConfig, home: RunDirectory | None) -> RunConfig:
    """Return the configuration with the path of a new run's initial weights, which may be given by name."""
    begins = home is None or home.is_new()
    if not begins or not isinstance(config.init, CheckpointInitConfig):
        return config
    path = locate(config.init.path, which=config.init.from_, runs=config.runs)
    return replace(config, init=replace(config.init, path=path))


def _export(job: Job, model: keras.Model) -> None:
    if job.home and job.config.checkpoint.export_keras is Export.best:
        example = example_of(job.dataset.train)[0]
        exported = export_best(
            model,
            job.home.checkpoints,
            job.home.best_model,
            example=example,
            steps=job.total_steps,
            rates=bool(job.config.optimizer.rates),
        )
        job.screen.say(exported.notes())


def _home(config: RunConfig, screen: Screen) -> AbstractContextManager[RunDirectory | None]:
    """Return the run's directory, to be entered; a dry run has none."""
    if config.dry_run:
        return nullcontext()
    return open_run_directory(
        config.runs, config.run, resume=config.resume, checkpoint=config.checkpoint, say=screen.say
    )


def _marked(
    config: RunConfig, home: RunDirectory | None, coordinator: Coordinator | None
) -> AbstractContextManager[None]:
    return marked(home, command=commands(config, home)["resume"]) if home and writes(coordinator) else nullcontext()


def _dry(config: RunConfig) -> RunConfig:
    return replace(config, fit=replace(config.fit, steps=1, epochs=1), run=None)


def _refuse_unsuited(config: RunConfig, dataset: Dataset) -> None:
    """Refuse what depends on the data: losses that do not fit it."""
    kinds = {name: kind.value for name, kind in dataset.kinds.items()}
    problems = config.objective.kinds_problems(kinds)
    problems += config.objective.classes_problems(dataset.outputs, kinds)
    if problems:
        raise ConfigError(problems)
