"""A part of another model as first weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

import models
from models.adapting import Classes
from models.transfer import write_plan
from trainer.config.init import TransferInitConfig
from trainer.first_weights.sources import Source

COLUMNS = ("variable", "from", "verdict", "why")


def transfer(
    model: keras.Model,
    init: TransferInitConfig,
    opened: AbstractContextManager[Source],
    *,
    show: Callable[[str, tuple[str, ...], Sequence[tuple[str, ...]]], None],
) -> dict[str, dict[str, Any]]:
    """Write what `init` takes into the model, proved equal bit for bit, and return where each value came from.

    Raises:
        NameplateError: for names that are left over, shapes that differ, and rules and patterns that are for nothing.
    """
    classes = Classes(tuple(init.source_classes), tuple(init.target_classes)) if init.source_classes else None
    with opened as source:
        plan = models.plan(
            source.weights,
            model,
            init.rename,
            take=init.only,
            adapt=init.adapt,
            classes=classes,
            label=source.label,
        )
        rows = [(line.target or "", line.source or "", line.verdict, line.detail) for line in plan.lines]
        show(f"first weights from {source.label}", COLUMNS, rows)
        write_plan(plan, model)
        step = {"step": source.step} if source.checkpoint else {}
    return {target: origin | step for target, origin in plan.origins().items()}
