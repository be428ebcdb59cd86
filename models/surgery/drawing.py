"""A graph around a layer as text, as Mermaid, or as Graphviz' DOT; of an edit, before and after."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from models import names
from models.surgery.addresses import Addresses
from models.surgery.edits import SurgeryError
from models.surgery.graph import Graph, is_graph, read

STYLES = ("text", "mermaid", "dot")


@dataclass(frozen=True)
class _Box:
    name: str
    kind: str
    shape: str
    takes: tuple[str, ...]  # names of the boxes before it


def draw(
    model: keras.Model, around: str | Sequence[str] = (), *, reach: int = 2, style: str = "text", after: Any = None
) -> str:
    """Return a drawing of a model's graph: a line a layer, with its shape and where it takes from.

    Args:
        model: functional or sequential.
        around: qualified names of one container; without any, the whole graph is drawn.
        reach: how many layers before and behind them are shown.
        style: `text`, `mermaid` or `dot`, which Graphviz turns into a picture.
        after: an edited model; both are drawn, and what is new or gone is marked `+` and
            `-`, what has another shape or takes from others `~`.

    Raises:
        SurgeryError: for names that do not exist, or a model without a graph.
    """
    if style not in STYLES:
        raise SurgeryError(f"no style {style!r}; there are {', '.join(STYLES)}.{names.did_you_mean(style, STYLES)}")
    wanted = [around] if isinstance(around, str) else list(around)
    before = _shown(model, wanted, reach, strict=True)
    if after is None:
        return _rendered(before, style, marks={})
    later = _shown(after, wanted or [], reach, strict=False)
    old, new = ({box.name: box for box in _boxes(_graph(each, wanted))} for each in (model, after))
    gone, came = _marks(old, new, "-"), _marks(new, old, "+")
    first, second = _rendered(before, style, marks=gone), _rendered(later, style, marks=came)
    return "\n".join([_comment(style, f"{model.name} before"), first, _comment(style, f"{after.name} after"), second])


def _shown(model: Any, wanted: Sequence[str], reach: int, *, strict: bool) -> list[_Box]:
    boxes = _boxes(_graph(model, wanted))
    if not wanted:
        return boxes
    own = [names.split(name)[1] for name in wanted]
    if strict:
        addresses = Addresses(model)
        for name in wanted:
            addresses.layer(name)
    near = set(own)
    for _ in range(reach):
        near |= {before for box in boxes if box.name in near for before in box.takes} | {
            box.name for box in boxes if near & set(box.takes)
        }
    return [box for box in boxes if box.name in near]


def _marks(boxes: Mapping[str, _Box], others: Mapping[str, _Box], mark: str) -> dict[str, str]:
    found = {}
    for name, box in boxes.items():
        other = others.get(name)
        if other is None or other.kind != box.kind:
            found[name] = mark
        elif other != box:
            found[name] = "~"
    return found


def _graph(model: Any, wanted: Sequence[str]) -> Graph:
    containers = {names.split(name)[0] for name in wanted} or {""}
    if len(containers) > 1:
        raise SurgeryError(f"a drawing is of one container; these names lie in {', '.join(sorted(containers))}")
    where = containers.pop()
    container = Addresses(model).layer(where) if where else model
    if not is_graph(container) or not getattr(container, "inputs", None):
        raise SurgeryError(f"{container.name!r}, a {type(container).__name__}, has no graph that could be drawn")
    return read(container)


def _boxes(graph: Graph) -> list[_Box]:
    """Return a box a call; the second call of a layer is `name@1`."""
    makers: dict[int, str] = {}
    boxes = []
    counts: dict[int, int] = {}
    for head in graph.heads:
        makers[id(head.value)] = str(head.layer.name)
        boxes.append(_Box(str(head.layer.name), "InputLayer", _shapes([head.spec]), ()))
    for call in graph.calls:
        count = counts.get(id(call.layer), 0)
        counts[id(call.layer)] = count + 1
        name = f"{call.layer.name}{f'@{count}' if count else ''}"
        takes = tuple(dict.fromkeys(makers[id(value)] for value in call.inputs()))
        makers.update((id(value), name) for value in call.outputs)
        boxes.append(_Box(name, type(call.layer).__name__, _shapes(call.gave), takes))
    return boxes


def _shapes(specs: Collection[Any]) -> str:
    return ", ".join(str(tuple(spec.shape)).replace("None", "n") for spec in specs)


def _rendered(boxes: Sequence[_Box], style: str, *, marks: dict[str, str]) -> str:
    if style == "text":
        return _text(boxes, marks)
    known = {box.name: f"n{place}" for place, box in enumerate(boxes)}
    edges = [(before, box.name) for box in boxes for before in box.takes if before in known]
    if style == "mermaid":
        lines = ["flowchart TD"]
        lines += [
            f'  {known[box.name]}["{marks.get(box.name, "")}{box.name}<br/>{box.kind} {box.shape}"]' for box in boxes
        ]
        return "\n".join([*lines, *(f"  {known[one]} --> {known[other]}" for one, other in edges)])
    lines = ["digraph {", "  node [shape=box]"]
    lines += [
        f'  {known[box.name]} [label="{marks.get(box.name, "")}{box.name}\\n{box.kind} {box.shape}"]' for box in boxes
    ]
    return "\n".join([*lines, *(f"  {known[one]} -> {known[other]}" for one, other in edges), "}"])


def _text(boxes: Sequence[_Box], marks: dict[str, str]) -> str:
    rows = [(f"{marks.get(box.name, ' ')} {box.name}", box.kind, box.shape, ", ".join(box.takes)) for box in boxes]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = []
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row[:3], widths, strict=True)]
        lines.append(f"{'  '.join(cells)}{f'  <- {row[3]}' if row[3] else ''}".rstrip())
    return "\n".join(lines)


def _comment(style: str, text: str) -> str:
    return {"text": f"{text}:", "mermaid": f"%% {text}", "dot": f"// {text}"}[style]
