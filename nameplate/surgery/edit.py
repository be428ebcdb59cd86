"""The verbs: several edits in one pass, and each alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from nameplate.graph import keras_private
from nameplate.graph.functional import SurgeryError, is_graph
from nameplate.graph.global_state import collector_paused
from nameplate.naming import names
from nameplate.naming.policy import Policy
from nameplate.surgery.addresses import Addresses, Sites
from nameplate.surgery.changes import Edit, EditLog, Given, Insert, Remove, Replace, newcomers_names
from nameplate.surgery.rebuild import Blueprint, Built, make
from nameplate.surgery.replacement import lifted
from nameplate.surgery.rewrite import rewrite
from nameplate.surgery.shapes import Rebuild, ShapePropagation
from nameplate.surgery.verification import EditLine, EditReport, verify_edit, verify_newcomers

_log = logging.getLogger(__name__)

Listener = Callable[[EditReport], None]


@collector_paused()
def edit(
    model: keras.Model,
    edits: Sequence[Edit],
    *,
    rebuild: Rebuild = False,
    share: bool = False,
    policy: Policy | str = "strict",
    verify: bool = True,
    report: Listener | None = None,
) -> keras.Model:
    """Return an uncompiled copy of the model with all these edits, made in the caller's strategy scope.

    Names mean the model as it was. Every untouched layer keeps its name and its weights, bit for bit; a layer that
    stands for another takes over the weights whose names and shapes agree, unless it has its own.

    Proved: of what is untouched names, weights, sharing, configurations and arguments; with `verify` also that the
    result is saved and loaded again with equal outputs, and that outputs which no edit reaches are the original's.
    Not proved: what the edited part computes.

    Args:
        model: functional or sequential, nested to any depth; it is left as it is.
        edits: `Replace`, `Insert`, `Remove`.
        rebuild: whether consumers whose weights no longer fit get new ones: all of them, or those named.
        share: whether layers that lie upstream of all edits stay the very layers of the original, which then train with
            it; only what lies downstream is made anew, and only that costs time. Not for sequential models.
        policy: what the names of new layers must keep; `repair` names them.
        verify: whether the result is saved, loaded and compared, and its untouched outputs with the original's.
        report: gets the `EditReport`; without one, what nobody may overlook goes to the log.

    Raises:
        SurgeryError: with every edit that cannot be done, or every consumer that cannot take its new shape.
        NamingError: for names of new layers that break the policy or clash.
        RebuildError: for layers that cannot be made again from their configuration.
    """
    addresses = Addresses(model)
    strangers = [each for each in edits if not isinstance(each, Edit)]
    if strangers:
        raise SurgeryError(f"{strangers[0]!r} is not an edit; there are nameplate.Replace, Insert and Remove")
    asked = edits
    edits, closed = lifted(addresses, edits)
    if closed is not None:
        lines = [EditLine(str(each.name), "edit", "replaced") for each in asked if isinstance(each, Replace)]
        lines += [verify_edit(model, closed, [])] if verify else []
        _tell(EditReport(str(model.name), tuple(lines), len(addresses.entries), 0), report)
        return closed
    done = rewrite(addresses, edits)
    own_names = newcomers_names(addresses, done, policy)
    graph = addresses.graph(_editable(model))
    edited = addresses.with_holders(done.containers)
    dropped = [call for container in edited for call in addresses.graph(container).prune()]
    shapes = ShapePropagation(addresses, {id(each) for each in edited}, done.newcomers, own_names, rebuild)
    shapes.run(graph)
    shapes.refuse()
    for container in addresses.containers():
        if id(container) in shapes.opened:
            addresses.graph(container).lint()
    order = Blueprint(
        graph,
        shapes.opened,
        own_names,
        {key: each.layer for key, each in done.newcomers.items()},
        {key: each.stands_for for key, each in done.newcomers.items() if each.alone and each.everywhere},
        shapes.rebuilt,
        share,
        {key: names.join(addresses.name(each.container), own_names[key]) for key, each in done.newcomers.items()},
    )
    made = make(addresses, order)
    lines = _lines(addresses, done, dropped, shapes, made)
    if verify:
        verify_newcomers(made.anew, made.model)
        changed = {*shapes.opened, *done.newcomers, *shapes.rebuilt}
        lines.append(verify_edit(model, made.model, graph.untouched_outputs(changed)))
    _tell(EditReport(str(model.name), tuple(lines), len(made.kept), made.taken), report)
    return made.model


def replace(
    model: keras.Model,
    layers: Mapping[str, Given] | Mapping[tuple[str, str], Given] | Mapping[str | tuple[str, str], Given],
    *,
    at: Sites = None,
    **options: Any,
) -> keras.Model:
    """Return a copy in which each of these layers is another: `{name: layer}`, `{name: [layer, layer]}` for several in
    a row, `{(first, last): layer}` for a block; `at` picks calls of a shared layer. Options as for `edit`.
    """
    if not isinstance(layers, Mapping):
        raise SurgeryError(f"layers is {{name: layer}}, not a {type(layers).__name__}")
    return edit(model, [Replace(name, layer, at=at) for name, layer in layers.items()], **options)


def insert(
    model: keras.Model,
    layer: Given,
    *,
    after: str | None = None,
    before: str | None = None,
    at: Sites = None,
    output: int | None = None,
    **options: Any,
) -> keras.Model:
    """Return a copy with a layer more: behind `after` for all that take from it, in front of `before`, or between the
    two. Options as for `edit`.
    """
    return edit(model, [Insert(layer, after=after, before=before, at=at, output=output)], **options)


def remove(model: keras.Model, *layers: str, at: Sites = None, keep: str | None = None, **options: Any) -> keras.Model:
    """Return a copy without these layers; what used one's output uses its input, of several that of `keep`. Options as
    for `edit`.
    """
    if not layers:
        raise SurgeryError("remove needs the name of a layer at least")
    return edit(model, [Remove(name, at=at, keep=keep) for name in layers], **options)


def _editable(model: Any) -> Any:
    if is_graph(model):
        return model
    kind = type(model).__name__
    raise SurgeryError(
        f"{getattr(model, 'name', model)!r} is a {kind}, whose code says how its layers are called: there is no graph "
        "to edit. Only replace works there, where its configuration holds the layer"
    )


def _lines(addresses: Addresses, done: EditLog, dropped: Any, shapes: ShapePropagation, made: Built) -> list[EditLine]:
    lines = [EditLine(name, "edit", what) for name, what in done.notes]
    lines += [EditLine(name, "aloud", what) for name, what in done.aloud]
    lines += [EditLine(addresses.name(call.layer), "dropped", "leads to no output now") for call in dropped]
    lines += [
        EditLine(addresses.name(layer), "rebuilt", "its weights have another shape")
        for layer in shapes.rebuilt.values()
    ]
    lines += [EditLine(name, what, detail) for name, what, detail in made.weights]
    old, new = addresses.model, made.model
    for before, after in zip(getattr(old, "output_names", []), getattr(new, "output_names", []), strict=False):
        if before != after:
            lines.append(EditLine(after, "output name", f"was {before}"))
    tensors = zip(getattr(old, "outputs", []), getattr(new, "outputs", []), strict=False)
    for place, (before, after) in enumerate(tensors):
        if tuple(before.shape) != tuple(after.shape):
            told = f"{tuple(before.shape)} became {tuple(after.shape)}"
            lines.append(EditLine(keras_private.source(after).name, f"output {place}", told))
    if type(old) is not type(new):
        lines.append(EditLine(str(new.name), "aloud", f"was a {type(old).__name__}, is a {type(new).__name__} now"))
    return lines


def _tell(report: EditReport, listener: Listener | None) -> None:
    if listener is not None:
        listener(report)
        return
    for line in report.aloud():
        _log.warning("%s: %s %s %s", report.model, line.name, line.what, line.detail)


__all__ = ["edit", "insert", "remove", "replace"]
