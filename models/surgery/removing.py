"""A layer less: what used its output uses its input, in a graph as data."""

from __future__ import annotations

from models.surgery.addresses import Addresses, is_input
from models.surgery.changes import Rewritten, claim, given_by, sources
from models.surgery.edits import Remove, SurgeryError
from models.surgery.graph import Call, Graph, Value


def remove_in(addresses: Addresses, edit: Remove, done: Rewritten, touched: set[int]) -> None:
    """Take a layer out at the calls that are meant."""
    layer = addresses.layer(edit.name)
    if is_input(layer):
        raise SurgeryError(f"{edit.name!r} is an input and cannot be removed; replace it, or extract from behind it")
    if id(layer) in done.gone:
        raise SurgeryError(f"{edit.name!r} is replaced or removed twice in one pass")
    sites = addresses.sites(layer, edit.at, what="remove")
    for graph, call in sites:
        claim(call, edit.name, touched)
        value = _which_stays(addresses, edit, graph, call)
        _, changes = done.substitutes.setdefault(id(graph), (graph, {}))
        changes.update({id(output): value for output in call.outputs})
        graph.calls = [each for each in graph.calls if each is not call]
    if not addresses.sites(layer, None, what="remove"):
        done.gone.add(id(layer))
    done.containers |= {id(graph.container) for graph, _ in sites}
    where = "" if edit.at is None else f" at call {edit.at}"
    done.notes.append((edit.name, f"{type(layer).__name__} removed{where}"))


def _which_stays(addresses: Addresses, edit: Remove, graph: Graph, call: Call) -> Value:
    taken = list({id(value): value for value in call.inputs()}.values())
    if edit.keep is not None:
        places = given_by(graph, addresses.layer(edit.keep))
        taken = [value for value in taken if id(value) in places] or taken
    if len(taken) != 1:
        raise SurgeryError(f"{edit.name!r} takes {len(taken)} tensors: {sources(graph, taken)}; say which stays: keep=")
    if len(call.outputs) != 1:
        raise SurgeryError(f"{edit.name!r} gives {len(call.outputs)} tensors; replace it by what gives as many")
    return taken[0]
