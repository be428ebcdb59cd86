"""The verbs `edit`, for several edits in one pass, and `replace`, `insert` and `remove`, for one each."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import keras

from nameplate.arguments import BY_VERB, checked
from nameplate.formats.policy_file import AnyPolicy
from nameplate.graph import keras_private
from nameplate.graph.functional import SurgeryError, is_graph, why_closed
from nameplate.graph.global_state import collector_paused
from nameplate.naming import names
from nameplate.surgery.addresses import Addresses, Sites
from nameplate.surgery.changes import Edit, EditLog, Given, Insert, Remove, Replace, newcomer_names
from nameplate.surgery.rebuild import Blueprint, Built, build
from nameplate.surgery.replacement import lifted
from nameplate.surgery.rewrite import rewrite
from nameplate.surgery.shapes import Rebuild, ShapePropagation
from nameplate.surgery.verification import EditLine, EditReport, Listener, verify_edit, verify_newcomers

_log = logging.getLogger(__name__)


@checked
@collector_paused()
def edit(
    model: keras.Model,
    edits: Sequence[Edit],
    *,
    rebuild: Rebuild = False,
    share: bool = False,
    policy: AnyPolicy = "strict",
    verify: bool = True,
    report: Listener | None = None,
) -> keras.Model:
    """Return an uncompiled copy of the model with all these edits, made in the caller's strategy scope.

    Names refer to the model before the edits. Every untouched layer keeps its name and its weights, bit for bit. A
    layer that replaces another takes over the weights whose names and shapes agree, unless it is built already.

    Proved: names, weights, sharing, configurations and arguments of the untouched part; with `verify` also that the
    result is saved and loaded again with equal outputs, and that outputs which no edit affects are the original's.
    Not proved: what the edited part computes.

    Args:
        model: functional or sequential, nested to any depth; it is not changed.
        edits: `Replace`, `Insert`, `Remove`.
        rebuild: whether consumers whose weights no longer fit get new ones: all of them, or those named.
        share: whether to reuse the layers upstream of all edits instead of copying them; they then train with the
            original, and the edit takes time only for what is downstream. Not for sequential models.
        policy: what the names of new layers must satisfy; `repair` chooses them.
        verify: whether to save, load and compare the result, and to compare unaffected outputs with the original's.
        report: called with the `EditReport`; by default its warnings are logged.

    Raises:
        SurgeryError: with every edit that cannot be made, or every consumer that cannot take its new shape.
        NamingError: for names of new layers that break the policy or clash.
        RebuildError: for layers that cannot be recreated from their configuration.
    """
    addresses = Addresses(model)
    rebuild = _known(addresses, rebuild)
    invalid = [item for item in edits if not isinstance(item, Edit)]
    if invalid:
        raise SurgeryError(f"{invalid[0]!r} is not an edit; there are nameplate.Replace, Insert and Remove")
    asked = edits
    edits, subclassed = lifted(addresses, edits)
    if subclassed is not None:
        lines = [EditLine(str(item.name), "edit", "replaced") for item in asked if isinstance(item, Replace)]
        lines += [verify_edit(model, subclassed, [])] if verify else []
        _send(EditReport(str(model.name), tuple(lines), len(addresses.entries), 0), report)
        return subclassed
    done = rewrite(addresses, edits)
    own_names = newcomer_names(addresses, done, policy)
    graph = addresses.graph(_editable(model))
    edited = addresses.with_holders(done.containers)
    dropped = [call for container in edited for call in addresses.graph(container).prune()]
    shapes = ShapePropagation(addresses, {id(container) for container in edited}, done.newcomers, own_names, rebuild)
    shapes.run(graph)
    shapes.refuse()
    for container in addresses.containers():
        if id(container) in shapes.opened:
            addresses.graph(container).lint()
    blueprint = Blueprint(
        graph,
        shapes.opened,
        own_names,
        {key: newcomer.layer for key, newcomer in done.newcomers.items()},
        {key: new.replaces for key, new in done.newcomers.items() if new.alone and new.everywhere},
        shapes.rebuilt,
        share,
        {key: names.join(addresses.name(new.container), own_names[key]) for key, new in done.newcomers.items()},
    )
    built = build(addresses, blueprint)
    lines = _lines(addresses, done, dropped, shapes, built)
    if verify:
        verify_newcomers(built.given, built.model)
        changed = {*shapes.opened, *done.newcomers, *shapes.rebuilt}
        lines.append(verify_edit(model, built.model, graph.untouched_outputs(changed)))
    _send(EditReport(str(model.name), tuple(lines), len(built.kept), built.copied), report)
    return built.model


@checked
def replace(
    model: keras.Model,
    layers: Annotated[
        Mapping[str, Given] | Mapping[tuple[str, str], Given] | Mapping[str | tuple[str, str], Given], BY_VERB
    ],
    *,
    at: Sites = None,
    **options: Any,
) -> keras.Model:
    """Return an uncompiled copy in which other layers take the place of these.

    Args:
        model: as for `edit`.
        layers: `{name: layer}`; `{name: [layer, layer]}` puts several in a chain, `{(first, last): layer}` replaces the
            block from one layer to another.
        at: which calls of a shared layer, counted from 0; by default all.
        options: `rebuild`, `share`, `policy`, `verify` and `report`, as for `edit`.
    """
    if not isinstance(layers, Mapping):
        raise SurgeryError(f"layers must be {{name: layer}}, not a {type(layers).__name__}")
    return edit(model, [Replace(name, layer, at=at) for name, layer in layers.items()], **options)


@checked
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
    """Return an uncompiled copy with another layer, or several in a chain.

    Args:
        model: as for `edit`.
        layer: a layer, or a list of layers that form a chain.
        after: the layer whose output goes through the new one, for all its consumers.
        before: the layer whose input goes through the new one; with `after`, only the edge between the two.
        at: which calls of a shared layer, counted from 0; by default all.
        output: which output of `after`, if it has several.
        options: `rebuild`, `share`, `policy`, `verify` and `report`, as for `edit`.
    """
    return edit(model, [Insert(layer, after=after, before=before, at=at, output=output)], **options)


@checked
def remove(model: keras.Model, *layers: str, at: Sites = None, keep: str | None = None, **options: Any) -> keras.Model:
    """Return an uncompiled copy without these layers; their consumers use their inputs instead.

    Args:
        model: as for `edit`.
        layers: qualified names.
        at: which calls of a shared layer, counted from 0; by default all.
        keep: the layer whose output remains if a removed layer has several inputs.
        options: `rebuild`, `share`, `policy`, `verify` and `report`, as for `edit`.
    """
    if not layers:
        raise SurgeryError("remove needs the name of at least one layer")
    return edit(model, [Remove(name, at=at, keep=keep) for name in layers], **options)


def _known(addresses: Addresses, rebuild: Rebuild) -> Rebuild:
    """Return the names of `rebuild` as a list, a single one too; raise `SurgeryError` for one that does not exist."""
    if not isinstance(rebuild, Collection):
        return bool(rebuild)
    listed = [rebuild] if isinstance(rebuild, str) else list(rebuild)
    for name in listed:
        addresses.layer(name)
    return listed


def _editable(model: Any) -> Any:
    if is_graph(model):
        return model
    raise SurgeryError(f"{model.name!r} cannot be edited: {why_closed(model, top=True)}")


def _lines(addresses: Addresses, done: EditLog, dropped: Any, shapes: ShapePropagation, built: Built) -> list[EditLine]:
    lines = [EditLine(name, "edit", what) for name, what in done.notes]
    lines += [EditLine(name, "warning", what) for name, what in done.warnings]
    lines += [EditLine(addresses.name(call.layer), "dropped", "leads to no output any more") for call in dropped]
    lines += [
        EditLine(addresses.name(layer), "rebuilt", "its weights have another shape")
        for layer in shapes.rebuilt.values()
    ]
    lines += [EditLine(name, what, detail) for name, what, detail in built.weights]
    old, new = addresses.model, built.model
    for before, after in zip(getattr(old, "output_names", []), getattr(new, "output_names", []), strict=False):
        if before != after:
            lines.append(EditLine(after, "output name", f"was {before}"))
    tensors = zip(getattr(old, "outputs", []), getattr(new, "outputs", []), strict=False)
    for place, (before, after) in enumerate(tensors):
        if tuple(before.shape) != tuple(after.shape):
            change = f"{tuple(before.shape)} became {tuple(after.shape)}"
            lines.append(EditLine(keras_private.source(after).name, f"output {place}", change))
    if type(old) is not type(new):
        lines.append(EditLine(str(new.name), "warning", f"was a {type(old).__name__}, is now a {type(new).__name__}"))
    return lines


def _send(report: EditReport, listener: Listener | None) -> None:
    if listener is not None:
        listener(report)
        return
    for line in report.warnings():
        _log.warning("%s: %s %s %s", report.model, line.name, line.what, line.detail)


__all__ = ["edit", "insert", "remove", "replace"]
