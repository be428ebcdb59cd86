"""Hydra's configuration becomes a RunConfig here; nothing else knows Hydra.

The schemas are frozen dataclasses. OmegaConf makes a read-only node of a frozen dataclass, so the flag is lifted on
the stored schema, and `to_object` still gives frozen instances (hydra-core 1.3.8 with omegaconf 2.3.1).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from models.errors import NameplateError
from trainer.command_line import completion
from trainer.command_line.option_files import file_problem
from trainer.command_line.overrides import (
    dotted_keys,
    explain,
    flag_problems,
    key_of,
    no_such_key,
    null_problems,
    overrides_of,
    sweeps,
)
from trainer.command_line.schemas import SCHEMAS, base_of, classes_of, keys_of, lacks_schema, lacks_schema_of
from trainer.command_line.searchpath import FILE, merged, options_in, place_problems, root_of
from trainer.config.base import ConfigError
from trainer.config.run import RunConfig

CONF = Path(__file__).resolve().parent.parent / "conf"

OPTION = "_option_"

_SEARCH, _CONFIG_DIR = "hydra.searchpath", ("--config-dir", "-cd")

_RESOLVING = " raised while resolving interpolation: "  # in OmegaConf's words, before those that count

_SPELT = {"init.from": "init.from_"}  # a word of Python's own cannot be a field's name

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
        try:
            refuse_trust_of_files(node, overrides)
            task(to_run_config(node))
        except NameplateError as error:  # not through Hydra, which would print its own words beside ours
            failed.append(error)

    sys.argv[1:] = overrides
    if completion.asks(overrides):
        return _complete(job, overrides)
    refuse_places(overrides)
    try:
        job()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise explained(error, overrides) from None
    if failed:
        raise failed[0]
    return None


def _complete(job: Callable[[], None], arguments: Sequence[str]) -> None:
    """Answer a shell that wants to know how words go on, or give it the script that it asks with."""
    line = os.environ.get("COMP_LINE")
    if sys.argv[0].endswith(".py"):  # Hydra would complete every call of `python`
        sys.argv[0] = "nameplate"
    if not completion.checked(arguments, line):
        return job()
    with redirect_stdout(StringIO()) as offered:
        job()
    print(" ".join(completion.completions(offered.getvalue().split(), line or "", _words_of())))
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


def readable(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with quotes around values that Hydra's grammar cannot read bare, e.g. `run=zürich`."""
    parser = OverridesParser.create()

    def reads(override: str) -> bool:
        try:
            parser.parse_override(override)
        except HydraException:
            return False
        return True

    found = []
    for override in overrides:
        if key_of(override) in _SPELT:
            override = override.replace(key_of(override), _SPELT[key_of(override)], 1)
        key, equals, value = override.partition("=")
        quoted = f"{key}='{value}'"
        if value.startswith("[") and value.endswith("]"):
            quoted = f"{key}={_quoted_list(value[1:-1].split(','))}"
        needed = equals and not override.startswith("-") and not reads(override) and reads(quoted)
        found.append(quoted if needed else override)
    return found


def _quoted_list(values: Sequence[str]) -> str:
    return "[" + ",".join(f"'{each}'" for each in values) + "]"


def to_run_config(node: DictConfig) -> RunConfig:
    """Return the frozen, checked configuration of a composed node.

    Raises:
        ConfigError: values of a wrong type, missing values, and what the sections and their combination refuse.
    """
    _refuse_untyped(node)
    _refuse_added(node)
    try:
        missing = sorted(key for key in OmegaConf.missing_keys(node) if not key.startswith("hydra."))
        if missing:
            raise ConfigError([f"{key}: required and not given; e.g. {_example(node, key)}" for key in missing])
        config = OmegaConf.to_object(node)
    except (OmegaConfBaseException, MissingMandatoryValue) as error:
        raise ConfigError([_first_line(error)]) from None
    assert isinstance(config, RunConfig)
    _refuse_trust_before(config)
    return replace(config, interpolated=dict(_interpolated(node))).check()


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested plain data.

    A group with several options tells which one was chosen, under `_option_`. What was given as an interpolation stands
    there as it was written: what `${oc.env:TOKEN}` is in this process's environment is nothing that a checkpoint
    should tell.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    for group, schemas in SCHEMAS.items():
        if isinstance(schemas, dict):
            chosen = type(getattr(config, group))
            tree[group] = {OPTION: next((key for key, each in schemas.items() if each is chosen), "")} | tree[group]
    return _as_written(tree, config.interpolated)


