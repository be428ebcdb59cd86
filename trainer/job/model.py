"""Models of a run: built as configured, or rebuilt from a checkpoint or a file, with weights."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint import location
from nameplate.data.dataset import Dataset, Field, Shapes, TargetKind
from nameplate.data.registry import open_dataset
from nameplate.data.standardize import inputs_to_scale, normalizations, with_normalizations
from nameplate.data.targets import TargetError, call, resolver
from nameplate.engine.config import Precision
from nameplate.engine.objective_config import ObjectiveConfig
from nameplate.errors import NameplateError
from nameplate.graph import model_weights
from nameplate.graph.tree import seeds
from nameplate.io.load_model import within_budget
from nameplate.naming.policy import Policy
from nameplate.section import ConfigError
from nameplate.training.data_record import DataRecord, stored_record, stored_shapes
from nameplate.training.script_settings import CALL
from trainer.config import from_yaml, stored_config
from trainer.config.run_config import RunConfig
from trainer.job.edits import Source, apply_edits
from trainer.models.config import CustomModelConfig, FileModelConfig, ModelConfig

_OWN_CLASSES = "trainer.models.subclassed"
REPAIR = "Or run with naming=repair to take these names."


def build_model(
    config: ModelConfig, dataset: Dataset | Shapes, *, precision: Precision, seed: int, resolve: Callable[[str], Any]
) -> keras.Model:
    """Return the model of a configuration for this data, with weights initialized from the seed.

    A custom callable is offered `inputs` (name to shape), `outputs` (name to units), `input_shape`, `classes` and
    `seed`, and gets those that it has parameters for.

    Raises:
        TargetError: the callable is not trusted, does not exist, or does not return a model.
    """
    shapes = {name: field.shape for name, field in dataset.inputs.items()}
    offered = {
        "inputs": shapes,
        "outputs": dict(dataset.outputs),
        "input_shape": next(iter(shapes.values())),
        "classes": next(iter(dataset.outputs.values())),
        "seed": seed,
    }
    if isinstance(config, FileModelConfig):
        raise NameplateError(f"model=file: {config.path!r} is read by a run alone, not from its configuration")
    build = resolve(config._target_)
    keras.utils.set_random_seed(seed)
    with _policy(precision):
        model = call(build, config._target_, offered=offered, given=_given(config, build))
    if not isinstance(model, keras.Model):
        raise TargetError(f"{config._target_} returned {type(model).__name__}; it must return a keras.Model")
    return _prepared(model, dataset, seed=seed)


def model_of_file(
    config: FileModelConfig, dataset: Dataset, *, precision: Precision, seed: int, trust: Sequence[str]
) -> keras.Model:
    """Return the model in a file with its weights; its random layers draw from the run's seed.

    Raises:
        ConfigError: there is no such file, it may not be built, or its layers compute in another precision.
    """
    if not Path(config.path).exists():
        raise ConfigError([f"model.path: nothing at {config.path!r}; give a .keras file, a run or a checkpoint"])
    try:
        model = nameplate.load(config.path, custom_objects=_classes_of([_OWN_CLASSES, *trust]), trust="keras" in trust)
    except NameplateError as error:
        raise ConfigError(
            [f"model.path: {error}\n  Classes of yours: trust=[PACKAGE] imports the package that registers them."]
        ) from None
    if not isinstance(model, keras.Model):
        raise ConfigError(
            [f"model.path: {config.path!r} has weights but no model; model=... init=checkpoint init.path={config.path}"]
        )
    computed = sorted({layer.dtype_policy.name for layer in nameplate.layers(model).values() if layer.weights})
    if computed not in ([], [precision.value]):
        raise ConfigError(
            [f"fit.precision: the layers of {config.path!r} compute in {', '.join(computed)}, not in {precision.value}"]
        )
    return _prepared(model, dataset, seed=seed)


def edited(
    model: keras.Model,
    config: ModelConfig,
    dataset: Dataset | Shapes,
    *,
    precision: Precision,
    seed: int,
    naming: Policy,
    source: Source,
) -> keras.Model:
    """Return a built model after the edits of its configuration; random layers have the seeds of their new names.

    Raises:
        ConfigError: with every edit that cannot be made.
    """
    if not config.edits:
        return model
    with _policy(precision):
        model = apply_edits(model, config.edits, heads=dataset.outputs, seed=seed, naming=naming, source=source)
    return _prepared(model, dataset, seed=seed)


def with_scaling(
    model: keras.Model, inputs: Mapping[str, Field], categories: Mapping[str, Sequence[str]]
) -> keras.Model:
    """Return a model with the layers of `data.standardize` behind its inputs; they scale nothing yet.

    Raises:
        ConfigError: no input can be scaled, the model is not a graph of layers, or it has such layers already.
    """
    chosen = inputs_to_scale(inputs, categories)
    if own := normalizations(model):
        raise ConfigError(
            [
                f"data.standardize: the model scales its inputs already, in {', '.join(own)}; "
                "data.standardize=false keeps that"
            ]
        )
    try:
        return with_normalizations(model, chosen)
    except NameplateError as error:
        raise ConfigError([f"data.standardize: {error}; scale the data itself, or choose another model"]) from None


@contextmanager
def _policy(precision: Precision) -> Iterator[None]:
    """Inside, new layers compute in this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision.value)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _classes_of(packages: Sequence[str]) -> dict[str, Any]:
    """Return the classes and functions that trusted packages register with Keras, by both of their names."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise NameplateError(f"trust: {package}: cannot be imported: {error}") from None
    own = {
        name: each
        for name, each in keras.saving.get_custom_objects().items()
        if any(f"{each.__module__}.".startswith(f"{package}.") for package in packages)
    }
    return own | {each.__name__: each for each in own.values()}


def _prepared(model: keras.Model, dataset: Dataset | Shapes, *, seed: int) -> keras.Model:
    # Keras counts a subclassed model as built after `build(shape)`, even if its layers have no variables yet.
    if not model.built or not all(getattr(layer, "built", True) for layer in nameplate.layers(model).values()):
        _symbolic_outputs(model, dataset)
    _seed_layers(model, seed)
    return model


def _given(config: ModelConfig, build: Callable[..., Any]) -> dict[str, Any]:
    """Return the configured arguments; if an option's `_target_` was replaced, only those that the new one takes."""
    given = config.arguments_for_build()
    if config._target_ == type(config)._target_ or isinstance(config, CustomModelConfig):
        return given
    return {name: value for name, value in given.items() if name in inspect.signature(build).parameters}


