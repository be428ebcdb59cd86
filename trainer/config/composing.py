"""`run_config` and `application`: overrides composed by Hydra into a RunConfig; and shell completion."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from glob import glob
from io import StringIO
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from trainer.config.hydra_private import child, declared_type
from trainer.config.hydra_queries import CONF, SEARCH, explained, first_line, quickly_composed, readable
from trainer.config.overrides import dotted_keys, key_of
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, classes_of, interpolated, run_schema, writable
from trainer.config.validation import (
    refuse_added,
    refuse_places,
    refuse_trust_before,
    refuse_trust_of_files,
    refuse_untyped,
)

# Settings of one call, which the command that resumes the run does not repeat.
ONCE = ("run", "resume", "resume_changed", "dry_run")


@checked
def run_config(overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration that these overrides select, read as `python -m trainer` reads them.

    Args:
        overrides: as on the command line: `["data=digits", "fit.epochs=3"]`.

    Raises:
        ConfigError: with every key, option and value that cannot be used, and the nearest that can.
    """
    if isinstance(overrides, str):
        raise NameplateError(f'overrides={overrides!r:.80}: a list of them is needed, such as ["model=mlp"]')
    register()
    overrides = readable(overrides)
    refuse_places(overrides)
    try:
        node = quickly_composed(overrides)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise explained(error, overrides) from None
    refuse_trust_of_files(node, overrides)
    return to_run_config(node)


def application(task: Callable[[RunConfig], None], overrides: Sequence[str]) -> None:
    """Run `task` as a Hydra application on `sys.argv`: `key=value`, `--cfg job`, completion.

    `trainer.sweep.multirun` is for command lines with several jobs.

    Raises:
        ConfigError: as `run_config`.
        NameplateError: what `task` raises.
    """
    failed: list[NameplateError] = []
    overrides = readable(overrides)
    register()
    # Hydra would print its own errors and exit with 1; with this variable it raises them instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
    def job(node: DictConfig) -> None:
        _running.append(True)
        try:
            refuse_trust_of_files(node, overrides)
            task(to_run_config(node))
        except NameplateError as error:  # kept from Hydra, which would print a message of its own
            failed.append(error)
        finally:
            _running.pop()

    sys.argv[1:] = overrides
    if is_completion(overrides):
        return _complete(job, overrides)
    refuse_places(overrides)
    try:
        job()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise explained(error, overrides) from None
    if failed:
        raise failed[0]
    return None


def to_run_config(node: DictConfig) -> RunConfig:
    """Return the frozen, checked configuration of a composed node.

    Raises:
        ConfigError: values of the wrong type, missing values, and the problems of the sections and their combination.
    """
    refuse_untyped(node)
    refuse_added(node)
    try:
        missing = sorted(key for key in OmegaConf.missing_keys(node) if not key.startswith("hydra."))
        if missing:
            raise ConfigError([f"{key}: required and not given; e.g. {_example(node, key)}" for key in missing])
        config = OmegaConf.to_object(node)
    except (OmegaConfBaseException, MissingMandatoryValue) as error:
        raise ConfigError([first_line(error)]) from None
    assert isinstance(config, RunConfig)
    refuse_trust_before(config)
    return replace(config, interpolated=dict(interpolated(node))).check()


def command_line() -> list[str] | None:
    """Return the overrides of the running job, without those of `ONCE`, or None outside a Hydra job.

    The search path beside conf/ comes first, with absolute places.
    """
    if _remembered:
        return [override for override in _remembered if key_of(override) not in ONCE]
    if not _running:
        return None
    job = HydraConfig.get()
    sources = [source for source in job.runtime.config_sources if "command-line" in source.provider]
    places = [f"{source.schema}://{source.path}" for source in sources]
    overrides = [override for override in job.overrides.task if key_of(override) not in ONCE]
    return [f"{SEARCH}=[{','.join(dict.fromkeys(places))}]", *overrides] if places else overrides


def remember(overrides: Sequence[str]) -> None:
    """Make `command_line` return these overrides: for a process that runs a job which another one composed."""
    _remembered[:] = overrides


_remembered: list[str] = []
_running: list[
    bool
] = []  # not empty inside a Hydra job; Hydra's own state outlives it, and would mislead a later `nameplate.train`


