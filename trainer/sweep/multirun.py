"""Hydra's multirun: the jobs of a command line, and the function that Hydra's launchers call for each of them.

The only module beside `trainer.config` that knows Hydra. A launcher may call `job_of_sweep` in another process or on
another machine: everything it needs is in the configuration that Hydra composes there.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from nameplate.errors import NameplateError
from nameplate.section import ConfigError
from trainer.config import (
    CONF,
    explained,
    options,
    readable,
    refuse_places,
    refuse_trust_of_files,
    register,
    search_of,
    to_run_config,
)
from trainer.config.hydra_private import only_jobs, parsed, split_grid
from trainer.config.overrides import key_of
from trainer.config.run_config import RunConfig
from trainer.ledger.record import State
from trainer.sweep.task import SweepJob, job_of, run_job

DEFAULT_NAME = "sweep"  # of a sweep without run=NAME

_OPTUNA, _DIRECTION = "optuna", "hydra.sweeper.direction"
_EXTRAS = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "optuna": "optuna", "ray": "ray"}
_GRID = "basic"  # Hydra's own sweeper and launcher; the jobs are known before the first starts
_RAISED = (HydraException, OmegaConfBaseException, YAMLError)


class JobFailedError(RuntimeError):
    """A failed job, raised for a sampler; it takes one argument, so that it can be pickled between processes."""


@dataclass(frozen=True)
class SweepRequest:
    """A command line that asks for several jobs."""

    arguments: tuple[str, ...]  # as `sys.argv[1:]` has them, readable by Hydra
    base: RunConfig  # without the swept overrides
    sweeper: str
    launcher: str
    direction: str | None  # minimize or maximize, if the command line sets it for a sampler
    overrides: tuple[str, ...]  # of the sweep, with those of the sweeper's own configuration
    plain: bool  # Hydra would only call one job after the other


def request_of(arguments: Sequence[str]) -> SweepRequest:
    """Return the request that a command line with `-m` makes.

    Raises:
        ConfigError: with every key, option and value that cannot be used.
    """
    arguments = readable(arguments)
    register()
    refuse_places(arguments)
    overrides = [word for word in arguments if not word.startswith("-") and "=" in word]
    fixed = [override for override in overrides if not _is_swept(override)]
    try:
        node = _composed([*search_of(arguments), *fixed], whole=True)
    except _RAISED as error:
        raise _not_installed(error) or explained(error, arguments) from None
    sweeper = node.hydra.sweeper
    own = [f"{key}={value}" for key, value in (OmegaConf.select(sweeper, "params") or {}).items()]
    _refuse_run(overrides)
    with_run = _named(to_run_config(_task(node)))
    directed = any(key_of(word) == _DIRECTION for word in arguments)
    return SweepRequest(
        tuple(arguments),
        with_run,
        str(node.hydra.runtime.choices["hydra/sweeper"]),
        str(node.hydra.runtime.choices["hydra/launcher"]),
        str(getattr(sweeper.direction, "name", sweeper.direction)) if directed else None,
        (*own, *(override for override in overrides if not key_of(override).startswith("hydra"))),
        node.hydra.runtime.choices["hydra/launcher"] == _GRID and not _asks_for_more(node.hydra),
    )


def grid_of(request: SweepRequest) -> list[SweepJob] | None:
    """Return the jobs of a grid in order; None if a sampler chooses them during the sweep.

    Raises:
        ConfigError: a job has a configuration that cannot be used.
    """
    if request.sweeper != _GRID:
        return None
    search = search_of(request.arguments)
    bases: dict[tuple[str, ...], DictConfig] = {}
    jobs = []
    for overrides in split_grid(request.overrides):
        try:
            node = _job_node(overrides, search, bases)
        except _RAISED as error:
            raise explained(error, [*search, *overrides]) from None
        jobs.append(job_of(_named(to_run_config(node)), overrides))
    return jobs


def launch(request: SweepRequest, jobs: Sequence[SweepJob] | None) -> None:
    """Have Hydra's launcher call `job_of_sweep` for each of these jobs, or for all that its sweeper chooses.

    A plain grid does without: Hydra's basic launcher would compose each job again, for a tenth of a second, and then
    call it in this process.

    Raises:
        ConfigError: as `request_of`.
        JobFailedError: the sweeper gives up, after more failures than it may tolerate.
    """
    # Hydra would print its own errors and exit with 1; with this variable it raises them instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if jobs is not None and request.plain:
        for job in jobs:
            run_job(job)
        return
    main = hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
    where = f"hydra.sweep.dir={_quoted(str(SweepJob(request.base, '', ()).directory / 'hydra'))}"
    sys.argv[1:] = [*request.arguments, *_unless_given(request, where), *_for_sampler(request)]
    try:
        # A grid's jobs have already been composed, for the ledger.
        with nullcontext() if jobs is None else only_jobs({job.overrides for job in jobs}):
            main(job_of_sweep)()
    except _RAISED as error:
        raise explained(error, request.arguments) from None


def _asks_for_more(settings: DictConfig) -> bool:
    """Say whether Hydra has to do something around each job."""
    return bool(settings.callbacks or settings.job.env_set or settings.job.chdir)


def job_of_sweep(node: DictConfig) -> float | None:
    """Run one job, as Hydra composed it, and return its best value.

    In a grid a failure is only recorded in the ledger, and the other jobs go on. For a sampler it is raised.
    """
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    sampled = job.runtime.choices["hydra/sweeper"] != _GRID
    refuse_trust_of_files(node, overrides)
    try:
        record = run_job(job_of(_named(to_run_config(node)), overrides))
    except NameplateError as error:
        raise JobFailedError(str(error)) from None
    if sampled and record.state is not State.done:
        raise JobFailedError(f"{record.job} {record.state}: {record.error or 'not run'}")
    if sampled and record.best is None:
        raise JobFailedError(f"{record.job} measured no value that a sampler could use")
    return record.best


def _named(config: RunConfig) -> RunConfig:
    return replace(config, run=config.run or DEFAULT_NAME)


def _job_node(overrides: Sequence[str], search: Sequence[str], bases: dict[tuple[str, ...], DictConfig]) -> DictConfig:
    """Return the node of a job. Composing takes a tenth of a second, so jobs with the same options share the result.

    Single values are set on a copy, which is also how Hydra applies them.
    """
    groups = options()
    plain = [override for override in overrides if _is_plain(override, groups)]
    others = tuple(override for override in overrides if override not in plain)
    if others not in bases:
        bases[others] = _task(_composed([*search, *others], whole=False))
    node = copy.deepcopy(bases[others])
    for override in map(parsed, plain):
        OmegaConf.update(node, override.key_or_group, override.value(), merge=True)
    return node


def _is_plain(override: str, groups: Mapping[str, object]) -> bool:
    key = override.partition("=")[0]
    return key == "seed" or ("." in key and key[0] not in "+~" and "@" not in key and key not in groups)


def _composed(overrides: Sequence[str], *, whole: bool) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="nameplate"):
        return compose("train", overrides=list(overrides), return_hydra_config=whole)


def _task(node: DictConfig) -> DictConfig:
    """Return a node without Hydra's own part."""
    if "hydra" not in node:
        return node
    own = copy.deepcopy(node)
    OmegaConf.set_struct(own, False)
    del own["hydra"]
    OmegaConf.set_struct(own, True)
    return own


