"""Replace where a class calls its layers: sound where its configuration holds the layer, refused everywhere else.

A class that makes a layer itself, in its constructor, makes it again when a file is loaded: what was put in its place
would be gone. A class that is given the layer has it in its configuration, and there it can be another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from nameplate.errors import cause
from nameplate.graph import explicit_names, keras_private
from nameplate.graph.clone import clone
from nameplate.graph.functional import Edit, Replace, SurgeryError, is_graph, layers_of
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import owned_variables, walk
from nameplate.naming import names
from nameplate.surgery.addresses import Addresses


def lifted(addresses: Addresses, edits: Sequence[Edit]) -> tuple[list[Edit], Any]:
    """Return edits in which a layer inside a class became its whole container, and the new model where that is it all.

    Raises:
        SurgeryError: where the configuration of the class does not hold the layer.
    """
    left: list[Edit] = []
    changed: dict[int, tuple[Any, Any]] = {}  # id of a container: itself, and what it became
    for edit in edits:
        holder = _closed_holder(addresses, edit)
        if holder is None:
            left.append(edit)
            continue
        assert isinstance(edit, Replace)
        assert isinstance(edit.name, str)
        now = changed[id(holder)][1] if id(holder) in changed else holder
        changed[id(holder)] = holder, _with_another(addresses, now, holder, edit)
    top = None
    for holder, new in changed.values():
        if holder is addresses.model:
            top = new
        else:
            left.append(Replace(addresses.name(holder), new))
    if top is not None and left:
        raise SurgeryError(
            f"{addresses.model.name!r} is a {type(top).__name__}: edit what it holds in a pass of its own"
        )
    if any(_closed_holder(addresses, edit) is not None for edit in left):  # a class within a class
        return lifted(addresses, left)
    return left, top


def _closed_holder(addresses: Addresses, edit: Edit) -> Any:
    """Return the container of a class of the user's in which the edited layer lies, None where it is a graph."""
    if not isinstance(edit, Replace) or not isinstance(edit.name, str):
        return None
    if not addresses.has(edit.name):  # which is told with all that is wrong
        return None
    holders = addresses.holders(addresses.layer(edit.name))
    closed = next((holder for holder in holders if not is_graph(holder)), None)
    if closed is not None and len(holders) > 1:
        others = ", ".join(repr(addresses.name(each) or "the model itself") for each in holders if each is not closed)
        raise SurgeryError(
            f"{edit.name!r} is shared: a {type(closed).__name__} ({addresses.name(closed) or 'the model itself'}) "
            f"holds it, and so does {others}; replaced in one of them it would be two. Replace what holds it"
        )
    return closed


def _with_another(addresses: Addresses, now: Any, holder: Any, edit: Replace) -> Any:
    """Return a copy of a container in which one layer is another; all other weights are as they were."""
    assert isinstance(edit.name, str)
    layer = addresses.layer(edit.name)
    given = layers_of(edit.layer)
    if len(given) != 1 or edit.at is not None:
        raise SurgeryError(f"{edit.name!r} lies inside a class: one layer can take its place, at all its calls")
    automatic = names.is_automatic(str(given[0].name), type(given[0]).__name__)
    automatic = automatic and not explicit_names.has_given_name(given[0])
    new = clone(given[0], renamed={id(given[0]): str(layer.name)} if automatic else {})
    objects = custom_objects([now, new, *(entry.layer for entry in [*walk(now), *walk(new)])])
    with keras_private.undisturbed(), keras_private.live_code(), keras.saving.custom_object_scope(objects):
        config = now.get_config()
        places = list(_places(config, layer))
        if len(places) != 1:
            _refuse(addresses, holder, edit.name)
        container, key = places[0]
        container[key] = keras.saving.serialize_keras_object(new)
        copy = type(now).from_config(config)
        _build(now, copy, edit.name)
    _carry(now, copy, str(layer.name), new)
    return copy


def _places(value: Any, layer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of each place of a configuration that holds this layer."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        if _is(each, layer):
            yield value, key
        else:
            yield from _places(each, layer)


def _is(value: Any, layer: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        return False
    return value.get("class_name") == type(layer).__name__ and value["config"].get("name") == layer.name


def _refuse(addresses: Addresses, holder: Any, name: str) -> None:
    kind = type(holder).__name__
    raise SurgeryError(
        f"{name!r} cannot be replaced: {kind} ({addresses.name(holder) or 'the model itself'}) makes it, and would "
        f"make it again when a file is loaded. Let {kind} take the layer in its constructor, and give it in "
        "get_config with keras.saving.serialize_keras_object"
    )


def _build(now: Any, copy: Any, name: str) -> None:
    config = now.get_build_config() if now.built else None
    try:
        if config:
            copy.build_from_config(config)
            copy.built = True
    except Exception as error:  # whatever a class says to a layer that it cannot call
        raise SurgeryError(f"{type(now).__name__} cannot be built with the new {name!r}: {cause(error)}") from None


def _carry(now: Any, copy: Any, replaced: str, new: Any) -> None:
    """Give a copy the values of what it was made from, and the new layer its own where it has some."""
    before = {name: variable for name, variable, _ in owned_variables(now)}
    own = {name: variable for name, variable, _ in owned_variables(new)}
    for name, variable, owner in owned_variables(copy):
        inside = [part for part in (replaced, str(new.name)) if f"/{part}/" in f"/{name}"]
        within = name.rpartition(f"{inside[-1]}/")[2] if inside else ""
        source = own.get(within) if inside and own else before.get(name)
        if source is not None and tuple(source.shape) == tuple(variable.shape) and source.dtype == variable.dtype:
            variable.assign(source.value)
        elif not inside:
            raise SurgeryError(f"{owner!r} would get another shape: {name} {tuple(variable.shape)}")
