"""What Keras 2 wrote differently in a configuration, put as Keras 3 reads it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

_CONTAINERS = ("Functional", "Model", "Sequential")


def modernized(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a Keras 2 model such that Keras 3 finds every call of every nested model.

    A nested model of Keras 2 counted its own construction as its call 0, so that the first use was call 1; one input or
    output alone was written as a list of one.
    """
    found = copy.deepcopy(dict(config))
    if isinstance(found.get("config"), list):  # a Sequential before Keras 2.2.3
        found["config"] = {"name": "sequential", "layers": found["config"]}
    if found.get("class_name") == "Model":
        found["class_name"] = "Functional"
    stack = [found]
    while stack:
        inner = stack.pop().get("config")
        layers = inner.get("layers") if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(layers, list):
            nested = [each for each in layers if isinstance(each, dict)]
            _shift_calls(inner, nested)
            for key in ("input_layers", "output_layers"):
                ports = inner.get(key)
                if isinstance(ports, list) and len(ports) == 1 and isinstance(ports[0], list):
                    inner[key] = ports[0]
            stack += nested
    return found


def _shift_calls(graph: dict[str, Any], layers: list[dict[str, Any]]) -> None:
    calls = {
        str(each.get("name")): len(each.get("inbound_nodes") or ())
        for each in layers
        if each.get("class_name") in _CONTAINERS
    }
    uses = [use for use in _uses(graph) if use[0] in calls]
    late = {name for name, call, *_ in uses if call >= calls[name]}
    for use in uses:
        if use[0] in late and use[1] > 0:
            use[1] -= 1


def _uses(graph: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield each [layer, call, output, ...] in a graph, to be changed in place."""
    layers = [each for each in graph.get("layers", []) if isinstance(each, Mapping)]
    stack: list[Any] = [graph.get("output_layers"), *(each.get("inbound_nodes") for each in layers)]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int:
                yield value
            else:
                stack += value