def to_yaml(config: RunConfig) -> str:
    """Return the configuration of `to_plain` as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def defaults_of(config: RunConfig) -> dict[str, Any]:
    """Return what every setting is when nothing is said, for the options that `config` has chosen."""
    sections = {each.name: type(getattr(config, each.name))() for each in fields(config) if each.name in SCHEMAS}
    return to_plain(RunConfig(**sections))


def from_yaml(text: str) -> dict[str, Any]:
    """Return the configuration in a checkpoint as nested plain data; nothing in it is resolved or instantiated.

    Raises:
        ConfigError: the text is no configuration.
    """
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (OmegaConfBaseException, ValueError, YAMLError) as error:
        raise ConfigError([f"the stored configuration: {_first_line(error)}"]) from None
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def stored_config(text: str) -> RunConfig:
    """Return the configuration that a run or checkpoint holds as YAML text; nothing that it names is imported.

    Settings that this version does not know are left out, and those that it did not know have their defaults.

    Raises:
        ConfigError: the text is no configuration, or has values that cannot be used.
    """
    tree = from_yaml(text)
    known = [each.name for each in fields(RunConfig) if each.name not in SCHEMAS]
    # An interpolation stands there as it was written; no setting outside the sections says what was trained.
    plain = {name: tree[name] for name in known if name in tree and "${" not in str(tree[name])}
    try:
        # One tree, so that what refers to another key, as `${runs}`, finds it.
        whole = OmegaConf.create({name: _stored(name, tree.get(name)) for name in SCHEMAS} | plain)
        sections: Any = {name: OmegaConf.to_object(whole[name]) for name in SCHEMAS}
    except (OmegaConfBaseException, MissingMandatoryValue) as error:
        raise ConfigError([f"the stored configuration: {_first_line(error)}"]) from None
    return RunConfig(**sections, **plain).check()


def _stored(group: str, values: Any) -> DictConfig:
    """Return a section's node, of the option that was chosen."""
    schemas = SCHEMAS[group]
    given = dict(values) if isinstance(values, dict) else {}
    option = given.pop(OPTION, "")
    if isinstance(schemas, dict) and option not in schemas:
        raise ConfigError([f"the stored configuration: {group} is {option!r}, and there are {', '.join(schemas)}"])
    node = _writable(schemas[option] if isinstance(schemas, dict) else schemas)
    known = set(node)  # also what has no value yet, which `in` would leave out
    merged = OmegaConf.merge(node, {key: value for key, value in given.items() if key in known})
    assert isinstance(merged, DictConfig)
    return merged


def command_line() -> list[str]:
    """Return the overrides of the running job, without those of `ONCE`, or nothing outside a Hydra job.

    What it searches beside conf/ comes first, as it was found.
    """
    if _remembered:
        return [each for each in _remembered if key_of(each) not in ONCE]
    if not HydraConfig.initialized():
        return []
    job = HydraConfig.get()
    places = [f"{each.schema}://{each.path}" for each in job.runtime.config_sources if "command-line" in each.provider]
    overrides = [each for each in job.overrides.task if key_of(each) not in ONCE]
    return [f"{_SEARCH}=[{','.join(dict.fromkeys(places))}]", *overrides] if places else overrides


def remember(overrides: Sequence[str]) -> None:
    """Let `command_line` be this one: in a process that was started for a job, and has not composed it."""
    _remembered[:] = overrides


_remembered: list[str] = []


def register(arguments: Sequence[str] = ()) -> None:
    """Store every schema under its group, so that no option is untyped; `--help` lists the options for `arguments`."""
    OmegaConf.register_new_resolver("nameplate_options", lambda: _in_words(options(arguments)), replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=_run_schema())
    for group, schema in SCHEMAS.items():
        if isinstance(schema, dict):
            for option, each in schema.items():
                store.store(group=group, name=f"schema_{option}", node=_writable(each))
        else:
            store.store(group=group, name="schema", node=_writable(schema))


