"""What a run reports: before it trains what it will do, while it trains to observers, and what came of it."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence

import keras
import numpy as np

import nameplate
from nameplate.data.batches import Batches
from nameplate.data.dataset import Dataset, not_finite, summary
from nameplate.data.sanity import findings
from nameplate.data.standardize import normalizations
from nameplate.engine.cluster import LAUNCHED, LAUNCHER
from nameplate.engine.optimizer_state import named_variables
from nameplate.engine.replica import Step, crosses_replicas
from nameplate.interpret.dream_callback import Dreams
from nameplate.io.save import unsavable
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.console import Screen, in_words, plain_table, tool
from nameplate.training.fit import left_to_chance
from nameplate.training.layer_table import COLUMNS, layer_rows
from nameplate.training.monitor import numbers
from nameplate.training.observers import JsonLines, Observer, Profile
from nameplate.training.progress import Progress
from nameplate.training.progress_display import ShowProgress
from nameplate.training.report import Report
from nameplate.training.run_directory import RunDirectory
from nameplate.training.tensorboard import TensorBoard
from nameplate.training.trackers import Trackers
from trainer.config import command_line, overrides_of, to_yaml
from trainer.config.run_config import RunConfig


def describe(
    screen: Screen, config: RunConfig, dataset: Dataset, batches: Batches, step: Step, *, resumes: bool
) -> None:
    """Print what will be trained, and where that differs from what was asked for."""
    model, say = step.model, screen.say
    parts = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for line in summary(parts, dataset.classes, target=next(iter(dataset.outputs))):
        say(line)
    for name, layer in normalizations(model).items() if config.data.standardize else ():
        say(f"  {name}: {_moments(layer)}")
    for note in dataset.notes:
        say(f"data: {note}")
    if config.log.layer_table:
        screen.table(f"layers of {model.name}", COLUMNS, layer_rows(model))
    say(estimate_memory(model, batches))
    if keras.config.max_epochs() or keras.config.max_steps_per_epoch():
        say("keras.config's max_epochs and max_steps_per_epoch end no run; fit.epochs and fit.steps do")
    if reason := left_to_chance(dataset.train, resumes=resumes):
        say(f"data: {reason}")
    first_input, first_output = next(iter(dataset.inputs)), next(iter(dataset.outputs))
    for line in findings(dataset.train, model, classes=dataset.classes, input_name=first_input, target=first_output):
        say(f"data: {line}")
    for problem in not_finite(dataset):
        say(f"data: {problem}")
    for line in unsavable(model) if resumes else ():
        say(f"checkpoints hold the weights by name, but not the model: {line}")
    if step.is_users:
        say(
            "train_step is the model's own: on several replicas its losses must be means or sums over examples, not "
            "divided by the number of replicas; fit.xla does not reach it"
        )
    elif step.xla and crosses_replicas(model):
        say("fit.xla: not compiled, batch statistics cross the replicas; strategy.sync_batch_norm=false compiles")


def _moments(layer: keras.layers.Normalization) -> str:
    """Return the ranges of the means and deviations of a layer in a few words."""
    means, deviations = (keras.ops.convert_to_numpy(values) for values in (layer.adapt_mean, layer.adapt_variance))
    means, deviations = means.reshape(-1), np.sqrt(deviations.reshape(-1))
    if len(means) == 1:
        return f"the mean {means[0]:.4g} and the deviation {deviations[0]:.4g} of the training data"
    ranges = (f"{values.min():.4g} to {values.max():.4g}" for values in (means, deviations))
    return "{} features by the training data, means {}, deviations {}".format(len(means), *ranges)


def observers_of(
    config: RunConfig,
    home: RunDirectory | None,
    screen: Screen,
    model: keras.Model,
    callers: Sequence[Observer],
    *,
    classes: Mapping[str, Sequence[str]],
) -> list[Observer]:
    """Return the observers of a run: progress on the screen, files in its directory, and those of the caller.

    A dry run, which has no directory, shows its progress and nothing else.
    """
    observers: list[Observer] = [ShowProgress(screen, bar=screen.is_terminal)]
    log = config.log
    if home is None:
        return observers
    observers.append(JsonLines(home.metrics, say=screen.say))
    if log.dream.layers:
        events = home.tensorboard / "dreams"
        places = {"pictures": home.dreams, "events": events}
        observers.append(Dreams(model, log.dream, **places, seed=config.seed, classes=classes))
    if log.profile_steps:
        directory = home.tensorboard / "train"
        observers.append(Profile(directory, after=log.profile_after, steps=log.profile_steps, say=screen.say))
    if log.trackers:
        rows = layer_rows(model)
        observers.append(Trackers(home, log.trackers, to_yaml(config), columns=COLUMNS, layers=rows, say=screen.say))
    if log.tensorboard:
        texts = {"config": to_yaml(config), "layers": plain_table(model.name, COLUMNS, layer_rows(model))}
        observers.append(TensorBoard(home.tensorboard, texts=texts, histograms_every=log.histograms_every))
    return [*observers, *callers]


def finish(
    screen: Screen,
    config: RunConfig,
    model: keras.Model,
    progress: Progress,
    home: RunDirectory | None,
    checkpoints: Checkpoints | None,
    ended: Sequence[str] = (),
) -> Report:
    """Print why the run `ended` early, its directory, its results and the commands to continue; return the report."""
    history = dict(progress.history.get("values", {}))
    values = numbers({name: series[-1] for name, series in history.items() if series})
    if home is None or checkpoints is None:
        screen.say(f"dry run: one step of {model.name} works; nothing was written  {in_words(values)}")
        return Report(None, progress.step, None, None, values, history, model)
    for line in ended:
        screen.say(line)
    best = "" if progress.best is None else f", best {checkpoints.monitor} {progress.best:.4f}"
    screen.say(f"done: {progress.step} step{'s' if progress.step != 1 else ''} in {home.shown}{best}")
    for label, command in commands(config, home).items():
        screen.say(f"  {label:<12} {command}")
    return Report(home.path, progress.step, checkpoints.monitor, progress.best, values, history, model)


def commands(config: RunConfig, home: RunDirectory) -> dict[str, str]:
    """Return the commands to type next, by purpose."""
    look = {"look": f"{tool('tensorboard')} --logdir {shlex.quote(str(home.tensorboard))}"}
    return {
        "resume": again(config, run=home.path.name),
        **(look if config.log.tensorboard else {}),
        "checkpoints": f"{tool('ckpt')} ls {shlex.quote(home.shown)}",
    }


def again(config: RunConfig, *, run: str) -> str:
    """Return the command that resumes the run of this name, or a Python call if none can express the configuration."""
    overrides = command_line()
    if overrides is None:
        overrides = overrides_of(config)
    if overrides is None:
        return f"nameplate.train(dataclasses.replace(config, run={run!r}))"
    program = os.environ.get(LAUNCHER) or f"{tool('python')} -m trainer"
    if LAUNCHER in os.environ:
        overrides = [override for override in overrides if override != LAUNCHED]
    return " ".join([program, *map(shlex.quote, (*overrides, f"run={run}"))])


def estimate_memory(model: keras.Model, batches: Batches) -> str:
    """Return a line about the memory that training takes on each device; activations are an estimate."""
    by_name = nameplate.variables(model)
    variables = sum(map(_bytes, by_name.values()))
    gradients = sum(map(_bytes, model.trainable_variables))
    slots = sum(map(_bytes, named_variables(model.optimizer, by_name).values()))
    share = -(-batches.batch // batches.replicas)
    activations = share * sum(_output_bytes(layer) for layer in nameplate.layers(model).values())
    total = variables + gradients + slots + activations
    return (
        f"{model.count_params():,} parameters; about {_size(total)} of memory a replica:\n"
        f"  variables {_size(variables)}, gradients {_size(gradients)}, optimizer {_size(slots)}, "
        f"activations {_size(activations)} ({share} example{'s' if share != 1 else ''})"
    )


def _bytes(variable: keras.Variable) -> int:
    return int(math.prod(variable.shape)) * np.dtype(_numpy_dtype(variable.dtype)).itemsize


def _output_bytes(layer: keras.Layer) -> int:
    """Return the bytes of a layer's output for one example; 0 if it is unknown before the layer runs."""
    try:
        tensors = keras.tree.flatten(layer.output)
    except (AttributeError, ValueError):
        return 0
    sizes = [math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors]
    return sum(
        size * np.dtype(_numpy_dtype(tensor.dtype)).itemsize for size, tensor in zip(sizes, tensors, strict=True)
    )


def _numpy_dtype(dtype: str) -> str:
    """Return a NumPy dtype of the same width; NumPy has no bfloat16."""
    return "float16" if dtype == "bfloat16" else dtype


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