def synchronise_batch_norm(model: keras.Model, *, synchronised: bool) -> int:
    """Set whether batch statistics span all replicas or one; return the number of layers that have them."""
    every = nameplate.layers(model).values()
    layers = [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.synchronized = synchronised
    return len(layers)


def output_problems(model: keras.Model, dataset: Dataset, objective: ObjectiveConfig) -> list[str]:
    """Return the outputs whose width does not fit their target: fewer units than classes, or another width of values.

    More units than classes are fine: the model may have been trained for more.
    """
    problems = []
    shapes = _output_shapes(model, dataset)
    for name, units in dataset.outputs.items():
        output = name if name in shapes else next(iter(shapes))
        width = shapes[output][-1] if len(shapes[output]) > 1 else None
        if width is None or (output != name and len(shapes) > 1):  # unknown, or a name that is refused elsewhere
            continue
        needs = objective.needs(output)
        classes = dataset.kinds[name] is TargetKind.CLASSES
        if (classes and needs == "classes" and width < units) or (not classes and needs == "values" and width != units):
            has = f"{units} classes" if classes else f"values of width {units}"
            problems.append(
                f"model: the output {output!r} has {width} unit{'s' if width != 1 else ''}, and the target {name!r} "
                f"has {has}; its last layer needs {units} units"
            )
    return problems


def _output_shapes(model: keras.Model, dataset: Dataset) -> dict[str, tuple[int | None, ...]]:
    names, tensors = getattr(model, "output_names", None), getattr(model, "outputs", None)
    if names and tensors:
        return {name: tuple(tensor.shape) for name, tensor in zip(names, tensors, strict=True)}
    outputs = _symbolic_outputs(model, dataset)
    named = outputs if isinstance(outputs, dict) else {"output": keras.tree.flatten(outputs)[0]}
    return {name: tuple(tensor.shape) for name, tensor in named.items()}


def _symbolic_outputs(model: keras.Model, dataset: Dataset | Shapes) -> Any:
    """Call a model on KerasTensors of the data's shapes, which builds a subclassed one; return its KerasTensors."""
    inputs = {
        name: keras.KerasTensor((None, *field.shape), field.dtype, name=name) for name, field in dataset.inputs.items()
    }
    # Nothing is computed; the layers only learn their shapes.
    example = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    try:
        return model(example)
    except NameplateError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        shapes = ", ".join(f"{name} {field.shape}" for name, field in dataset.inputs.items())
        raise NameplateError(f"{model.name!r} cannot be built for the data ({shapes}): {reason}") from error


def _seed_layers(model: keras.Model, seed: int) -> None:
    """Seed every random layer from the run's seed and its own name, unless it was built with a seed."""
    for name, generator in seeds(model).items():
        if generator.get_config()["seed"] is None:
            start = zlib.crc32(f"{seed}/{name}".encode())
            generator.state.assign(np.array([start, 0], dtype=generator.state.dtype))


@dataclass(frozen=True)
class Rebuilt:
    """A model, and its origin."""

    model: keras.Model
    origin: str  # path of the file or checkpoint
    step: int | None  # of a checkpoint
    data: Callable[[], Dataset] | None  # opens the data of a run; raises as `open_dataset`
    config: RunConfig | None = None  # of a configured run
    data_record: DataRecord = field(default_factory=DataRecord)  # of a configured run


def rebuild(path: str, *, trust: Sequence[str] = ()) -> Rebuilt:
    """Return the model at `path`: a `.keras` file, a run (its newest checkpoint), or one checkpoint.

    A checkpoint's description of its model is read as data: only the project's own architectures are built, and what
    the packages in `trust` define. Weights are assigned by name. The run's data is opened only if the checkpoint does
    not have the shapes of the model, which is so for subclassed models of earlier versions.

    For a `.keras` file the packages in `trust` are imported, so that the classes which they register are known.

    Raises:
        NameplateError: there is nothing at `path`, its model may not be built, or its weights do not fit.
    """
    if Path(path).is_file() and Path(path).suffix:  # a pointer such as `latest` is a file too
        return Rebuilt(_loaded(path, trust), path, None, None)
    place = location.find_one(path)
    with store.open(place) as checkpoint:
        if CALL in from_yaml(checkpoint.config):  # a script's: its model is described by `model.json` alone
            return Rebuilt(_loaded(str(place), trust), str(place), checkpoint.step, None)
        config = stored_config(checkpoint.config, unchecked="data")
        resolve = resolver(tuple(trust), stored=True)

        def data() -> Dataset:
            return open_dataset(config.check().data, seed=config.seed, allow=resolve)

        if isinstance(config.model, FileModelConfig):  # the checkpoint describes it too; nothing elsewhere is opened
            return Rebuilt(_loaded(str(place), trust), str(place), checkpoint.step, data)
        shapes, record = stored_shapes(checkpoint) or _shapes_of_data(data, place), stored_record(checkpoint)
        given: dict[str, Any] = {"precision": config.fit.precision, "seed": config.seed}
        with within_budget(place):
            model = build_model(config.model, shapes, resolve=resolve, **given)
            source = Source(tuple(trust), stored=True)
            model = edited(model, config.model, shapes, naming=config.naming, source=source, **given)
            if config.data.standardize:
                model = with_scaling(model, shapes.inputs, record.categories)
        model = nameplate.enforce(model, config.naming, remedy=REPAIR)
        model_weights.write(model, model_weights.read(model) | checkpoint.weights.load())
        return Rebuilt(model, str(place), checkpoint.step, data, config, record)


def _shapes_of_data(data: Callable[[], Dataset], place: Path) -> Dataset:
    try:
        return data()
    except NameplateError as error:
        raise NameplateError(
            f"{place} does not have the shapes of its model. They come from the run's data, which cannot be opened "
            f"here: {error}\n"
            "Where the data is available, write the model with checkpoint.export_keras=best and use that .keras file."
        ) from error


def _loaded(path: str, trust: Sequence[str]) -> keras.Model:
    for package in trust:
        try:
            import_module(package)
        except ImportError as error:
            raise NameplateError(f"--trust {package}: cannot be imported: {error}") from None
    model = nameplate.load(path, custom_objects=_classes_of([_OWN_CLASSES]), trust=bool(trust))
    if not isinstance(model, keras.Model):
        raise NameplateError(f"{path} has weights but no model; name a .keras file, a run or a checkpoint")
    return model
