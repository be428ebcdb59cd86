"""A naming policy in a file: the fields of `nameplate.Policy` as YAML or JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from nameplate.checkpoint.files import read_regular
from nameplate.errors import FileFormatError, NameplateError
from nameplate.formats import limits, plain_yaml
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import Policy, named_policy

AnyPolicy: TypeAlias = Policy | str | os.PathLike[str]  # a policy, the name of a mode, or the path of a file
SUFFIXES = (".yaml", ".yml", ".json")


def policy_of(policy: AnyPolicy) -> Policy:
    """Return a policy, checked: itself, that of a mode, or the one in a file.

    Raises:
        NameplateError: for an unknown mode, a file that cannot be read, and with every setting that cannot be used.
    """
    if isinstance(policy, Policy):
        return named_policy(policy)
    if isinstance(policy, os.PathLike) or is_policy_file(policy):
        return read_policy(Path(policy))
    try:
        return named_policy(policy)
    except NameplateError as error:
        raise NameplateError(f"{error} Or give the path of a policy in a {' or '.join(SUFFIXES)} file.") from None


def is_policy_file(text: str) -> bool:
    """Return whether a text means a file, not a mode."""
    return text.casefold().endswith(SUFFIXES)


def read_policy(path: Path) -> Policy:
    """Return the policy in a file.

    Raises:
        FileFormatError: with everything that is not a setting of a policy, or that it cannot have.
    """
    settings = policy_settings(path)
    try:
        return named_policy(Policy(**settings))
    except NameplateError as error:
        raise FileFormatError(f"{path}: {error}") from None


def policy_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a policy file as plain data, under the names of the fields, before they are checked.

    Raises:
        FileFormatError: the file cannot be read, or has settings that no policy has.
    """
    data = _data(path)
    if not isinstance(data, Mapping):
        raise FileFormatError(f"{path}: a policy is a dictionary of settings, such as `mode: strict`")
    known = [field.name for field in fields(Policy)]
    unknown = [str(name) for name in data if name not in known]
    if unknown:
        lines = [f"  no setting {name!r}.{did_you_mean(name, known)}" for name in unknown]
        raise FileFormatError("\n".join([f"{path}: a policy has the settings {', '.join(known)}", *lines]))
    settings = {name: _keyed_by_text(value) for name, value in data.items()}
    if settings.get("mode") is False:  # YAML's reading of the word off
        settings["mode"] = "off"
    return settings


def _keyed_by_text(value: Any) -> Any:
    """Return a dictionary with its keys as text: `0` is a number in YAML, and here the depth "0"."""
    return {str(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else value


def _data(path: Path) -> Any:
    try:
        data = read_regular(path, most=plain_yaml.LARGEST + 1)
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise FileFormatError(f"{path}: there is no such file.{_nearby(path)}") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{path}: not text") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from None
    if path.suffix.casefold() == ".json":
        return limits.parsed(text, str(path), largest=plain_yaml.LARGEST)
    try:
        return plain_yaml.parsed(text)
    except ValueError as error:
        raise FileFormatError(f"{path}: not the YAML of a policy: {error}") from None


def _nearby(path: Path) -> str:
    there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, [name for name in there if is_policy_file(name)])
