"""Replacement of a layer, of a block, of an input, and of a layer inside a subclassed model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from nameplate.errors import cause
from nameplate.graph import explicit_names, keras_private
from nameplate.graph.clone import clone
from nameplate.graph.copy_state import own_copy
from nameplate.graph.functional import Call, Graph, SurgeryError, Value, is_graph, values_in
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import owned_variables, walk
from nameplate.naming import names
from nameplate.surgery.addresses import Addresses, Sites, is_input
from nameplate.surgery.changes import Edit, EditLog, Replace, claim, class_names, layers_of

CONTEXT = ("training", "mask")  # call arguments that may be dropped, since not every layer takes them


def replace_in(addresses: Addresses, edit: Replace, done: EditLog, touched: set[int]) -> None:
    """Put layers in the place of one layer, of a block or of an input."""
    given = layers_of(edit.layer)
    if isinstance(edit.name, tuple) and len(edit.name) != 2:
        raise SurgeryError(f"{edit.name!r} is not a block: give two names, (first, last)")
    if isinstance(edit.name, tuple):
        _replace_block(addresses, edit.name, edit.at, given, done, touched)
        return
    layer = addresses.layer(edit.name)
    if is_input(layer):
        _replace_input(addresses, layer, given, done, touched)
        return
    every = addresses.sites(layer, None, what="replace")
    sites = addresses.sites(layer, edit.at, what="replace")
    everywhere = len(sites) == len(every)
    done.add_newcomers(given, sites[0][0], replaces=layer, everywhere=everywhere)
    for graph, call in sites:
        claim(call, edit.name, touched)
        call.replaced = layer
        _put(graph, call, given)
        _fit_arguments(call, layer, edit.name, done)
    if everywhere:
        done.gone.add(id(layer))
    done.containers |= {id(graph.container) for graph, _ in sites}
    where = "" if everywhere else f" at call {edit.at} of {len(every)}"
    done.notes.append((edit.name, f"{type(layer).__name__} replaced{where} by {class_names(given)}"))


def _put(graph: Graph, call: Call, given: Sequence[Any]) -> None:
    """Make a call use the first of the given layers, followed by new calls of the others."""
    outputs = call.outputs
    place = graph.calls.index(call)
    call.layer, call.took = given[0], None
    for layer in given[1:]:
        between = Value()
        call.outputs = [between]
        call = Call(layer, (between,), {}, outputs, gave=call.gave)
        place += 1
        graph.calls.insert(place, call)


def _fit_arguments(call: Call, old: Any, name: str, done: EditLog) -> None:
    """Fit the arguments of a call to the new layer.

    `training` and `mask` are dropped if it does not take them. In the place of an operator it gets only the tensors, as
    a list if it takes one argument, without the operator's constants.
    """
    parameters = inspect.signature(call.layer.call).parameters
    if not isinstance(old, keras.Layer):
        required = [
            parameter
            for parameter in parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty
        ]
        tensors = call.inputs()
        call.args = (tensors,) if len(tensors) > 1 and len(required) == 1 else tuple(tensors)
        call.kwargs = {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in [key for key in call.kwargs if key not in parameters]:
        if key not in CONTEXT:
            kind = type(call.layer).__name__
            raise SurgeryError(f"{name!r} is called with {key}=, which a {kind} does not take; give a layer that does")
        if call.kwargs.pop(key) is not None:
            done.notes.append((name, f"was called with {key}=, which a {type(call.layer).__name__} does not take"))


def _replace_input(addresses: Addresses, layer: Any, given: Sequence[Any], done: EditLog, touched: set[int]) -> None:
    if len(given) != 1 or not is_input(given[0]):
        raise SurgeryError(
            f"{addresses.name(layer)!r} is an input: give keras.Input(...), or insert the layer after it instead"
        )
    new, heads = given[0], addresses.heads(layer)
    done.add_newcomers(given, heads[0][0], replaces=layer)
    for graph, head in heads:
        claim(head, addresses.name(layer), touched)
        head.layer, head.spec = new, new.output
        done.containers.add(id(graph.container))
    done.gone.add(id(layer))
    note = f"input {tuple(layer.output.shape)} {layer.dtype} became {tuple(new.output.shape)} {new.dtype}"
    done.notes.append((addresses.name(layer), note))


def _replace_block(
    addresses: Addresses,
    ends: tuple[str, str],
    at: Sites,
    given: Sequence[Any],
    done: EditLog,
    touched: set[int],
) -> None:
    first, last = (addresses.layer(name) for name in ends)
    graph, inside = block_between(addresses, first, last, ends, at=at)
    for call in inside:
        claim(call, addresses.name(call.layer), touched)
    head, tail = inside[0], inside[-1]
    tail.args, tail.kwargs = head.args, {}
    tail.replaced = last
    gone = {id(call) for call in inside[:-1]}
    graph.calls = [call for call in graph.calls if id(call) not in gone]
    done.add_newcomers(
        given,
        graph,
        replaces=last,
        everywhere=not any(call.layer is last for call in graph.calls if call is not tail),
    )
    _put(graph, tail, given)
    done.containers.add(id(graph.container))
    done.notes.append((f"{ends[0]} to {ends[1]}", f"{len(inside)} layers replaced by {class_names(given)}"))


# ---- a block ----------------------------------------------------------------------------------------------------


def block_between(
    addresses: Addresses, first: Any, last: Any, ends: tuple[str, str], *, at: Sites
) -> tuple[Graph, list[Call]]:
    """Return the graph and the calls from one layer to another, side branches included, in order.

    Raises:
        SurgeryError: if they are not a block: something else enters, something in the middle leaves, or `last` does
        not follow `first`.
    """
    graph, start, end = _ends(addresses, first, last, ends, at=at)
    makers = {id(value): call for call in graph.calls for value in call.outputs}
    before = _ancestors(start, makers)
    entry = {id(value) for value in start.inputs()}
    inside, entering = _between(end, makers, before, entry)
    if id(start) not in inside:
        raise SurgeryError(f"{ends[1]!r} does not follow {ends[0]!r}, so there is no block from one to the other")
    calls = [call for call in graph.calls if id(call) in inside]
    problems = [f"it also takes the output of {_maker_name(value, makers, graph)!r}" for value in entering]
    own = {id(value): call for call in calls for value in call.outputs if call is not end}
    takers = [(value, call) for call in graph.calls if id(call) not in inside for value in call.inputs()]
    problems += [
        f"{str(own[id(value)].layer.name)!r} in it is also used by {str(call.layer.name)!r}"
        for value, call in takers
        if id(value) in own
    ]
    leaving = [own[id(value)] for value in values_in(graph.outputs) if id(value) in own]
    problems += [f"{str(call.layer.name)!r} in it is also an output" for call in leaving]
    if problems:
        raise SurgeryError(f"{ends[0]!r} to {ends[1]!r} is not a block: {'; '.join(dict.fromkeys(problems))}")
    # The first call supplies the arguments, and the last one the outputs.
    return graph, [start, *(call for call in calls if call is not start and call is not end), end]


def _ends(addresses: Addresses, first: Any, last: Any, ends: tuple[str, str], *, at: Sites) -> tuple[Graph, Call, Call]:
    if is_input(first) or is_input(last) or first is last:
        raise SurgeryError(
            f"a block goes from one layer to a later one and contains no input: {ends[0]!r}, {ends[1]!r}"
        )
    calls = []
    for name, layer in zip(ends, (first, last), strict=True):
        sites = addresses.sites(layer, at, what="replace")
        if len(sites) != 1:
            raise SurgeryError(f"{name!r} is called {len(sites)} times; say which block with at=0, 1, ...")
        calls.append(sites[0])
    (graph, start), (other, end) = calls
    if graph is not other:
        raise SurgeryError(f"{ends[0]!r} and {ends[1]!r} are in different containers: a block is in one")
    return graph, start, end


def _ancestors(call: Call, makers: dict[int, Call]) -> set[int]:
    ancestors: set[int] = set()
    waiting = [call]
    while waiting:
        for value in waiting.pop().inputs():
            maker = makers.get(id(value))
            if maker is not None and id(maker) not in ancestors:
                ancestors.add(id(maker))
                waiting.append(maker)
    return ancestors


def _between(end: Call, makers: dict[int, Call], before: set[int], entry: set[int]) -> tuple[set[int], list[Value]]:
    """Return the ids of the calls of a block that ends at `end`, and the other values that they take."""
    inside = {id(end)}
    entering: list[Value] = []
    waiting = [end]
    while waiting:
        for value in waiting.pop().inputs():
            if id(value) in entry:
                continue
            maker = makers.get(id(value))
            if maker is None or id(maker) in before:
                entering.append(value)
            elif id(maker) not in inside:
                inside.add(id(maker))
                waiting.append(maker)
    return inside, entering


def _maker_name(value: Value, makers: dict[int, Call], graph: Graph) -> str:
    if id(value) in makers:
        return str(makers[id(value)].layer.name)
    return next((str(head.layer.name) for head in graph.heads if head.value is value), "an input")


# ---- inside a subclassed model ----------------------------------------------------------------------------------
# A class that makes a layer in its own constructor makes it again when a file is loaded, and the replacement would be
# lost. A class that is given the layer has it in its configuration, where another can take its place.


def lifted(addresses: Addresses, edits: Sequence[Edit]) -> tuple[list[Edit], Any]:
    """Turn each replacement inside a subclassed model into a replacement of that whole model.

    Returns:
        The edits, and the new model if it was the top model itself that was subclassed.

    Raises:
        SurgeryError: if the configuration of the class does not contain the layer.
    """
    left: list[Edit] = []
    changed: dict[int, tuple[Any, Any]] = {}  # by id of a container: the container and its new copy
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
        raise SurgeryError(f"{addresses.model.name!r} is a {type(top).__name__}: make the other edits in a second pass")
    if any(_closed_holder(addresses, edit) is not None for edit in left):  # a subclassed model within another
        return lifted(addresses, left)
    return left, top


def _closed_holder(addresses: Addresses, edit: Edit) -> Any:
    """Return the subclassed model that holds the edited layer; None if a graph holds it."""
    if not isinstance(edit, Replace) or not isinstance(edit.name, str):
        return None
    if not addresses.has(edit.name):  # reported later, with everything else that is wrong
        return None
    holders = addresses.holders(addresses.layer(edit.name))
    closed = next((holder for holder in holders if not is_graph(holder)), None)
    if closed is not None and len(holders) > 1:
        others = [repr(addresses.name(holder) or "the model itself") for holder in holders if holder is not closed]
        raise SurgeryError(
            f"{edit.name!r} is shared: a {type(closed).__name__} ({addresses.name(closed) or 'the model itself'}) "
            f"holds it, and so does {', '.join(others)}; replaced in one, it would become two. Replace its containers"
        )
    return closed


def _with_another(addresses: Addresses, now: Any, holder: Any, edit: Replace) -> Any:
    """Return a copy of a subclassed model with one layer replaced and all other weights unchanged."""
    assert isinstance(edit.name, str)
    layer = addresses.layer(edit.name)
    given = layers_of(edit.layer)
    if len(given) != 1 or edit.at is not None:
        raise SurgeryError(f"{edit.name!r} is inside a subclassed model: one layer can replace it, at all calls")
    automatic = names.is_automatic(str(given[0].name), type(given[0]).__name__)
    automatic = automatic and not explicit_names.has_given_name(given[0])
    new = clone(given[0], renamed={id(given[0]): str(layer.name)} if automatic else {})
    objects = custom_objects([now, new, *(entry.layer for entry in [*walk(now), *walk(new)])])
    with keras_private.undisturbed(), keras_private.live_code(), keras.saving.custom_object_scope(objects):
        config = now.get_config()
        places = list(_layer_places(config, layer))
        if len(places) != 1:
            _refuse_created_by_class(addresses, holder, edit.name)
        container, key = places[0]
        container[key] = keras.saving.serialize_keras_object(new)
        copy = type(now).from_config(config)
        _build_like(now, copy, edit.name)
    _carry_weights(now, copy, str(layer.name), new)
    return copy


def _layer_places(value: Any, layer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (dictionary or list, key) for each place in a configuration that contains this layer."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if _is_config_of(item, layer):
            yield value, key
        else:
            yield from _layer_places(item, layer)


def _is_config_of(value: Any, layer: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        return False
    return value.get("class_name") == type(layer).__name__ and value["config"].get("name") == layer.name


def _refuse_created_by_class(addresses: Addresses, holder: Any, name: str) -> None:
    kind = type(holder).__name__
    raise SurgeryError(
        f"{name!r} cannot be replaced: {kind} ({addresses.name(holder) or 'the model itself'}) creates it, and would "
        f"create it again when a file is loaded. Make {kind} take the layer in its constructor and return it from "
        "get_config with keras.saving.serialize_keras_object"
    )


def _build_like(now: Any, copy: Any, name: str) -> None:
    config = now.get_build_config() if now.built else None
    try:
        if config:
            copy.build_from_config(config)
            copy.built = True
    except Exception as error:  # a class may raise anything for a layer that it cannot call
        raise SurgeryError(f"{type(now).__name__} cannot be built with the new {name!r}: {cause(error)}") from None


def _carry_weights(now: Any, copy: Any, replaced: str, new: Any) -> None:
    """Copy the values of the original, and those of the new layer if it has any."""
    before = {name: variable for name, variable, _ in owned_variables(now)}
    own = {name: variable for name, variable, _ in owned_variables(new)}
    for name, variable, owner in owned_variables(copy):
        inside = [part for part in (replaced, str(new.name)) if f"/{part}/" in f"/{name}"]
        within = name.rpartition(f"{inside[-1]}/")[2] if inside else ""
        source = own.get(within) if inside and own else before.get(name)
        if source is not None and tuple(source.shape) == tuple(variable.shape) and source.dtype == variable.dtype:
            variable.assign(own_copy(source.value))
        elif not inside:
            raise SurgeryError(f"{owner!r} would get another shape: {name} {tuple(variable.shape)}")