def options(arguments: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the options of every group: those of conf/, and of the places that a command line adds."""
    return merged([options_in(CONF), *(options_in(root_of(each)) for each in _places(arguments))])


def _in_words(groups: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(f"{group}: {', '.join(found)}" for group, found in groups.items())


def _run_schema() -> DictConfig:
    """Return RunConfig as a node whose sections are writable; each gets its type from the option that is chosen."""
    bases = {each.name: each.type for each in fields(RunConfig)}
    types = {name: schema if isinstance(schema, type) else base_of(schema) for name, schema in SCHEMAS.items()}
    assert types.keys() <= bases.keys()
    return _writable(RunConfig(**{name: each() for name, each in types.items()}))


def _writable(schema: Any) -> DictConfig:
    node = OmegaConf.structured(schema)
    _lift_readonly(node)
    return node


def _lift_readonly(node: DictConfig | ListConfig) -> None:
    OmegaConf.set_readonly(node, False)
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig | ListConfig):
                if OmegaConf.get_type(child) in (dict, None):
                    OmegaConf.set_struct(child, False)  # keys of the user's own, e.g. objective.losses={sum: huber}
                _lift_readonly(child)


def _interpolated(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of every value that is given as an interpolation."""
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if child._is_interpolation():
            yield f"{prefix}{key}", str(child._value())
        elif isinstance(child, DictConfig | ListConfig) and not child._is_none() and not child._is_missing():
            yield from _interpolated(child, f"{prefix}{key}.")


def _as_written(value: Any, written: Mapping[str, str], key: str = "") -> Any:
    if key in written:
        return written[key]
    inside = f"{key}." if key else ""
    if isinstance(value, dict):
        return {name: _as_written(each, written, f"{inside}{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_as_written(each, written, f"{inside}{index}") for index, each in enumerate(value)]
    return value


def _refuse_untyped(node: DictConfig) -> None:
    """Find options whose file forgot its schema: nothing would check their values."""
    untyped = [name for name, schemas in SCHEMAS.items() if OmegaConf.get_type(node, name) not in classes_of(schemas)]
    if untyped:
        raise ConfigError([f"{name}: {lacks_schema(name)}" for name in untyped])


def refuse_places(arguments: Sequence[str]) -> None:
    """Find places that a command line adds to conf/ and that cannot be searched, and options that there are not."""
    if problems := [*flag_problems(arguments), *place_problems(_places(arguments), conf=CONF)]:
        raise ConfigError(problems)
    if problems := null_problems(arguments, options(arguments)):
        raise ConfigError(problems)
    if _places(arguments):
        _refuse_hydra_of_files(arguments)


def _refuse_hydra_of_files(arguments: Sequence[str]) -> None:
    """Find what a file of the user's own has Hydra itself import, a callback for one: Hydra asks nobody for trust."""
    asked = any(key_of(each) == "trust" for each in arguments)
    found: dict[str, None] = {}
    for overrides in _each_choice(arguments):
        node, _ = _try([*search_of(arguments), *overrides], return_hydra_config=True)
        if node is not None:  # or it is told in its own words when it is composed to run
            plain: Any = OmegaConf.to_container(node.hydra, resolve=False)
            allowed = ("hydra.", "hydra_plugins.", "logging.", *(f"{each}." for each in (node.trust if asked else ())))
            found |= {
                f"{key}: {name!r}": None for key, name in _targets(plain, "hydra") if not name.startswith(allowed)
            }
    if found:
        raise ConfigError(
            [f"{each} is nothing that Hydra may import; trust=[...] on the command line" for each in found]
        )


def _each_choice(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides of one job after another until every option that a sweep chooses was in one."""
    asked = _others(arguments)
    first = [first_of_sweep(each) for each in asked]
    yield first
    for place, each in enumerate(asked):
        if key_of(each) in options(arguments):
            for other in each.partition("=")[2].split(",")[1:]:
                yield [*first[:place], f"{each.partition('=')[0]}={other}", *first[place + 1 :]]


def _others(arguments: Sequence[str]) -> list[str]:
    """Return the overrides among the arguments, without what is searched."""
    return [each for each in overrides_of(arguments) if key_of(each) != _SEARCH]


def _targets(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, name) of everything in a plain tree that Hydra, or the logging that it sets up, imports."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, each in inside:
        if name in ("_target_", "class", "()"):
            yield f"{key}.{name}", str(each)
        yield from _targets(each, f"{key}.{name}")


def _places(arguments: Sequence[str]) -> list[str]:
    """Return what a command line has searched for options beside conf/, as Hydra writes it.

    Raises:
        ConfigError: `hydra.searchpath` is no list.
    """
    found: list[str] = []
    for each, last in zip(arguments, ["", *arguments], strict=False):
        option, _, directory = each.partition("=")
        if last in _CONFIG_DIR or (option in _CONFIG_DIR and directory):
            found.append(f"{FILE}{os.path.abspath(each if last in _CONFIG_DIR else directory)}")
        elif "=" in each and key_of(each) == _SEARCH:
            value: Any = OverridesParser.create().parse_override(each).value()
            if not isinstance(value, list):
                raise ConfigError([f"{_SEARCH}: {value} is no list; write {_SEARCH}=[{value}]"])
            found += [str(getattr(place, "text", place)) for place in value]
    return found


def search_of(arguments: Sequence[str]) -> list[str]:
    """Return the override that searches what a command line adds to conf/; none where it adds nothing."""
    found = _places(arguments)
    return [f"{_SEARCH}={_quoted_list(found)}"] if found else []


def refuse_trust_of_files(node: DictConfig, overrides: Sequence[str]) -> None:
    """Find trust that a file of options gives to itself: what may be imported is for the command line to say."""
    if node.get("trust") and not any(key_of(each) == "trust" for each in overrides):
        named = ",".join(map(str, node.trust))
        raise ConfigError(
            [f"trust: a file of options sets it to [{named}]. It counts on the command line alone: trust=[{named}]"]
        )


def _refuse_trust_before(config: RunConfig) -> None:
    """Find trust for the runs before this one: they get its trust and its places, and none can have more."""
    found = [
        f"before.{name}: {each} is for the command line alone, which hands it on"
        for name, overrides in (config.before or {}).items()
        for each in overrides
        if each.startswith(("-", "hydra.")) or key_of(each) in ("trust", _SEARCH)
    ]
    if found:
        raise ConfigError(found)


def _refuse_added(node: DictConfig) -> None:
    """Find keys that `+key=value` put beside the fields of a section; no field would hold them."""
    added = list(_added(node))
    if added:
        known = sorted({*dotted_keys(node), *options()} - set(added))
        raise ConfigError([no_such_key(key, known) for key in added])


def _added(node: DictConfig, prefix: str = "") -> Iterator[str]:
    schema: Any = OmegaConf.get_type(node)
    known = {each.name for each in fields(schema) if not each.metadata.get("omegaconf_ignore")}
    for key in map(str, node):
        child = node._get_node(key)
        if key not in known:
            yield f"{prefix}{key}"
        elif isinstance(child, DictConfig) and is_dataclass(OmegaConf.get_type(child)):
            yield from _added(child, f"{prefix}{key}.")


def _example(node: DictConfig, key: str) -> str:
    """Return an override that gives a missing key, as its field's metadata has it."""
    section, _, name = key.rpartition(".")
    schema = OmegaConf.get_type(node, section) if section else RunConfig
    examples = {each.name: each.metadata.get("example") for each in fields(schema)} if is_dataclass(schema) else {}
    return examples.get(name) or f"{key}=..."


def first_of_sweep(override: str) -> str:
    """Return an override with the first of its values, or as it is where it has one."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            return override
        return f"{override.partition('=')[0]}={next(iter(parsed.sweep_string_iterator()))}"
    except HydraException:
        return override


def explained(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return what Hydra says as the problems of a command line, each with what was probably meant."""

    def attempt(some: Sequence[str]) -> tuple[DictConfig | None, str]:
        return _try([*search, *([first_of_sweep(each) for each in some] if sweeps(overrides) else some)])

    search = search_of(overrides)
    others = [each for each in overrides if key_of(each) != _SEARCH]
    return ConfigError(explain(others, options(overrides), attempt) or [_first_line(error, overrides)])


def _try(overrides: Sequence[str], **asked: bool) -> tuple[DictConfig | None, str]:
    """Compose with these overrides alone: the node, or None and what Hydra says."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="nameplate"):
        try:
            return compose("train", overrides=list(overrides), **asked), ""
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            return None, _first_line(error.__cause__ or error, overrides)


def _first_line(error: BaseException, arguments: Sequence[str] = ()) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: no YAML: {error.problem}"
    lines: list[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines[:1] = [each.partition(_RESOLVING)[2].strip("\"'") or each for each in lines[:1]]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    in_file = file_problem(key, lines, options=options(arguments), keys_of=keys_of, lacks_schema=lacks_schema_of)
    if in_file:
        return in_file
    return f"{key}: {lines[0]}" if key and lines else (lines[0] if lines else type(error).__name__)
