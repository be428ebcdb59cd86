"""Files that Keras saved and cannot load, since layers in them have one name: opened, reported and repaired.

Nothing in the file is executed: its configuration is text, in which later duplicates get names of their own, and so do
the calls that mean them. Which of several a call means is taken from the order of the graph, and from every layer being
used by something; where that leaves a choice, the file is refused.
"""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nameplate.checkpoint import durable
from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive as archives
from nameplate.formats.keras_file import CONFIG, read_config
from nameplate.naming import names

_LARGEST_MEMBER = 1 << 40  # bytes; together they are in proportion to the file
_TRIES = 4096  # ways of reading a graph that are gone through


@dataclass(frozen=True)
class Mended:
    """One layer that got a name of its own."""

    where: str  # the container, and its place there, as head/1
    old: str
    new: str


def mend(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> list[Mended]:
    """Write a `.keras` file again in which no two layers of a container have one name; return what was renamed.

    Proved: that the new file's names are unique. Not proved: that its weights are those of the layers that its
    author meant; they go where the file had them.

    Args:
        path: the file; it is left as it is.
        to: the new file; `nameplate.load` reads it.

    Raises:
        FileFormatError: when the file cannot be read, or it is not clear which of several layers a call means.
    """
    source, target = Path(path), Path(to)
    try:
        with archives.opened(source, ".keras") as archive:
            config = dict(read_config(archive, source))
            found = [each for where, container in _containers(config, "") for each in _mended(where, container, source)]
            _write(archive, source, target, json.dumps(config))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read as a .keras file: {error}") from None
    return found


def _write(archive: zipfile.ZipFile, source: Path, target: Path, config: str) -> None:
    with durable.replacement(target) as draft, zipfile.ZipFile(draft, "w") as copy:
        for item in archive.infolist():
            read = archives.member(archive, item.filename, source, largest=_LARGEST_MEMBER)
            copy.writestr(item, config if item.filename == CONFIG else read)


def _containers(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, configuration) of everything in a configuration that lists layers."""
    if isinstance(value, dict):
        config = value.get("config")
        if isinstance(config, dict) and isinstance(config.get("layers"), list):
            yield where, config
            for each in config["layers"]:
                own = each.get("config", {}).get("name", "") if isinstance(each, dict) else ""
                yield from _containers(each, names.join(where, str(own)))
            return
        for each in value.values():
            yield from _containers(each, where)
    elif isinstance(value, list):
        for each in value:
            yield from _containers(each, where)


def _mended(where: str, container: dict[str, Any], path: Path) -> list[Mended]:
    layers = [each for each in container["layers"] if isinstance(each, dict)]
    given = [str(each.get("name") or each.get("config", {}).get("name", "")) for each in layers]
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(given):
        places[name].append(place)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    if not twice:
        return []
    fresh = _fresh(given, twice)
    for name, found in twice.items():
        _repoint(where, container, layers, name, found, fresh, path)
    mended = []
    for place, new in fresh.items():
        layers[place].get("config", {})["name"] = new
        if "name" in layers[place]:
            layers[place]["name"] = new
        mended.append(Mended(names.join(where, str(place)), given[place], new))
    return mended


def _fresh(given: Sequence[str], twice: dict[str, list[int]]) -> dict[int, str]:
    """Return new names for all but the first of each."""
    taken = {name.casefold() for name in given}
    fresh: dict[int, str] = {}
    for name, found in twice.items():
        for place in found[1:]:
            number = next(each for each in itertools.count(2) if f"{name}_n{each}".casefold() not in taken)
            fresh[place] = f"{name}_n{number}"
            taken.add(fresh[place].casefold())
    return fresh


def _repoint(
    where: str,
    container: dict[str, Any],
    layers: Sequence[dict[str, Any]],
    name: str,
    found: Sequence[int],
    fresh: dict[int, str],
    path: Path,
) -> None:
    """Let each call that means one of several layers say which."""
    calls = [
        (place, ref) for place, layer in enumerate(layers) for ref in _references(layer.get("inbound_nodes"), name)
    ]
    ends = [(len(layers), ref) for key in ("input_layers", "output_layers") for ref in _ends(container.get(key), name)]
    references = calls + ends
    if not references:  # a Sequential says its order by its list
        return
    choices = [[each for each in found if each < place] for place, _ in references]
    ways = itertools.islice(itertools.product(*choices), _TRIES)
    sound = [way for way in ways if set(way) == set(found)]
    if len(sound) != 1:
        what = "several ways" if sound else "no way"
        raise FileFormatError(
            f"{path}: {len(found)} layers are called {names.join(where, name)!r}, and there is {what} to tell which of "
            "them each call means; build the model again from its code, and load the weights by order"
        )
    for (_, reference), place in zip(references, sound[0], strict=True):
        reference[0] = fresh.get(place, name)


def _references(value: Any, name: str) -> Iterator[list[Any]]:
    """Yield the [layer, call, tensor] of each tensor from a layer of this name."""
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history and history[0] == name:
            yield history
        for each in value.values():
            yield from _references(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each, name)


def _ends(value: Any, name: str) -> Iterator[list[Any]]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _ends(each, name)
    elif isinstance(value, list):
        if len(value) == 3 and value[0] == name and isinstance(value[1], int):
            yield value
            return
        for each in value:
            yield from _ends(each, name)
