"""What is wrong with a file of options, out of what Hydra says when it cannot compose it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from nameplate.naming.names import did_you_mean

_COMPOSING = re.compile(r"In '(?P<file>[^']+)': \w+ raised while composing config:")
_NO_KEY = re.compile(r"Key '(?P<key>[^']+)' (is )?not in '(?P<owner>\w+)'")
_NO_OPTION = re.compile(r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'")


def file_problem(
    key: str,
    lines: Sequence[str],
    *,
    options: Mapping[str, Sequence[str]],
    keys_of: Callable[[str], Collection[str]],
    lacks_schema: Callable[[str], str],
) -> str | None:
    """Return what is wrong with a file, and what would be right; None where no file is to blame.

    Args:
        key: the dotted key that Hydra's message tells, or nothing.
        lines: Hydra's message.
        options: of every group.
        keys_of: gives the keys of a dataclass of the configuration by its class's name.
        lacks_schema: gives what to say where a key belongs to no option's schema, by the class's name; or nothing.
    """
    missing = _NO_OPTION.search(lines[0]) if lines else None
    if missing is not None:
        return _no_option(missing["group"], missing["option"], options)
    composing = _COMPOSING.fullmatch(lines[0]) if len(lines) > 1 else None
    if composing is None:
        return None
    file, reason = f"{composing['file']}.yaml", lines[1]
    unknown = _NO_KEY.search(reason)
    if unknown is None:
        return f"{file}: {key}: {reason}" if key else f"{file}: {reason}"
    if unknown["key"] == file.partition("/")[0]:  # its values were put under its group's name
        return f"{file}: it changes several sections, and so its first line has to be  # @package _global_"
    known = keys_of(unknown["owner"])
    hint = did_you_mean(unknown["key"], known) or f" There are {', '.join(sorted(known))}" * bool(known)
    return f"{file}: {key}: no such key.{lacks_schema(unknown['owner']) or hint}"


def _no_option(group: str, option: str, options: Mapping[str, Sequence[str]]) -> str:
    there = options.get(group, ())
    has = f" There are {', '.join(there)}" if there else f" There is no group {group}"
    return f"{group}={option}: no such option, and a file asks for it.{did_you_mean(option, there)}{has}"


FILE, PACKAGE = "file://", "pkg://"
_EXAMPLE = "hydra.searchpath=[file:///home/me/conf,pkg://my_package.conf]"


def options_in(root: Any) -> dict[str, list[str]]:
    """Return the options of every group under a directory, as its files name them: `{"model": ["mine"]}`.

    A file in a folder within a group is an option of it, `experiment/old/first.yaml` is `experiment=old/first`.
    """
    groups = {each.name: each for each in root.iterdir() if each.is_dir() and not each.name.startswith(("_", "."))}
    found = {name: sorted(_yaml(folder)) for name, folder in sorted(groups.items())}
    return {name: each for name, each in found.items() if each}


def root_of(place: str) -> Any:
    """Return the directory of a place: a path, or what stands for one inside an installed package.

    A package is imported for it, as Hydra does.

    Raises:
        ValueError: nothing is there; the message says what was looked for.
    """
    if place.startswith(PACKAGE):
        name = place.removeprefix(PACKAGE).strip("/").replace("/", ".")
        try:
            root = files(name)
        except (ImportError, ValueError, TypeError) as error:
            raise ValueError(f"no package {name!r} ({error}); is it installed, or on PYTHONPATH?") from None
        if root.is_dir() and not root.joinpath("__init__.py").is_file():  # Hydra 1.3 asks for one
            raise ValueError(f"{name!r} has no __init__.py; put an empty one beside its groups")
    elif "://" in place.removeprefix(FILE):
        raise ValueError(f"neither {FILE} nor {PACKAGE}; e.g. {_EXAMPLE}")
    else:
        root = Path(place.removeprefix(FILE))
    if not root.is_dir():
        raise ValueError(f"no directory {str(root)!r}{_near(root) if isinstance(root, Path) else ''}")
    return root


def place_problems(places: Sequence[str], *, conf: Path) -> list[str]:
    """Return each place that is not there, and each option that is in two places: the first would be used, silently.

    `conf` is the project's own directory, which comes before all places.
    """
    found: list[str] = []
    owners = dict.fromkeys(_names(conf), "Nameplate's own conf/")
    for place in dict.fromkeys(places):
        try:
            names = list(_names(root_of(place)))
        except ValueError as error:
            found.append(f"hydra.searchpath: {place}: {error}")
            continue
        found += _clashes(place, [(name, owners[name]) for name in names if name in owners])
        owners |= {name: place for name in names if name not in owners}
    return found


def merged(found: Sequence[dict[str, list[str]]]) -> dict[str, list[str]]:
    """Return the options of several directories together, by group."""
    groups = sorted({group for each in found for group in each})
    return {group: sorted({option for each in found for option in each.get(group, ())}) for group in groups}


def _clashes(place: str, clashing: Sequence[tuple[str, str]]) -> Iterator[str]:
    for owner in dict.fromkeys(owner for _, owner in clashing):
        names = [name for name, each in clashing if each == owner]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield (
            f"hydra.searchpath: {place} has {shown}, and so has {owner}, which comes first; "
            f"give {'it another name' if len(names) == 1 else 'them other names'}"
        )


def _names(root: Any) -> Iterator[str]:
    """Yield every file of a directory as one chooses it: `model=mine`, and `train` for one at its top."""
    yield from (each.name.removesuffix(".yaml") for each in root.iterdir() if each.name.endswith(".yaml"))
    for group, chosen in options_in(root).items():
        yield from (f"{group}={each}" for each in chosen)


def _yaml(folder: Any, prefix: str = "") -> Iterator[str]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _yaml(each, f"{prefix}{each.name}/")
        elif each.name.endswith(".yaml"):
            yield prefix + each.name.removesuffix(".yaml")


def _near(missing: Path) -> str:
    """Return which directories lie beside one that does not exist, where one of them has nearly its name."""
    try:
        beside = [each.name for each in missing.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    return f".{meant}" if (meant := did_you_mean(missing.name, beside)) else ""
