"""From the configuration of a job to the job: who it is, by the settings that decide its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from trainer.command_line.schemas import SCHEMAS
from trainer.config.run import RunConfig
from trainer.ledger.identity import SEED, identity, parted, settings_of
from trainer.sweep.task import Job


def job_of(config: RunConfig, overrides: Sequence[str]) -> Job:
    """Return the job of a configuration in which `run` names the sweep, and of the command line that gave it."""
    usual = _usual(tuple(type(getattr(config, each.name)) for each in _sections()))
    own, others = parted(resolved_settings(config), usual=usual)
    # What is in this process's environment is nothing that a ledger should tell: it has the words that were written.
    told = {key: config.interpolated.get(key, value) for key, value in own.items()}
    return Job(config, identity(own), tuple(overrides), told, others)


def resolved_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that decide a configuration's result, resolved, a group's option under the group's name."""
    tree = dataclasses.asdict(config)
    del tree["interpolated"]
    settings = settings_of(tree, distinct=config.sweep.distinct)
    for group, schemas in SCHEMAS.items():
        if isinstance(schemas, dict):
            chosen = type(getattr(config, group))
            settings[group] = next((name for name, each in schemas.items() if each is chosen), chosen.__name__)
    return settings


def _sections() -> list[dataclasses.Field[Any]]:
    return [each for each in dataclasses.fields(RunConfig) if each.name in SCHEMAS]


@cache
def _usual(sections: tuple[type, ...]) -> Mapping[str, Any]:
    """Return what every setting is when nothing is said, for sections of these classes: but for which these are."""
    names = (each.name for each in _sections())
    settings = resolved_settings(RunConfig(**{name: each() for name, each in zip(names, sections, strict=True)}))
    return {key: value for key, value in settings.items() if key != SEED and key not in SCHEMAS}
