"""Stages of a run: which layers train from which epoch on. Each ends with a checkpoint that is never pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.model_weights import trained
from nameplate.training.config import InitConfig


@dataclass(frozen=True)
class Stages:
    """Stages by number, from 0; each begins when a number of epochs is done, and thaws layers that were frozen."""

    freeze: tuple[str, ...] = ()  # patterns of layers
    thaw: Mapping[int, tuple[str, ...]] = field(default_factory=dict)  # epochs done -> patterns of layers, in order

    def __len__(self) -> int:
        return 1 + len(self.thaw)

    @property
    def begins(self) -> tuple[int, ...]:
        """Number of epochs that are done when each stage begins."""
        return (0, *self.thaw)

    def at(self, epoch: int) -> int:
        """Return the stage that an epoch, counted from 0, belongs to."""
        return sum(begin <= epoch for begin in self.begins) - 1

    def ends(self, epochs: int) -> bool:
        """Say whether a stage ends, and another follows, when this many epochs are done."""
        return epochs in self.thaw

    def prepare(self, model: keras.Model) -> list[str]:
        """Make all layers trainable that will ever train, for the optimizer to be built; return their variables.

        Raises:
            NameplateError: a pattern matches no layer, or a stage trains nothing or nothing new.
        """
        before: list[str] = []
        for stage, begin in enumerate(self.begins):
            names = self.enter(model, stage)
            if not names:
                raise NameplateError(f"init.freeze: nothing trains from epoch {begin + 1} on; leave a layer to train")
            if stage and len(names) == len(before):
                raise NameplateError(
                    f"init.unfreeze.{begin}: {', '.join(self.thaw[begin])} trains already; leave it out"
                )
            before = names
        return before

    def enter(self, model: keras.Model, stage: int) -> list[str]:
        """Make the layers of a stage trainable and no others; return the names of their variables.

        Raises:
            NameplateError: a pattern matches no layer.
        """
        if self.freeze:
            nameplate.set_trainable(model, self.freeze, trainable=False)
        for begin in self.begins[1 : stage + 1]:
            nameplate.set_trainable(model, self.thaw[begin], trainable=True)
        return trained(model)

    def described(self, stage: int) -> dict[str, Any]:
        """Return the description of a stage for the checkpoint at its end."""
        thawed = [pattern for begin in self.begins[1 : stage + 1] for pattern in self.thaw[begin]]
        return {"name": f"stage {stage + 1} of {len(self)}", "frozen": list(self.freeze), "thawed": thawed}

    def announcement(self, stage: int, names: list[str]) -> str:
        """Return the line that is printed when a stage begins."""
        begin = self.begins[stage]
        thawed = f"; now also {', '.join(self.thaw[begin])}" if stage else ""
        return f"stage {stage + 1} of {len(self)}, from epoch {begin + 1}: {len(names)} variables train{thawed}"


def stages_of(init: InitConfig, *, epochs: int, say: Callable[[str], None]) -> Stages:
    """Return the stages of a configuration; those that a run of this many epochs never reaches are reported."""
    thaw = init.thaws()
    for begin in [begin for begin in thaw if begin >= epochs]:
        say(f"init.unfreeze.{begin}: the run ends after {epochs} epochs, and {', '.join(thaw[begin])} stays frozen")
    return Stages(tuple(init.freeze), thaw)
