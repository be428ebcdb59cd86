"""Places with files of options: what is in them, and what is wrong with one that Hydra cannot compose."""

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
    """Return what is wrong with a file and how to correct it; None if the error is not about a file.

    Args:
        key: the dotted key in Hydra's message, or nothing.
        lines: Hydra's message.
        options: the options of every group.
        keys_of: returns the keys of a configuration dataclass by the name of the class.
        lacks_schema: returns what to add if a key belongs to no option's schema, by the name of the class; or nothing.
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
        return f"{file}: it changes several sections, and so its first line must be  # @package _global_"
    known = keys_of(unknown["owner"])
    hint = did_you_mean(unknown["key"], known) or f" There are {', '.join(sorted(known))}" * bool(known)
    return f"{file}: {key}: no such key.{lacks_schema(unknown['owner']) or hint}"


def _no_option(group: str, option: str, options: Mapping[str, Sequence[str]]) -> str:
    known = options.get(group, ())
    has = f" There are {', '.join(known)}" if known else f" There is no group {group}"
    return f"{group}={option}: no such option, but a file asks for it.{did_you_mean(option, known)}{has}"


FILE, PACKAGE = "file://", "pkg://"
_EXAMPLE = "hydra.searchpath=[file:///home/me/conf,pkg://my_package.conf]"


def options_in(root: Any) -> dict[str, list[str]]:
    """Return the options of every group in a directory, by its file names: `{"model": ["mine"]}`.

    A file in a folder inside a group is an option of it: `experiment/old/first.yaml` is `experiment=old/first`.
    """
    groups = {
        folder.name: folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(("_", "."))
    }
    options = {name: sorted(_yaml(folder)) for name, folder in sorted(groups.items())}
    return {name: names for name, names in options.items() if names}


def root_of(place: str) -> Any:
    """Return the directory of a place: a path, or a directory inside an installed package.

    The package is imported, as Hydra does too.

    Raises:
        ValueError: there is no such directory; the message says what was looked for.
    """
    if place.startswith(PACKAGE):
        name = place.removeprefix(PACKAGE).strip("/").replace("/", ".")
        try:
            root = files(name)
        except (ImportError, ValueError, TypeError) as error:
            raise ValueError(f"no package {name!r} ({error}); is it installed, or on PYTHONPATH?") from None
        if root.is_dir() and not root.joinpath("__init__.py").is_file():  # Hydra 1.3 requires one
            raise ValueError(f"{name!r} has no __init__.py; put an empty one beside its groups")
    elif "://" in place.removeprefix(FILE):
        raise ValueError(f"neither {FILE} nor {PACKAGE}; e.g. {_EXAMPLE}")
    else:
        root = Path(place.removeprefix(FILE))
    if not root.is_dir():
        raise ValueError(f"no directory {str(root)!r}{_near(root) if isinstance(root, Path) else ''}")
    return root


def place_problems(places: Sequence[str], *, conf: Path) -> list[str]:
    """Return the problems of missing places, and of options in two places: the first would be used, silently.

    `conf` is the project's own directory, which comes before all others.
    """
    problems: list[str] = []
    owners = dict.fromkeys(_names(conf), "Nameplate's own conf/")
    for place in dict.fromkeys(places):
        try:
            names = list(_names(root_of(place)))
        except ValueError as error:
            problems.append(f"hydra.searchpath: {place}: {error}")
            continue
        problems += _conflicts(place, [(name, owners[name]) for name in names if name in owners])
        owners |= {name: place for name in names if name not in owners}
    return problems


def merged(places: Sequence[dict[str, list[str]]]) -> dict[str, list[str]]:
    """Return the options of several directories together, by group."""
    groups = sorted({group for options in places for group in options})
    return {group: sorted({name for options in places for name in options.get(group, ())}) for group in groups}


def _conflicts(place: str, conflicting: Sequence[tuple[str, str]]) -> Iterator[str]:
    for owner in dict.fromkeys(owner for _, owner in conflicting):
        names = [name for name, other in conflicting if other == owner]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield (
            f"hydra.searchpath: {place} has {shown}, and so has {owner}, which comes first; "
            f"give {'it another name' if len(names) == 1 else 'them other names'}"
        )


def _names(root: Any) -> Iterator[str]:
    """Yield every file of a directory as it is chosen: `model=mine`, or `train` for one at the top."""
    yield from (file.name.removesuffix(".yaml") for file in root.iterdir() if file.name.endswith(".yaml"))
    for group, names in options_in(root).items():
        yield from (f"{group}={name}" for name in names)


def _yaml(folder: Any, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _yaml(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")


def _near(missing: Path) -> str:
    """Return a hint if a directory beside the missing one has nearly its name."""
    try:
        beside = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    return f".{meant}" if (meant := did_you_mean(missing.name, beside)) else ""
