"""Hydra's configuration becomes a RunConfig."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from glob import glob
from io import StringIO
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from trainer.config.hydra_queries import CONF, SEARCH, explained, first_line, options, readable
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

# What one call of a job says about itself, and the call that goes on from it does not say again.
ONCE = ("run", "resume", "resume_changed", "dry_run")


def run_config(overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration that these overrides give, as `python -m trainer` would read them.

    Raises:
        ConfigError: with every key, option and value that cannot be used, and the nearest that can.
    """
    register()
    overrides = readable(overrides)
    refuse_places(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="nameplate"):
        try:
            node = compose("train", overrides=overrides)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise explained(error, overrides) from None
    refuse_trust_of_files(node, overrides)
    return to_run_config(node)


def application(task: Callable[[RunConfig], None], overrides: Sequence[str]) -> None:
    """Run `task` as a Hydra application on `sys.argv`: `key=value`, `--cfg job`, `--help`, completion.

    Several jobs are the business of `trainer.sweep.multirun`.

    Raises:
        ConfigError: as `run_config`.
        NameplateError: what `task` raises.
    """
    failed: list[NameplateError] = []
    overrides = readable(overrides)
    register(overrides)
    # Hydra would print its own errors and exit with 1; with this variable it raises them instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
    def job(node: DictConfig) -> None:
        _running.append(True)
        try:
            refuse_trust_of_files(node, overrides)
            task(to_run_config(node))
        except NameplateError as error:  # not through Hydra, which would print its own words beside ours
            failed.append(error)
        finally:
            _running.pop()

    sys.argv[1:] = overrides
    if asks(overrides):
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
        ConfigError: values of a wrong type, missing values, and what the sections and their combination refuse.
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

    What it searches beside conf/ comes first, as it was found.
    """
    if _remembered:
        return [each for each in _remembered if key_of(each) not in ONCE]
    if not _running:
        return None
    job = HydraConfig.get()
    places = [f"{each.schema}://{each.path}" for each in job.runtime.config_sources if "command-line" in each.provider]
    overrides = [each for each in job.overrides.task if key_of(each) not in ONCE]
    return [f"{SEARCH}=[{','.join(dict.fromkeys(places))}]", *overrides] if places else overrides


def remember(overrides: Sequence[str]) -> None:
    """Let `command_line` be this one: in a process that was started for a job, and has not composed it."""
    _remembered[:] = overrides


_remembered: list[str] = []
_running: list[bool] = []  # Hydra's own state stays after its job: it says nothing of a later `nameplate.train`


def register(arguments: Sequence[str] = ()) -> None:
    """Store every schema under its group, so that no option is untyped; `--help` lists the options for `arguments`."""
    OmegaConf.register_new_resolver("nameplate_options", lambda: _in_words(options(arguments)), replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=run_schema())
    for group, schema in SCHEMAS.items():
        if isinstance(schema, dict):
            for option, each in schema.items():
                store.store(group=group, name=f"schema_{option}", node=writable(each))
        else:
            store.store(group=group, name="schema", node=writable(schema))


def _in_words(groups: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(f"{group}: {', '.join(found)}" for group, found in groups.items())


def _complete(job: Callable[[], None], arguments: Sequence[str]) -> None:
    """Answer a shell that wants to know how words go on, or give it the script that it asks with."""
    line = os.environ.get("COMP_LINE")
    if sys.argv[0].endswith(".py"):  # Hydra would complete every call of `python`
        sys.argv[0] = "nameplate"
    if not checked(arguments, line):
        return job()
    with redirect_stdout(StringIO()) as offered:
        job()
    print(" ".join(completions(offered.getvalue().split(), line or "", _words_of())))
    return None


def _words_of() -> dict[str, list[str]]:
    """Return the words that each setting takes whose type has few: enumerations, and what is true or false."""
    found: dict[str, list[str]] = {}
    tops = {each.name: each.default for each in fields(RunConfig) if isinstance(each.default, bool)}
    found |= {name: ["true", "false"] for name in tops}
    for group, schemas in SCHEMAS.items():
        for schema in classes_of(schemas):
            node = OmegaConf.structured(schema)
            for key in dotted_keys(node):
                section, _, name = key.rpartition(".")
                kind = (OmegaConf.select(node, section) if section else node)._get_node(name)._metadata.ref_type
                if isinstance(kind, type) and (kind is bool or issubclass(kind, Enum)):
                    words = ["true", "false"] if kind is bool else list(kind.__members__)
                    found[f"{group}.{key}"] = [each for each in words if each != each.upper()]
    return found


def _example(node: DictConfig, key: str) -> str:
    """Return an override that gives a missing key, as its field's metadata has it."""
    section, _, name = key.rpartition(".")
    schema = OmegaConf.get_type(node, section) if section else RunConfig
    examples = {each.name: each.metadata.get("example") for each in fields(schema)} if is_dataclass(schema) else {}
    return examples.get(name) or f"{key}=..."


FLAGS = ("-sc", "--shell-completion")
SHELLS = ("bash", "fish", "zsh")
_FILES = ("path", "root", "runs")  # how keys end whose value is a place on the disk


class CompletionError(NameplateError):
    """A shell, or a way of asking, that is not known."""


def asks(arguments: Sequence[str]) -> bool:
    """Say whether a command line is a shell's, which wants to know how words go on."""
    return any(each in FLAGS for each in arguments)


def checked(arguments: Sequence[str], line: str | None) -> bool:
    """Return whether a shell asks for the words that complete a line, and not for the script that it asks with.

    Raises:
        CompletionError: neither; it says what to write.
    """
    asked = [each.partition("=")[::2] for each in arguments if each not in FLAGS and not each.startswith("hydra.")]
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
        raise CompletionError(f"-sc query={shell}: only a shell asks so, with the line in COMP_LINE; {usage}")
    return verb == "query"


def completions(offered: Sequence[str], line: str, words_of: Mapping[str, Sequence[str]]) -> list[str]:
    """Return how the last word of a line can go on.

    Args:
        offered: what Hydra offers.
        line: all that was typed.
        words_of: the words that a setting takes, by its dotted key.
    """
    word = "" if line.endswith(" ") else (line.split() or [""])[-1]
    key, equals, begun = word.partition("=")
    if equals and key in words_of:
        return [f"{key}={each}" for each in words_of[key] if each.startswith(begun)]
    if equals and key.rpartition(".")[2].rpartition("_")[2] in _FILES:
        return [f"{key}={each}" for each in _places(begun)]
    return [each for each in offered if not each.rpartition("=")[2].startswith("schema")]


def _places(begun: str) -> list[str]:
    return sorted(f"{each}/" if Path(each).is_dir() else each for each in glob(f"{begun}*"))