@cache  # Hydra copies a node that it takes from there
def register() -> None:
    """Store the schemas under their groups."""
    store = ConfigStore.instance()
    store.store(name="schema", node=run_schema())
    for group, schema in SCHEMAS.items():
        if isinstance(schema, dict):
            for option, own in schema.items():
                store.store(group=group, name=f"schema_{option}", node=writable(own))
        else:
            store.store(group=group, name="schema", node=writable(schema))


def _complete(job: Callable[[], None], arguments: Sequence[str]) -> None:
    """Print the completions that a shell asks for, or the script with which it will ask."""
    line = os.environ.get("COMP_LINE")
    if sys.argv[0].endswith(".py"):  # else Hydra would complete every call of `python`
        sys.argv[0] = "nameplate"
    if not asks_for_words(arguments, line):
        return job()
    with redirect_stdout(StringIO()) as offered:
        job()
    print(" ".join(completions(offered.getvalue().split(), line or "", _words_of())))
    return None


def _words_of() -> dict[str, list[str]]:
    """Return the words that each setting takes, for settings that are enumerations or truth values."""
    words_of = {setting.name: ["true", "false"] for setting in fields(RunConfig) if isinstance(setting.default, bool)}
    for group, schemas in SCHEMAS.items():
        for schema in classes_of(schemas):
            node = OmegaConf.structured(schema)
            for key in dotted_keys(node):
                section, _, name = key.rpartition(".")
                kind = declared_type(child(OmegaConf.select(node, section) if section else node, name))
                if isinstance(kind, type) and (kind is bool or issubclass(kind, Enum)):
                    words_of[f"{group}.{key}"] = ["true", "false"] if kind is bool else list(kind.__members__)
    return words_of


def _example(node: DictConfig, key: str) -> str:
    """Return an override that sets a missing key: the example in its field's metadata."""
    section, _, name = key.rpartition(".")
    schema = OmegaConf.get_type(node, section) if section else RunConfig
    examples = {own.name: own.metadata.get("example") for own in fields(schema)} if is_dataclass(schema) else {}
    return examples.get(name) or f"{key}=..."


COMPLETION = ("-sc", "--shell-completion")
SHELLS = ("bash", "fish", "zsh")
_FILES = ("path", "root", "runs")  # last words of keys whose value is a path


class CompletionError(NameplateError):
    """A request for shell completion that is not understood."""


def is_completion(arguments: Sequence[str]) -> bool:
    """Say whether a command line is a shell's request for completion."""
    return any(argument in COMPLETION for argument in arguments)


def asks_for_words(arguments: Sequence[str], line: str | None) -> bool:
    """Say whether a shell asks for the completions of a line, rather than for its script.

    Raises:
        CompletionError: neither; the message says what to write.
    """
    words = [word for word in arguments if word not in COMPLETION and not word.startswith("hydra.")]
    asked = [word.partition("=")[::2] for word in words]
    verbs = [(verb, shell) for verb, shell in asked if verb in ("install", "uninstall", "query")]
    usage = 'write  eval "$(nameplate -sc install=bash)"'
    if len(verbs) != 1:
        raise CompletionError(f"-sc needs install=SHELL or uninstall=SHELL; {usage}")
    ((verb, shell),) = verbs
    if shell not in SHELLS:
        raise CompletionError(
            f"-sc {verb}={shell}: there are {', '.join(SHELLS)}.{did_you_mean(shell, SHELLS)} For bash {usage}"
        )
    if verb == "query" and line is None:
        raise CompletionError(f"-sc query={shell}: only a shell asks for this, with the line in COMP_LINE; {usage}")
    return verb == "query"


def completions(offered: Sequence[str], line: str, words_of: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the completions of the last word of a line: no schemas, but the words of settings, and paths.

    Args:
        offered: the completions that Hydra offers.
        line: everything typed so far.
        words_of: the words that a setting takes, by its dotted key.
    """
    word = "" if line.endswith(" ") else (line.split() or [""])[-1]
    key, equals, begun = word.partition("=")
    if equals and key in words_of:
        return [f"{key}={value}" for value in words_of[key] if value.startswith(begun)]
    if equals and key.rpartition(".")[2].rpartition("_")[2] in _FILES:
        return [f"{key}={path}" for path in _paths(begun)]
    return [option for option in offered if not option.rpartition("=")[2].startswith("schema")]


def _paths(begun: str) -> list[str]:
    return sorted(f"{path}/" if Path(path).is_dir() else path for path in glob(f"{begun}*"))
