"""Drawings of a model's graph: as text, as Mermaid or DOT, and as an image if Graphviz is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from nameplate import text_table
from nameplate.arguments import checked
from nameplate.checkpoint import durable
from nameplate.errors import as_path
from nameplate.graph.functional import Graph, SurgeryError, has_graph, read
from nameplate.graph.tree import require_model
from nameplate.naming import names
from nameplate.naming.names import did_you_mean
from nameplate.surgery.addresses import Addresses

STYLES = ("text", "mermaid", "dot")
SUFFIXES = (".svg", ".png", ".pdf")
_COLOURS = {"+": ', color="darkgreen"', "-": ', color="red"', "~": ', color="orange"'}
_PATIENCE = 120.0  # seconds; `dot` lays out thousands of boxes in less, and never finishes for some graphs


@dataclass(frozen=True)
class _Box:
    name: str
    kind: str
    shape: str
    takes: tuple[str, ...]  # names of the boxes of its inputs


@checked
def draw(
    model: keras.Model,
    around: str | Sequence[str] = (),
    *,
    reach: int = 2,
    style: str = "text",
    after: keras.Model | None = None,
    to: str | os.PathLike[str] | None = None,
) -> str:
    """Return a drawing of a model's graph: a line a layer, with its shape and inputs.

    Args:
        model: functional or sequential.
        around: qualified names of layers in one container; by default the whole graph is drawn.
        reach: how many layers before and after them to show.
        style: `text`, `mermaid` or `dot`, the language of Graphviz.
        after: an edited model; both are drawn, new layers marked `+`, removed ones `-`, those with another shape or
            other inputs `~`.
        to: an image for Graphviz to write, `.svg`, `.png` or `.pdf`; then its DOT is returned.

    Raises:
        SurgeryError: for names that do not exist, a model without a graph, and an image without Graphviz.
    """
    require_model(model)
    if reach < 0:
        raise SurgeryError(f"reach={reach}: at least 0 layers before and after them")
    if to is not None:
        drawn = draw(model, around, reach=reach, style="dot", after=after)
        picture(drawn, to)
        return drawn
    if style not in STYLES:
        raise SurgeryError(f"no style {style!r}; there are {', '.join(STYLES)}.{names.did_you_mean(style, STYLES)}")
    wanted = [around] if isinstance(around, str) else list(around)
    before = _shown(model, wanted, reach, strict=True)
    if after is None:
        return _rendered(before, style, marks={})
    later = _shown(after, wanted or [], reach, strict=False)
    old, new = ({box.name: box for box in _boxes(_graph(side, wanted))} for side in (model, after))
    gone, came = _marks(old, new, "-"), _marks(new, old, "+")
    if style == "dot":
        return _dot(
            {f"{model.name} before": _cluster(before, gone, "a"), f"{after.name} after": _cluster(later, came, "b")}
        )
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
    marks = {}
    for name, box in boxes.items():
        other = others.get(name)
        if other is None or other.kind != box.kind:
            marks[name] = mark
        elif other != box:
            marks[name] = "~"
    return marks


def _graph(model: Any, wanted: Sequence[str]) -> Graph:
    containers = {names.split(name)[0] for name in wanted} or {""}
    if len(containers) > 1:
        raise SurgeryError(f"a drawing shows one container; these names are in {', '.join(sorted(containers))}")
    where = containers.pop()
    container = Addresses(model).layer(where) if where else model
    if not has_graph(container) or not getattr(container, "inputs", None):
        raise SurgeryError(f"{container.name!r}, a {type(container).__name__}, has no graph to draw")
    return read(container)


def _boxes(graph: Graph) -> list[_Box]:
    """Return a box for each call; the second call of a layer is `name@1`."""
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
    if style == "dot":
        return "\n".join(["digraph {", "  node [shape=box]", *_cluster(boxes, marks, "n"), "}"])
    known = {box.name: f"n{place}" for place, box in enumerate(boxes)}
    lines = ["flowchart TD"]
    lines += [f'  {known[box.name]}["{marks.get(box.name, "")}{box.name}<br/>{box.kind} {box.shape}"]' for box in boxes]
    return "\n".join([*lines, *(f"  {known[one]} --> {known[other]}" for one, other in _edges(boxes))])


def _dot(clusters: Mapping[str, Sequence[str]]) -> str:
    """Return one DOT graph with a titled cluster for each drawing."""
    lines = ["digraph {", "  node [shape=box]"]
    for place, (title, inside) in enumerate(clusters.items()):
        lines += [f"  subgraph cluster_{place} {{", f'  label="{_quoted(title)}"', *inside, "  }"]
    return "\n".join([*lines, "}"])


def _cluster(boxes: Sequence[_Box], marks: Mapping[str, str], letter: str) -> list[str]:
    """Return boxes and arrows in DOT, marked boxes in colour; the letter keeps the ids of two drawings apart."""
    known = {box.name: f"{letter}{place}" for place, box in enumerate(boxes)}
    lines = []
    for box in boxes:
        mark = marks.get(box.name, "")
        label = f"{_quoted(mark + box.name)}\\n{_quoted(f'{box.kind} {box.shape}')}"
        lines.append(f'  {known[box.name]} [label="{label}"{_COLOURS.get(mark, "")}]')
    return [*lines, *(f"  {known[one]} -> {known[other]}" for one, other in _edges(boxes))]


def _edges(boxes: Sequence[_Box]) -> list[tuple[str, str]]:
    known = {box.name for box in boxes}
    return [(before, box.name) for box in boxes for before in box.takes if before in known]


def _quoted(text: str) -> str:
    """Return text escaped for a quoted string in DOT."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _text(boxes: Sequence[_Box], marks: dict[str, str]) -> str:
    rows = [(f"{marks.get(box.name, ' ')} {box.name}", box.kind, box.shape, _sources(box)) for box in boxes]
    return "\n".join(text_table.aligned(rows))


def _sources(box: _Box) -> str:
    return f"<- {', '.join(box.takes)}" if box.takes else ""


def _comment(style: str, text: str) -> str:
    return {"text": f"{text}:", "mermaid": f"%% {text}"}[style]


# ---- an image file ----------------------------------------------------------------------------------------------


def picture(text: str, path: str | os.PathLike[str]) -> Path:
    """Lay out DOT text as an image, whose format the suffix selects, and return its path; it appears by one rename.

    Raises:
        SurgeryError: for an unknown suffix, if Graphviz is not installed, and for errors of `dot` or the disk.
    """
    target = as_path(path, "to")
    if target.suffix not in SUFFIXES:
        hint = did_you_mean(target.suffix, SUFFIXES)
        raise SurgeryError(f"{target}: drawings are written as {', '.join(SUFFIXES)}.{hint}")
    program = shutil.which("dot")
    if program is None:
        raise SurgeryError(
            f"{target} was not drawn: Graphviz' dot is not installed. Install it (apt install graphviz, brew install "
            "graphviz), or draw without to=: style='mermaid' for Markdown, 'dot' for any viewer, 'text' for a terminal."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacement(target) as draft:
            _lay_out([program, f"-T{target.suffix[1:]}", "-o", str(draft)], text, target)
    except OSError as error:
        raise SurgeryError(f"{target} cannot be written: {error.strerror}") from None
    return target


def _lay_out(command: list[str], text: str, target: Path) -> None:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise SurgeryError(
            f"{target} was not drawn: dot took more than {_PATIENCE:.0f} seconds. Draw a part: around=NAME, reach=3."
        ) from None
    if done.returncode:
        raise SurgeryError(f"{target} was not drawn: dot says {' '.join(done.stderr.split()):.300}")
