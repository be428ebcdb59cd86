"""TensorBoard: scalars over a step that never starts again, histograms by variable name, the run in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

import models
from models.tree import seeds
from trainer.callbacks.event_files import forget_after
from trainer.callbacks.observer import Journey, Observer, Record


class TensorBoard(Observer):
    """Writes event files: `train/` and `validation/` under the directory."""

    def __init__(self, directory: Path, *, texts: Mapping[str, str], histograms_every: int | None) -> None:
        self._directory, self._texts, self._every = directory, texts, histograms_every

    def began(self, model: keras.Model, journey: Journey) -> None:
        """Open the writers; the step goes on from where the run does."""
        self._model = model
        for part in ("train", "validation"):
            forget_after(self._directory / part, journey.first_step)
        self._train = tf.summary.create_file_writer(str(self._directory / "train"))
        self._validation = tf.summary.create_file_writer(str(self._directory / "validation"))
        with self._train.as_default(step=journey.first_step):
            if journey.first_step == 0:
                for name, text in self._texts.items():
                    tf.summary.text(name, f"```\n{text}\n```")

    def recorded(self, record: Record) -> None:
        """Write the scalars, and at the end of an epoch the histograms."""
        for name, value in record.values.items():
            writer = self._validation if name.startswith("val_") else self._train
            with writer.as_default(step=record.step):
                tf.summary.scalar(_tag(name, of_epoch=record.of_epoch), value)
        if record.of_epoch and self._every and (record.epoch + 1) % self._every == 0:
            self._histograms(record.step)
        self._train.flush()
        self._validation.flush()

    def ended(self) -> None:
        """Close the writers."""
        self._train.close()
        self._validation.close()

    def _histograms(self, step: int) -> None:
        drawn = {f"{name}/state" for name in seeds(self._model)}
        with self._train.as_default(step=step):
            for name, variable in models.variables(self._model).items():
                if name not in drawn:
                    tf.summary.histogram(name, variable.numpy())


def _tag(name: str, *, of_epoch: bool) -> str:
    """Return the tag: training and validation share one, so that they share a chart."""
    return f"{'epoch' if of_epoch else 'step'}/{name.removeprefix('val_')}"
