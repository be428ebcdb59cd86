"""What a run shows while it trains, on a terminal of 80 columns and in a pipe."""

from __future__ import annotations

import io
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from nameplate.data.batches import Epochs
from nameplate.data.dataset import summary
from nameplate.data.source import Memory, Stream
from nameplate.training.console import Screen
from nameplate.training.observers import Record, RunLength
from nameplate.training.progress_display import ShowProgress, TimeLeft, clock, fitted

VALUES = {"loss": 0.0151, "accuracy": 1.0, "val_loss": 0.038, "val_accuracy": 0.99444, "examples_per_second": 3645.2}
LENGTH = RunLength(first_step=0, total_steps=6, epochs=Epochs(3))


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(*, terminal: bool) -> str:
    """Return what is written of a run of two epochs."""
    screen = Screen()
    text = io.StringIO()
    screen.console = Console(file=text, force_terminal=terminal, width=80, soft_wrap=True, highlight=False)
    display = ShowProgress(screen)
    display.began(keras.Sequential(name="mine"), LENGTH)
    for step in range(1, 7):
        display.advanced(step)
        if step % 3 == 0:
            display.recorded(Record(step, step // 3 - 1, VALUES, True, best="val_accuracy" if step == 3 else None))
        elif step == 4:
            display.recorded(Record(step, 1, {"loss": 0.5, "learning_rate": 0.1}, False))
    display.ended()
    return text.getvalue()


def test_the_data_is_described_by_its_parts_and_its_classes() -> None:
    x = np.zeros((6, 2), "float32")
    few, many = np.array([0, 2, 2, 2, 0, 2]), np.array([[0], [1], [2], [3], [4], [4]])
    train, held_out = Memory((x, {"few": few, "many": many, "size": x[:, :1]})), Memory((x[:2], few[:2]))
    assert summary({"training": train, "validation": held_out, "test": None}, {"few": ("no", "-", "yes")}) == [
        "data: training 6, validation 2 examples",
        "  few: 2 of no, 4 of yes",
        "  many: 5 classes, 1 (0) to 2 (4) examples each",
    ]
    endless = Stream(tf.data.Dataset.range(3).repeat())
    assert summary({"training": endless}) == ["data: training an unknown number of examples"]


def test_a_pipe_gets_plain_lines() -> None:
    assert shown(terminal=False).splitlines() == [
        "epoch 1/2  step 3  loss 0.0151  accuracy 1.0000  val_loss 0.0380  val_accuracy 0.9944 (best)  "
        "examples_per_second 3645",
        "step 4/6  loss 0.5000",
        "epoch 2/2  step 6  loss 0.0151  accuracy 1.0000  val_loss 0.0380  val_accuracy 0.9944  "
        "examples_per_second 3645",
    ]


def test_a_terminal_gets_bars_that_say_that_the_step_is_compiled_and_lines_that_fit() -> None:
    written = re.sub(r"\x1b\[[0-9;?]*[A-Z]", "\n", re.sub(r"\x1b\[[0-9;?]*[a-z]", "", shown(terminal=True)))
    lines = [line.strip() for line in written.splitlines()]
    assert lines[0].startswith("epoch 1/2 ━")
    assert lines[0].endswith("0/3 compiling")
    assert "epoch 1/2  loss 0.0151 (val 0.0380)  accuracy 1.0000 (val 0.9944, best)  3645/s" in lines
    assert "epoch 2/2  loss 0.0151 (val 0.0380)  accuracy 1.0000 (val 0.9944)  3645/s" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_does_not_fit_a_line_is_left_out(width: int) -> None:
    many = {f"metric_{number}": 0.5 for number in range(9)} | {"val_metric_0": 0.25}
    line = fitted("epoch 10/10", many, best="metric_0", width=width)
    assert line.startswith("epoch 10/10  metric_0 0.5000 (best) (val 0.2500)")
    assert line.endswith(" …")
    assert len(line) <= max(width, 52)


def test_the_time_left_counts_down_without_jumps() -> None:
    time = Clock()
    left = TimeLeft(100, clock=time)
    left.advanced(2)  # the call that traces: how long it took says nothing
    assert left.seconds() is None
    time.now += 1
    left.advanced(12)
    assert left.seconds() == pytest.approx(8.8)
    time.now += 0.8
    assert left.seconds() == pytest.approx(8.0)  # between two calls
    time.now += 40  # a validation that is traced
    left.exclude()
    assert left.seconds() == pytest.approx(8.0 - 0.8 + 0.8, abs=1)
    before = left.seconds()
    assert before is not None
    time.now += 10  # a call ten times as slow as those before
    left.advanced(22)
    after = left.seconds()
    assert after is not None
    assert before < after < before + 10  # by the mean pace it would be 43 seconds


def test_times_are_written_as_people_read_them() -> None:
    assert [clock(seconds) for seconds in (0.2, 61, 3600)] == ["0:00", "1:01", "1:00:00"]
