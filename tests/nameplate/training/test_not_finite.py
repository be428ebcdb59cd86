"""What only validation sees is no number (F8): training goes on, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.long import cases
from tests.trainer.running import train


def saved(folder: Path, part: str, *, spoilt: bool) -> str:
    x = np.random.default_rng(0).random((16, 4), "float32")
    if spoilt:
        x[3, 1] = np.nan
    np.savez(folder / f"{part}.npz", x=x, y=np.arange(16, dtype="uint8") % 2)
    return f"{folder}/{part}.npz"


def said(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if "NaN" in line]


@pytest.mark.parametrize("activation", cases(["relu", "tanh", ""], short=["relu", ""]))
def test_f8_nan_that_only_validation_sees_is_said(
    activation: str, tmp_path: Path, strategy: object, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [saved(tmp_path, "train", spoilt=False), saved(tmp_path, "held", spoilt=bool(activation))]
    data = ["data=arrays", f"data.path={paths[0]}", f"data.validation_path={paths[1]}"]
    model = ["model=mlp", "model.hidden=[4]", f"model.activation={activation or 'relu'}"]
    report = train(tmp_path, "run=a", "fit.epochs=2", *model, *data)

    assert report.steps == 4
    lines = said(capsys.readouterr().out)
    of_data = "data: 'x' of the validation data has NaN or infinite values in 1 of 16 examples, the first"
    assert [line.startswith(of_data) for line in lines[:1]] == [True] * bool(activation)
    spoilt = not np.isfinite(report.values["val_loss"])  # a ReLU may turn NaN into zero, as its kernel happens to
    assert spoilt == bool(activation) or activation == "relu"
    assert [line.startswith("val_loss: NaN or infinite after step 2") for line in lines[1:]] == [True] * spoilt
