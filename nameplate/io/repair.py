"""Repair: `.keras` files that Keras saved and cannot load, because several layers have the same name.

Nothing in the file is executed: its configuration is text, in which later duplicates and the calls that refer to them
get unique names. Which layer a call refers to follows from the order of the graph and from the fact that every layer is
used. A file in which that leaves a choice is refused.
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

from nameplate.arguments import checked
from nameplate.checkpoint import durable
from nameplate.errors import FileFormatError, as_path
from nameplate.formats import zip_archive as archives
from nameplate.formats.keras_file import CONFIG, read_config
from nameplate.naming import names

_LARGEST_MEMBER = 1 << 40  # bytes; the archive limits all members together in proportion to the file
_TRIES = 4096  # readings of a graph to consider


@dataclass(frozen=True)
class Mended:
    """One layer that got a unique name."""

    where: str  # the container, and the index in it, as head/1
    old: str
    new: str


@checked
def mend(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> list[Mended]:
    """Write a copy of a `.keras` file in which no two layers of a container share a name; return what was renamed.

    Proved: that the names in the new file are unique. Not proved: that its weights belong to the layers that the
    author meant; they stay where the file had them.

    Args:
        path: the file, which is not changed.
        to: the new file, which `nameplate.load` reads.

    Raises:
        FileFormatError: if the file cannot be read, or it is not clear which of several layers a call refers to.
    """
    source, target = as_path(path), as_path(to, "to")
    try:
        with archives.opened(source, ".keras") as archive:
            config = dict(read_config(archive, source))
            mended = [
                layer
                for where, container in _containers(config, "")
                for layer in _renamed_duplicates(where, container, source)
            ]
            _write(archive, source, target, json.dumps(config))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read as a .keras file: {error}") from None
    return mended


def _write(archive: zipfile.ZipFile, source: Path, target: Path, config: str) -> None:
    with durable.replacement(target) as draft, zipfile.ZipFile(draft, "w") as copy:
        for item in archive.infolist():
            read = archives.member(archive, item.filename, source, largest=_LARGEST_MEMBER)
            copy.writestr(item, config if item.filename == CONFIG else read)


def _containers(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, configuration) for every container in a configuration, wherever it lists layers."""
    if isinstance(value, dict):
        config = value.get("config")
        if isinstance(config, dict) and isinstance(config.get("layers"), list):
            yield where, config
            for layer in config["layers"]:
                own = layer.get("config", {}).get("name", "") if isinstance(layer, dict) else ""
                yield from _containers(layer, names.join(where, str(own)))
            return
        for item in value.values():
            yield from _containers(item, where)
    elif isinstance(value, list):
        for item in value:
            yield from _containers(item, where)


def _renamed_duplicates(where: str, container: dict[str, Any], path: Path) -> list[Mended]:
    """Rename the duplicates in the configuration of a container, in place."""
    layers = [layer for layer in container["layers"] if isinstance(layer, dict)]
    old_names = [str(layer.get("name") or layer.get("config", {}).get("name", "")) for layer in layers]
    indices: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(old_names):
        indices[name].append(index)
    duplicates = {name: several for name, several in indices.items() if len(several) > 1}
    if not duplicates:
        return []
    new_names = _new_names(old_names, duplicates)
    for name, several in duplicates.items():
        _redirect_calls(where, container, layers, name, several, new_names, path)
    mended = []
    for index, new in new_names.items():
        layers[index].get("config", {})["name"] = new
        if "name" in layers[index]:
            layers[index]["name"] = new
        mended.append(Mended(names.join(where, str(index)), old_names[index], new))
    return mended


def _new_names(old_names: Sequence[str], duplicates: dict[str, list[int]]) -> dict[int, str]:
    """Return `{index: new name}` for all but the first layer of each name."""
    taken = {name.casefold() for name in old_names}
    new_names: dict[int, str] = {}
    for name, several in duplicates.items():
        for index in several[1:]:
            number = next(number for number in itertools.count(2) if f"{name}_n{number}".casefold() not in taken)
            new_names[index] = f"{name}_n{number}"
            taken.add(new_names[index].casefold())
    return new_names


def _redirect_calls(
    where: str,
    container: dict[str, Any],
    layers: Sequence[dict[str, Any]],
    name: str,
    candidates: Sequence[int],
    new_names: dict[int, str],
    path: Path,
) -> None:
    """Make each reference to a duplicate name refer to the layer that it means."""
    calls = [
        (index, ref) for index, layer in enumerate(layers) for ref in _references(layer.get("inbound_nodes"), name)
    ]
    ends = [(len(layers), ref) for key in ("input_layers", "output_layers") for ref in _ends(container.get(key), name)]
    references = calls + ends
    if not references:  # a Sequential, whose list is its order
        return
    choices = [[candidate for candidate in candidates if candidate < index] for index, _ in references]
    readings = itertools.islice(itertools.product(*choices), _TRIES)
    consistent = [reading for reading in readings if set(reading) == set(candidates)]
    if len(consistent) != 1:
        which = "several readings of the graph say" if consistent else "no reading of the graph says"
        raise FileFormatError(
            f"{path}: {len(candidates)} layers are called {names.join(where, name)!r}, and {which} which of them each "
            "call means; build the model again from its code, and load the weights by order"
        )
    for (_, reference), index in zip(references, consistent[0], strict=True):
        reference[0] = new_names.get(index, name)


def _references(value: Any, name: str) -> Iterator[list[Any]]:
    """Yield the [layer, call, tensor] reference to each tensor of a layer with this name."""
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history and history[0] == name:
            yield history
        for item in value.values():
            yield from _references(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item, name)


def _ends(value: Any, name: str) -> Iterator[list[Any]]:
    """Yield the [layer, call, tensor] references among the inputs or outputs of a container."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _ends(item, name)
    elif isinstance(value, list):
        if len(value) == 3 and value[0] == name and isinstance(value[1], int):
            yield value
            return
        for item in value:
            yield from _ends(item, name)