def _is_swept(override: str) -> bool:
    try:
        return bool(parsed(override).is_sweep_override())
    except HydraException:
        return False


def _refuse_run(overrides: Iterable[str]) -> None:
    for override in overrides:
        if key_of(override) == "run" and (_is_swept(override) or "${" in override):
            raise ConfigError(
                [
                    f"{override}: in a sweep, run names the sweep, and each job has a directory in it, named by its "
                    "settings. Write run=NAME, or leave it out"
                ]
            )


def _unless_given(request: SweepRequest, override: str) -> list[str]:
    return [] if any(key_of(word) == key_of(override) for word in request.arguments) else [override]


def _for_sampler(request: SweepRequest) -> list[str]:
    """Return the settings of the Optuna sweeper: what is better, and that failed jobs do not end the sweep."""
    if request.sweeper != _OPTUNA:
        return []
    failures = [] if request.base.sweep.fail_fast else _unless_given(request, "hydra.sweeper.max_failure_rate=1.0")
    return [*failures, *([] if request.direction else [f"{_DIRECTION}={better(request)}"])]


def better(request: SweepRequest) -> str:
    """Return the direction in which the monitored value improves, in the sampler's word.

    Raises:
        ConfigError: no monitored value is set, or the command line sets the opposite direction.
    """
    monitor = request.base.checkpoint.monitor
    if monitor is None:
        raise ConfigError(
            [
                "checkpoint.monitor: required when a sampler chooses the jobs: the value to improve, "
                "e.g. checkpoint.monitor=val_accuracy"
            ]
        )
    meant = "maximize" if request.base.checkpoint.improves_upwards(monitor) else "minimize"
    if request.direction not in (None, meant):
        raise ConfigError(
            [f"{_DIRECTION}: {request.direction}, and {monitor} is {meant}d; leave it out, or set checkpoint.mode"]
        )
    return meant


def _not_installed(error: Exception) -> ConfigError | None:
    """Return the error of a launcher or sampler that is not installed; None if the error is another one."""
    match = re.search(r"hydra/(launcher|sweeper)/(\w+)", str(error))
    if match is None or "find" not in str(error).lower():
        return None
    kind, name = match.groups()
    extra = _EXTRAS.get(name)
    how = f"install it with pip install 'nameplate[{extra}]'" if extra else "is its plugin installed?"
    return ConfigError([f"hydra/{kind}={name}: no such {kind} is installed; {how}"])


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
