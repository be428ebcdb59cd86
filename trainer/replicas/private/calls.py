"""The calls of a model's layers: what they give, at which sizes, and from which logits."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def capturing(layers: Mapping[str, Any], *, stop: bool) -> Iterator[dict[str, Any]]:
    """Inside, a layer's first call leaves its output under its key; with `stop` the last of them ends the block.

    `Operation.__call__` (ops/operation.py) runs the attribute `call`, or `quantized_call` of a quantized layer; it is
    shadowed on the instance until the block ends.
    """
    found: dict[str, Any] = {}
    shadowed = []
    try:
        for name, layer in layers.items():
            for method in ("call", "quantized_call"):
                if hasattr(layer, method):
                    shadowed.append((layer, method, layer.__dict__.get(method)))
                    layer.__dict__[method] = _kept(getattr(layer, method), name, found, len(layers) if stop else None)
        with contextlib.suppress(Enough):
            yield found
    finally:
        for layer, method, before in reversed(shadowed):
            layer.__dict__.pop(method)
            if before is not None:
                layer.__dict__[method] = before


class Enough(BaseException):  # no error, and it must pass `except Exception` on its way out of a model
    """All outputs that were wanted are there."""


def _kept(call: Any, name: str, found: dict[str, Any], enough: int | None) -> Any:
    @functools.wraps(call)
    def keep(*arguments: Any, **keywords: Any) -> Any:
        output = call(*arguments, **keywords)
        found.setdefault(name, output)
        if len(found) == enough:
            raise Enough
        return output

    return keep


@contextmanager
def any_size(graphs: Sequence[Any]) -> Iterator[None]:
    """Inside, models do not compare their inputs' sizes with those they were built for; their layers still do.

    `Layer._assert_input_compatibility` (layers/layer.py, models/functional.py).
    """
    for graph in graphs:
        graph.__dict__["_assert_input_compatibility"] = lambda *_: None
    try:
        yield
    finally:
        for graph in graphs:
            graph.__dict__.pop("_assert_input_compatibility", None)


def logits(output: Any) -> Any:
    """Return what a softmax or sigmoid made a tensor from (`_keras_logits`, backend/tensorflow/nn.py), or itself."""
    return getattr(output, "_keras_logits", output)
