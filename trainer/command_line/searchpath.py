"""Options beside those in conf/: the directories and packages that a command line adds to the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from models.names import did_you_mean

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
