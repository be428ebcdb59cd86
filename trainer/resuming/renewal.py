"""What of a checkpoint gives way when a run goes on under settings that were changed on purpose."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.resuming.drift import Drift


@dataclass(frozen=True)
class Renewal:
    """Beginnings of names in a checkpoint's state, and what happens to them."""

    own: tuple[str, ...] = ()  # keeps the value that the job began with
    free: tuple[str, ...] = ()  # may be on one side only: what is new begins anew, what is left over is left
    slots: bool = False  # so may slots
    forget_slots: bool = False  # all of them: those of another optimizer mean something else, also under one name


def renewal_of(drift: Drift) -> Renewal:
    """Return what of the checkpoint gives way to settings that were changed on purpose."""
    own, free = [], []
    if drift.touches("optimizer.learning_rate", "schedule") or drift.replaces("optimizer"):
        own.append("optimizer/learning_rate")
    if drift.touches("seed"):
        own.append("seeds/")
    updates = drift.touches("optimizer", "schedule", "fit.precision", "init")
    if updates:
        free.append("optimizer/")
    if drift.touches("model", "data", "seed"):
        free.append("seeds/")
    if drift.touches("model", "objective"):
        free.append("metrics/")
    return Renewal(tuple(own), tuple(free), slots=updates, forget_slots=drift.replaces("optimizer"))
